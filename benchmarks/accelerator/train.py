"""Parts that train: a run, then `quick` on all test images and `standard` on the first of each class."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator import dry
from benchmarks.accelerator.jobs import Part, Run
from benchmarks.accelerator.part import Context
from ltrobust import recipes
from ltrobust import run as runs
from ltrobust.analysis import cards, results
from ltrobust.analysis.schema.network import Column, NetworkResult
from ltrobust.evaluation import store
from ltrobust.training.state import Weights

# What makes a run a toy: same phases, methods and protocols.
_DRY = {
    "model.name": "small_resnet",
    "model.width": 4,
    "model.stem_stride": 2,
    "teacher.steps": 3,
    "teacher.attack.steps": 2,
    "student.steps": 3,
    "student.attack.steps": 2,
    "eval.batch_size": 64,
}
# Of a dry run: protocol -> test images of each class. `standard`, most of whose time is tracing, is for one job.
_DRY_LIMITS = {"quick": 2, "standard": 1}
# Views of a column that the table shows.
_VIEWS = ("overall", "tail_third", "worst")


def run(context: Context, part: Part) -> dict[str, Any]:
    """Trains, or resumes; evaluates the last weights of each phase. Returns accuracies by network, column and view."""
    assert part.run is not None
    config = configuration(context, part.run)
    workdir = context.work / "run"
    workdir.mkdir(exist_ok=True)
    began = time.monotonic()
    trained = runs.fit(config, workdir, context.preemption)
    last = {name: network for name, network in trained.networks.items() if name.endswith("/last")}
    summary = {}
    limits = dict(_DRY_LIMITS) if context.dry else {"quick": 0, "standard": part.run.standard}
    if context.dry and context.job != "trio-seed0":
        limits.pop("standard")
    for protocol, limit in limits.items():
        config.eval.protocol, config.eval.limit = dry.protocol(protocol) if context.dry else protocol, limit
        trained = dataclasses.replace(trained, networks=last)
        card = runs.report(config, workdir, protocol, trained, began)
        (context.folder / f"card-{protocol}.json").write_bytes(card.read_bytes())
        networks = cards.read(card).networks
        np.savez_compressed(context.folder / f"verdicts-{protocol}.npz", **verdicts(workdir, networks))  # pyright: ignore
        summary[protocol] = {name: accuracies(network.columns) for name, network in networks.items()}
    (context.folder / "metrics.jsonl").write_bytes((workdir / "metrics.jsonl").read_bytes())
    if context.weights:
        leave_weights(last["student/last"].weights, context.out / f"{context.job}-{part.name}")
    return summary


def configuration(context: Context, run: Run) -> Any:
    """The run's configuration, on the pack."""
    config: Any = recipes.load(run.config)
    changes = dict(run.changes) | (_DRY if context.dry else {})
    config.update_from_flattened_dict(changes)
    config.data.dir, config.data.cache_dir = str(context.packs[config.data.name]), ""
    return config


def accuracies(columns: Mapping[str, Column]) -> dict[str, dict[str, float]]:
    """Column -> view -> accuracy, of a network's part of a card."""
    return {
        name: {view: column.value(view) for view in _VIEWS if column.view(view)} for name, column in columns.items()
    }


def verdicts(workdir: Path, networks: Mapping[str, NetworkResult]) -> dict[str, np.ndarray]:
    """Image by image, from the stores: `ids` and `labels` int32 [N], and `<network>|<column>` uint8 [N], predictions.

    Predictions are those that count in the column (`store.final`): the true label where no attack of it broke the
    image.
    """
    result: dict[str, np.ndarray] = {}
    for name, network in networks.items():
        provenance, records = results.read_store(workdir, network)
        for column in store.columns(provenance):
            ids, labels, predictions = store.final(provenance, records, column)
            result |= {"ids": ids.astype(np.int32), "labels": labels.astype(np.int32)}
            result[f"{name}|{column}"] = predictions.astype(np.uint8)
    return result


def leave_weights(weights: Weights, stem: Path) -> None:
    """Writes the weights in float16 as `<stem>-1.npz` and `<stem>-2.npz`, by the leaves' paths; about half each.

    They are rounded copies: what they are good for is a look at the network, not its verdicts.
    """
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf, np.float16)
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(weights))
    }
    half, size = sum(leaf.nbytes for leaf in leaves.values()) / 2, 0
    files: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for name, leaf in leaves.items():
        files[size >= half][name] = leaf
        size += leaf.nbytes
    for number, file in enumerate(files, start=1):
        np.savez(stem.with_name(f"{stem.name}-{number}.npz"), **file)  # pyright: ignore
