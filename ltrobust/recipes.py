"""Finds and reads configurations, those of the package and those of the user.

A checkout has the package's configurations in `configs/*.py`; an installed package has a copy in `shipped/configs/`.
The names are the same: `configs/folder.py`, or `configs/published.py:robal_n` for one of several recipes.
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
    """Folder that holds `configs/`."""
    shipped = Path(__file__).parent / "shipped"
    return shipped if shipped.is_dir() else Path(__file__).parents[1]


def importable() -> None:
    """Adds `configs/` and the current folder to the import path, for configurations that import other modules."""
    registry.search(root())
    registry.search(Path.cwd())


def find(name: str) -> str:
    """Resolves `FILE.py`, `FILE.py:RECIPE` or `NAME` to a path: from the current folder, else in the package.

    `NAME` stands for `configs/NAME.py` if the package has that file.
    """
    file, sign, recipe = name.partition(":")
    file = f"configs/{file}.py" if file in shipped() else file
    here = root() / file
    return f"{here if file and not Path(file).exists() and here.is_file() else file}{sign}{recipe}"


def config(name: str | os.PathLike[str] = "digits") -> Any:  # a ConfigDict, of whose keys type checkers know nothing
    """Loads the configuration of a run, as the command line does. Existing keys can be set, unknown keys are refused.

    Args:
      name: a configuration of the package, such as `digits`, or `published:robal_n` for one recipe of a file; or the
        path of a Python file or of a run's `config.json`.

    Returns:
      A locked `ConfigDict`.

    Raises:
      FileNotFoundError: there is no such file; the message lists the package's configurations.
      ValueError: the file is not a configuration, or has no such recipe.

    Example:
      >>> import ltrobust as lt
      >>> config = lt.config("digits")
      >>> config.threat.radius = 16.0
      >>> config.model.name
      'small_resnet'
    """
    return load(os.fspath(name))


def load(name: str) -> ConfigDict:
    """Loads a configuration and locks it: existing keys can be set, unknown keys are refused.

    The file may import modules of its folder, such as one that registers a method.

    Args:
      name: as in `config`, also `configs/NAME.py` and `configs/NAME.py:RECIPE`.

    Raises:
      FileNotFoundError: there is no such file; the message lists the package's configurations.
      UnknownName: a recipe is given and the file has none, or the other way round; or the file raises it.
      ValueError: the file is not a configuration, or has other keys than `configs/default.py` (`check_keys`).
    """
    importable()
    # The path of a record may have a colon, as the workdir's name may.
    file, sign, recipe = (name, "", "") if name.endswith(".json") and Path(name).is_file() else name.partition(":")
    path = find(file)
    if not Path(path).is_file():
        known = shipped()
        raise FileNotFoundError(
            f"there is no configuration {file!r}; {nearest(Path(file).stem, known)}known configurations: "
            f"{', '.join(known)}; give configs/NAME.py, or the path of your file."
        )
    if path.endswith(".json"):
        config = recorded(path)
        check_keys(config)
        return config.lock()
    if root() not in Path(path).resolve().parents:  # a user's own file
        registry.search(Path(path).parent)
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise ValueError(f"{file} is not a configuration; it must define get_config.")
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
    """Names of the package's configurations; `load` takes `configs/NAME.py`."""
    return sorted(path.stem for path in (root() / "configs").glob("*.py") if path.stem != "__init__")


def default() -> ConfigDict:
    """Loads `configs/default.py`, which defines every key."""
    return runpy.run_path(str(root() / "configs" / "default.py"))["get_config"]()


def recorded(path: str) -> ConfigDict:
    """Reads the configuration in a workdir's `config.json`; missing keys take the value of `configs/default.py`.

    Settings of unregistered methods and networks are dropped if the run does not use them.

    Raises:
      ValueError: the file is damaged, is not the configuration of a run, or holds a value of the wrong type.
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
    """Refuses a configuration whose keys differ from those of `configs/default.py`.

    Otherwise a file that sets `config.threat.raduis` would run with the default radius.

    Raises:
      ValueError: not a ConfigDict; an unknown key (the message names the nearest known key); or a missing key, except
        for settings of methods and networks that were registered after the configuration was made.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"the configuration is a {type(config).__name__}; get_config must return a ConfigDict, such as "
            "configs.default.get_config() with changes."
        )
    known = set(_keys(default()))
    result = set(_keys(config))
    for key in sorted(result - known):
        group, _, rest = key.partition(".")
        name = rest.partition(".")[0]
        if group in _REGISTERED and "." in rest and not any(other.startswith(f"{group}.{name}.") for other in known):
            raise ValueError(
                f"the configuration has settings of the {_REGISTERED[group]} {name}, which is not registered; load the "
                "file that registers it by --code=FILE.py (in Python: import it)."
            )
        hint = nearest(key, known) or "configs/default.py has every key that exists."
        raise ValueError(f"the configuration has an unknown key {key}; {hint.strip()}")
    groups = {key.rpartition(".")[0] for key in result}
    for key in sorted(known - result):
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
