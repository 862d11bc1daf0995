"""The configurations that come with the package: where they lie, and how one is read in Python.

A checkout has them at its root, `configs/*.py`; an installed package has a copy of them in `shipped/configs/`. Either
way they go by the same names, such as `configs/folder.py` or `configs/published.py:robal_n`.
"""

import difflib
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict


def root() -> Path:
    """The folder that holds `configs/`."""
    shipped = Path(__file__).parent / "shipped"
    return shipped if shipped.is_dir() else Path(__file__).parents[1]


def importable() -> None:
    """Lets configurations import `configs.default`, after whatever else goes by that name on the path."""
    if (folder := str(root())) not in sys.path:
        sys.path.append(folder)


def find(name: str) -> str:
    """`FILE.py` or `FILE.py:RECIPE` as a path from here, or else of what comes with the package, or else as given."""
    file, sign, recipe = name.partition(":")
    shipped = root() / file
    return f"{shipped}{sign}{recipe}" if file and not Path(file).exists() and shipped.is_file() else name


def load(name: str) -> ConfigDict:
    """A configuration as the command would have it, locked: known keys may be set, others not.

    Args:
      name: a path, or one that comes with the package, such as `configs/folder.py`; `:RECIPE` behind it where the file
        has several.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no configuration, or has other keys than `configs/default.py` (`check_keys`).
    """
    importable()
    file, _, recipe = find(name).partition(":")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(f"{file} is no configuration; it must define get_config.")
    config = get_config(*([recipe] if recipe else []))
    check_keys(config)
    return config.lock()


def check_keys(config: Any) -> None:
    """Refuses a configuration whose keys are not those of `configs/default.py`.

    A file that sets `config.threat.raduis` would otherwise be run with the radius of the default.

    Raises:
      ValueError: it is no ConfigDict; an unknown key (names it and the nearest known one); a key that is not there.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"the configuration is a {type(config).__name__}; get_config must return a ConfigDict, such as "
            "configs.default.get_config() with changes."
        )
    known = set(_keys(runpy.run_path(str(root() / "configs" / "default.py"))["get_config"]()))
    found = set(_keys(config))
    for key in sorted(found - known):
        nearest = difflib.get_close_matches(key, known, 1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "; configs/default.py has every key that exists."
        raise ValueError(f"the configuration has an unknown key {key}{hint}")
    for key in sorted(known - found):
        raise ValueError(f"the configuration has no key {key}; begin with configs.default.get_config().")


def _keys(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> Iterator[str]:
    """Dotted keys; an optimiser's options are optax's, and so not among them."""
    for key, value in tree.items():
        if isinstance(value, Mapping | ConfigDict) and key != "options":
            yield from _keys(value, f"{prefix}{key}.")
        elif key != "options":
            yield prefix + key
