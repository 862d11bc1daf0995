"""The configurations that come with the package: where they lie, and how one is read in Python.

A checkout has them at its root, `configs/*.py`; an installed package has a copy of them in `shipped/configs/`. Either
way they go by the same names, such as `configs/folder.py` or `configs/published.py:robal_n`.
"""

import ast
import inspect
import os
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ltrobust import registry
from ltrobust.runtime.names import UnknownName, nearest
from ltrobust.runtime.workdir import read_config, used, with_tuples

# Group of keys -> what its own groups are settings of.
_REGISTERED = {"methods": "method", "model": "network"}


def root() -> Path:
    """The folder that holds `configs/`."""
    shipped = Path(__file__).parent / "shipped"
    return shipped if shipped.is_dir() else Path(__file__).parents[1]


def importable() -> None:
    """Lets configurations import `configs.default`, and modules of the current folder."""
    registry.search(root())
    registry.search(Path.cwd())


def find(name: str) -> str:
    """`FILE.py` or `FILE.py:RECIPE` as a path from here, or else of what comes with the package, or else as given.

    `NAME` is `configs/NAME.py` where the package has one.
    """
    file, sign, recipe = name.partition(":")
    file = f"configs/{file}.py" if file in shipped() else file
    here = root() / file
    return f"{here if file and not Path(file).exists() and here.is_file() else file}{sign}{recipe}"


def config(name: str | os.PathLike[str] = "digits") -> Any:  # a ConfigDict, of whose keys type checkers know nothing
    """The configuration of a run, a ConfigDict as the command line has it: known keys may be set, others not.

    Args:
      name: one that comes with the package, such as `digits`, or `published:robal_n` for one of several recipes in a
        file; or the path of a file; or of the `config.json` that a run has recorded.

    Raises:
      FileNotFoundError: there is no such file; names those that come with the package.
      ValueError: it is no configuration, or has no such recipe.
    """
    return load(os.fspath(name))


def load(name: str) -> ConfigDict:
    """A configuration as the command would have it, locked: known keys may be set, others not.

    The file may import modules of the same folder, such as one that registers a method.

    Args:
      name: a path, or one that comes with the package, such as `configs/folder.py` or `folder`; `:RECIPE` behind it
        where the file has several; or the path of a `config.json` that a run has recorded.

    Raises:
      FileNotFoundError: there is no such file (names those that come with the package).
      UnknownName: it has no recipes, or several and none is named. A file that has them may raise it too.
      ValueError: it is no configuration, or has other keys than `configs/default.py`
        (`check_keys`).
    """
    importable()
    # The path of a record may have a colon, as the workdir's name may.
    file, sign, recipe = (name, "", "") if name.endswith(".json") and Path(name).is_file() else name.partition(":")
    path = find(file)
    if not Path(path).is_file():
        known = shipped()
        raise FileNotFoundError(
            f"there is no configuration {file!r}; {nearest(Path(file).stem, known)}known configurations: "
            f"{', '.join(known)}; give configs/NAME.py of one, or the path of your own."
        )
    if path.endswith(".json"):
        config = recorded(path)
        check_keys(config)
        return config.lock()
    if root() not in Path(path).resolve().parents:  # a user's own file
        registry.search(Path(path).parent)
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise ValueError(f"{file} is no configuration; it must define get_config.")
    given = [recipe] if sign else []
    try:
        inspect.signature(get_config).bind(*given)
    except TypeError:
        wanted = f"has no recipes; give {file}" if given else f"has several recipes; give {file}:NAME"
        raise UnknownName(f"{file} {wanted}.") from None
    try:
        config = get_config(*given)
    except TypeError as error:
        if "numpy" not in str(error):
            raise
        raise ValueError(f"{error}; make a plain number of a NumPy one, by float(x) or int(x).") from error
    check_keys(config)
    return config.lock()


def shipped() -> list[str]:
    """The names of the configurations that come with the package; `load` takes `configs/NAME.py`."""
    return sorted(path.stem for path in (root() / "configs").glob("*.py") if path.stem != "__init__")


def default() -> ConfigDict:
    """The configuration of `configs/default.py`, which has every key that exists."""
    return runpy.run_path(str(root() / "configs" / "default.py"))["get_config"]()


def recorded(path: str) -> ConfigDict:
    """The configuration in a workdir's `config.json`; a key that it lacks has the value of `configs/default.py`.

    Settings of methods and networks that are not registered now are left out if the run does not use them.

    Raises:
      ValueError: the file is damaged, is not the configuration of a run, or holds a value of another type than its key
        has.
    """
    config = default()
    _update(config, used(read_config(Path(path)), config.to_dict()))
    return config


def _update(config: Any, values: Mapping[str, Any]) -> None:
    """Sets every recorded key. JSON has lists where a configuration has tuples."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(config.get(key), ConfigDict):
            _update(config[key], value)
        else:
            config[key] = with_tuples(value)


def check_override(config: Any, key: str, value: str | None) -> None:
    """Refuses a key on the command line that the configuration does not have, and a plain value for a group of keys.

    Args:
      config: the configuration that the key is of.
      key: dotted.
      value: as it was given; None where it is a separate word.

    Raises:
      ValueError: says which key is meant.
    """
    key = key.partition("[")[0]
    known = set(_keys(config))
    group, sign, option = key.rpartition(".optimizer.options.")
    absent = sign and group in config and option not in config[group].optimizer.options
    if absent or (key.startswith("compiler.") and key.partition(".")[2] not in config.get("compiler", {})):
        raise ValueError(
            f"{key} is not set in the configuration file, so that it cannot be changed by a flag; set it there."
        )
    if (
        key in known
        or key.partition(".")[0] == "compiler"
        or (".optimizer.options" in key and key.partition(".")[0] in config)
    ):
        return
    members = sorted(name for name in known if name.startswith(f"{key}."))
    if not members:
        raise ValueError(
            f"the configuration has no key {key}; {nearest(key, known)}configs/default.py has every key that exists."
        )
    if value is not None and not _is_dict(value):
        example = next((name for name in members if name in (f"{key}.name", f"{key}.method")), members[0])
        raise ValueError(f"{key} is a group of keys and cannot be {value}; give one of its keys, such as {example}.")


def _is_dict(text: str) -> bool:
    """Whether a text is a Python dict, which may stand for several keys of a group."""
    try:
        return isinstance(ast.literal_eval(text), dict)
    except (ValueError, SyntaxError):
        return False


def check_keys(config: Any) -> None:
    """Refuses a configuration whose keys are not those of `configs/default.py`.

    A file that sets `config.threat.raduis` would otherwise be run with the radius of the default.

    Raises:
      ValueError: it is no ConfigDict; an unknown key (names it and the nearest known one); a key that is not there,
        but for settings of what was registered after the configuration was made.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"the configuration is a {type(config).__name__}; get_config must return a ConfigDict, such as "
            "configs.default.get_config() with changes."
        )
    known = set(_keys(default()))
    found = set(_keys(config))
    for key in sorted(found - known):
        group, _, rest = key.partition(".")
        name = rest.partition(".")[0]
        if group in _REGISTERED and "." in rest and not any(other.startswith(f"{group}.{name}.") for other in known):
            raise ValueError(
                f"the configuration has settings of the {_REGISTERED[group]} {name}, which is not registered; load the "
                "file that registers it by --code=FILE.py (in Python: import it)."
            )
        hint = nearest(key, known) or "configs/default.py has every key that exists."
        raise ValueError(f"the configuration has an unknown key {key}; {hint.strip()}")
    groups = {key.rpartition(".")[0] for key in found}
    for key in sorted(known - found):
        group = key.rpartition(".")[0]
        if group.partition(".")[0] in _REGISTERED and "." in group and group not in groups:
            continue  # registered after the configuration was made, which then means its defaults
        raise ValueError(f"the configuration has no key {key}; begin with configs.default.get_config().")


def _keys(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> Iterator[str]:
    """Dotted keys. An optimiser's options are optax's and the compiler's are XLA's, and so not among them."""
    for key, value in tree.items():
        if prefix + key == "compiler" or key == "options":
            continue
        if isinstance(value, Mapping | ConfigDict):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key
