"""The configuration that a workdir records, as a configuration file: `recorded.py:WORKDIR/config.json`."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ltrobust import recipes
from ltrobust.runtime.files import read_json
from ltrobust.runtime.workdir import used, with_tuples


def get_config(path: str) -> ConfigDict:
    """The configuration in a workdir's `config.json`; a key that it lacks has the value of `configs/default.py`.

    Settings of methods and networks that are not registered now are left out if the run does not use them.

    Raises:
      ValueError: the file is damaged, or holds a value of another type than its key has.
    """
    config = recipes.default()
    _update(config, used(read_json(Path(path)), config.to_dict()))
    return config


def _update(config: Any, recorded: dict[str, Any]) -> None:
    """Sets every recorded key. JSON has lists where a configuration has tuples."""
    for key, value in recorded.items():
        if isinstance(value, dict) and isinstance(config.get(key), ConfigDict):
            _update(config[key], value)
        else:
            config[key] = with_tuples(value)
