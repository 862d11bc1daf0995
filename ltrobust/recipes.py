"""The configurations that come with the package: where they lie, and how one is read in Python.

A checkout has them at its root, `configs/*.py`; an installed package has a copy of them in `shipped/configs/`. Either
way they go by the same names, such as `configs/folder.py` or `configs/published.py:robal_n`.
"""

import runpy
import sys
from pathlib import Path

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
      ValueError: it is no configuration.
    """
    importable()
    file, _, recipe = find(name).partition(":")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(f"{file} is no configuration; it must define get_config.")
    return get_config(*([recipe] if recipe else [])).lock()
