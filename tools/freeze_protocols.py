"""Writes what every evaluation protocol consists of into the file that the tests compare the source with.

    python -m tools.freeze_protocols        rewrites tests/evaluation/protocols.json

A protocol's name stands for its numbers, so a change of the file is a change of what published numbers mean. Rewrite it
only where that is meant, and run `python -m tools.protocol_tables`, and say so in CHANGELOG.md.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.attacks import ball
from ltrobust.attacks.algorithms import apgd, cw_l2, deepfool, fab, pgd, square
from ltrobust.evaluation import protocols
from ltrobust.runtime.files import write_json
from ltrobust.threat import Threat

FROZEN = Path(__file__).resolve().parents[1] / "tests" / "evaluation" / "protocols.json"
IMAGE = (32, 32, 3)
CLASSES = 10
OTHER_CLASSES = (2, 3, 4, 7, 100)  # where losses and numbers of targets change
SEARCHES = {f"pgd, start {start}": pgd.search(start) for start in ball.STARTS} | {
    "apgd": apgd.APGD,
    "fab": fab.FAB,
    "square": square.SQUARE,
    "cw_l2": cw_l2.CW_L2,
    "deepfool": deepfool.DEEPFOOL,
}


def description() -> dict[str, Any]:
    """Every protocol by name, as JSON: its columns in order, its attacks and all their settings.

    Lengths are float32 in pixel units, under the protocol's own radius or linf 8/255, for images of 32x32x3.
    """
    return json.loads(json.dumps({name: _protocol(protocol) for name, protocol in protocols.PROTOCOLS.items()}))


def _protocol(protocol: protocols.Protocol) -> dict[str, Any]:
    """One protocol."""
    threat = Threat("linf", protocol.radius or 8)
    return {
        "radius": protocol.radius,
        "note": protocol.note,
        "sanity": protocol.sanity,
        "headline": protocol.headline,
        "columns": [attack.name for attack in protocol.attacks],
        "combined": [[column, *names] for column, names in protocol.combined],
        "attacks": {attack.name: _attack(attack, threat) for attack in protocol.attacks},
    }


def _attack(attack: Any, threat: Threat) -> dict[str, Any]:
    """One attack: its settings for ten classes, and those that are others for other numbers of classes."""
    result = {"after": list(attack.after), **_settings(attack, threat, CLASSES)}
    for classes in OTHER_CLASSES:
        other = _settings(attack, threat, classes)
        changed = {name: value for name, value in other.items() if result.get(name) != value}
        result |= {f"{classes} classes": changed} if changed else {}
    return result


def _settings(attack: Any, threat: Threat, classes: int) -> dict[str, Any]:
    """The search by its name, and what it is run with."""
    search, settings = attack.build(threat, classes, IMAGE)
    search = dataclasses.replace(search, wider=None)  # how many lanes an image takes changes no verdict
    result = {name: _plain(np.asarray(value), classes) for name, value in settings.items()}
    losses = {protocols.Pgd: pgd.LOSSES, protocols.Apgd: apgd.LOSSES}
    if type(attack) in losses:
        result["loss"] = losses[type(attack)][result["loss"]]
    return {"search": next(name for name, known in SEARCHES.items() if known == search), **result}


def _plain(value: np.ndarray, classes: int) -> Any:
    """A setting as JSON. One number stands for an array that has it for every class."""
    if value.shape == (classes,) and len(np.unique(value)) == 1:
        return f"{_number(value[0])} for every class"
    return [_number(part) for part in value] if value.ndim else _number(value[()])


def _number(value: Any) -> float | int | str:
    """An integer, or the shortest decimal that is this float32; infinity as a word."""
    if np.issubdtype(value.dtype, np.integer):
        return int(value)
    return float(str(np.float32(value))) if np.isfinite(value) else str(value)


if __name__ == "__main__":
    write_json(FROZEN, description())
    print(f"written: {FROZEN.name}")
