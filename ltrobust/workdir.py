"""The folder of one run: what lies where, and the check that a second start is the same run.

config.json                    the configuration that the run was started with
checkpoints/{teacher,student}  see `training/checkpoints.py`
metrics.jsonl, tensorboard/    see `training/records.py`
results/                       result cards
verdicts/                      see `evaluation/store.py`
report.html                    see `report.py`
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ltrobust.files import write_json

# May change between two starts of one run: where data lie, how results are looked at, how often is saved.
_FREE = ("data.dir", "data.cache_dir", "eval.", "checkpoint.")


def claim(workdir: Path, config: ConfigDict) -> None:
    """Makes the folder this configuration's, or checks that it is already.

    Raises:
      ValueError: the folder belongs to another configuration (lists the differences), or cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = workdir / "config.json"
        if not file.exists():
            write_json(file, plain(config))
            return
    except OSError as error:
        raise ValueError(
            f"workdir {workdir} cannot be written ({error}); give another one with --workdir=DIR."
        ) from error
    found = differences(json.loads(file.read_text()), plain(config))
    if found:
        raise ValueError(
            f"workdir {workdir} holds a run of another configuration:\n"
            + "\n".join(f"  {line}" for line in found)
            + "\nGive another one with --workdir=DIR, or start with the values on the left to go on with that run."
        )


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON reads it back (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def differences(there: Mapping[str, Any], here: Mapping[str, Any], only: tuple[str, ...] = ("",)) -> list[str]:
    """Lines `key: value there -> value here` for every key that matters, under one of the prefixes `only`."""
    flat_there, flat_here = _flatten(there), _flatten(here)
    keys = [key for key in sorted(flat_there.keys() | flat_here.keys()) if not key.startswith(_FREE)]
    return [
        f"{key}: {flat_there.get(key, 'absent')!r} -> {flat_here.get(key, 'absent')!r}"
        for key in keys
        if key.startswith(only) and flat_there.get(key, "absent") != flat_here.get(key, "absent")
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
