"""The configuration that a workdir records, as a configuration file: `recorded.py:WORKDIR/config.json`."""

from ml_collections import ConfigDict

from ltrobust import recipes


def get_config(path: str) -> ConfigDict:
    """The configuration in a workdir's `config.json`, see `recipes.recorded`."""
    return recipes.recorded(path)
