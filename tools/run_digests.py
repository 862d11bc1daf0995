"""SHA-256 of every part of what a run ended with, by which runs are compared bit for bit."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ltrobust.evaluation import store
from ltrobust.training import records


def of_run(workdir: Path) -> dict[str, str]:
    """Name -> digest of a finished run's parts. The first word of a name is its kind.

    `arrays`: each item of the newest checkpoints. `record`: each epoch's, without seconds. `verdicts`: of each network
    and attack. `card`: each field of the newest one, without times and paths.
    """
    result = {}
    for folder in sorted((workdir / "checkpoints").iterdir()):
        for item, tree in _newest(folder):
            result[f"arrays of {folder.name}/{item}"] = of_arrays(tree)
    for record in records.read(workdir / "metrics.jsonl"):
        result[f"record {record['phase']}/{record['epoch']}"] = of_json({**record, "seconds": None})
    for folder in sorted((workdir / "verdicts").iterdir()):
        for attack, verdicts in store.read(folder)[1].items():
            # Where an image lies in its file follows from the order in which verdicts arrived.
            lines = {image: vars(line) | {"adversarial_at": None} for image, line in verdicts.items()}
            result[f"verdicts {folder.name}/{attack}"] = of_json(lines)
    cards = sorted((workdir / "results").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    card = json.loads(cards[-1].read_text())
    for network in card["networks"].values():
        del network["verdicts"]["sha256"]  # of a file whose lines are in order of arrival; they are compared above
    for training in card["training"].values():
        del training["software"]  # of the tree that the run was started from, which may be edited meanwhile
    times = ("created", "seconds", "software", "sha256")  # the last is of all fields, times too
    return result | {f"card {key}": of_json(value) for key, value in card.items() if key not in times}


def of_arrays(tree: Any) -> str:
    """Digest of the names, types, shapes and bytes of a tree's arrays."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def of_json(value: Any) -> str:
    """Digest of a plain value: numbers are compared with their signs and types, and NaN equals NaN."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def by_kind(digests: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The parts of each kind."""
    kinds = dict.fromkeys(name.split()[0] for name in digests)
    return {kind: {name: digests[name] for name in digests if name.split()[0] == kind} for kind in kinds}


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Names of the parts that are not in both runs with the same digest."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def _newest(folder: Path) -> Iterator[tuple[str, Any]]:
    """Items of the newest checkpoint, each with its arrays under the number of its step."""
    newest = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    for item in sorted(path for path in newest.iterdir() if path.is_dir() and path.name != "about"):
        yield item.name, {newest.name: ocp.StandardCheckpointer().restore(item)}
