"""The parts of a result card, as plain values."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from ltrobust.analysis import metrics
from ltrobust.data import identity, longtail, overlap, sources
from ltrobust.data.run_data import DataPlan, RunData, describe
from ltrobust.evaluation import protocols
from ltrobust.evaluation.evaluation import Evaluation
from ltrobust.runtime import ambient
from ltrobust.runtime.workdir import PHASES
from ltrobust.sanity import panel

SELECTION_RULE = (
    "highest running mean of three balanced PGD-20 accuracies on the validation part, ties to the later epoch"
)


def describe_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The card's configuration: without folders of this machine, and of a folder of networks only the name."""
    local = ("dir", "cache_dir")
    groups = {key: {k: v for k, v in settings[key].items() if k not in local} for key in ("data", "checkpoint")}
    teachers = {key: {**entry, "path": Path(entry["path"]).name} for key, entry in settings.get("teachers", {}).items()}
    of_phases = {key: settings[key] | {"initialize": Path(settings[key]["initialize"]).name} for key in PHASES}
    return {**settings, **of_phases, **groups, "teachers": teachers}


def describe_selection(networks: Collection[str], run_data: RunData) -> str:
    """The card's `selection_rule`: of the selected weights, or that there are none."""
    if any(name.endswith("/selected") for name in networks):
        return SELECTION_RULE
    if len(run_data.validation.labels) == 0:
        return "no weights (no validation part)"
    return f"no weights (fewest validation images of a class: {run_data.validation_counts.min()})"


def describe_network(evaluation: Evaluation, class_counts: np.ndarray) -> dict[str, Any]:
    """The card's part on one network: counts and views per column, and what verification found."""
    columns = {}
    for column in evaluation.columns:
        counts = evaluation.counts(column)
        plain = {"correct": counts.correct.tolist(), "total": counts.total.tolist()}
        columns[column] = plain | metrics.views(counts, class_counts)
    headline = evaluation.protocol.headline
    worst = evaluation.final_predictions(headline)
    rounded = metrics.count(evaluation.correct_after_rounding(headline), evaluation.labels, evaluation.num_classes)
    confusions = {
        name: metrics.confusion(predictions, evaluation.labels, evaluation.num_classes)
        for name, predictions in (("clean", evaluation.predictions["clean"]), (headline, worst))
    }
    return {
        "max_violation": evaluation.max_violation,
        "refuted": evaluation.refuted,
        "clean_tied": int(np.sum(evaluation.clean_tied)),
        "rounded_to_8_bits": {"column": headline, "correct": rounded.correct.tolist()},
        "confusion": {name: matrix.tolist() for name, matrix in confusions.items()},
        "thief": metrics.thief(confusions[headline]),
        "columns": columns,
        "sanity": [dataclasses.asdict(item) for item in evaluation.sanity],
        "sanity_verdict": panel.verdict(evaluation.sanity) if evaluation.sanity else None,
    }


def describe_protocol(protocol: protocols.Protocol, seed: int, num_classes: int) -> dict[str, Any]:
    """The card's part on the protocol: every setting, and what its columns may be called. `seed`: of the attacks."""
    columns = [attack.name for attack in protocol.attacks] + [name for name, _ in protocol.combined]
    return dataclasses.asdict(protocol) | {
        "seed": seed,
        "headline": protocol.headline,
        "titles": {column: protocols.title(column, num_classes) for column in columns},
    }


def find_overlaps(run_data: RunData, test: sources.Split, ids: np.ndarray) -> dict[str, Any]:
    """Compares what is trained on, validated on and evaluated (`overlap.describe`); warnings go to the log."""
    positions = {"training": run_data.training.positions, "validation": run_data.validation.positions, "test": ids}
    labels = {"training": run_data.training.labels, "validation": run_data.validation.labels, "test": test.labels[ids]}

    def names(part: str, rows: np.ndarray) -> list[str]:
        split = "test" if part == "test" else "train"
        files = test.names if part == "test" else run_data.names
        return sources.image_names(
            split, positions[part][rows], labels[part][rows], class_names=run_data.class_names, files=files
        )

    found = overlap.describe(
        {"training": run_data.training.images, "validation": run_data.validation.images, "test": test.images[ids]},
        labels,
        names,
        official={run_data.claim, test.claim} <= identity.OFFICIAL_CLAIMS,
    )
    for sentence in found["warnings"]:
        logging.warning("%s.", sentence)
    return found


def describe_data(plan: DataPlan, run_data: RunData, test: sources.Split, ids: np.ndarray) -> dict[str, Any]:
    """The card's part on the data; `ids` are the test images that were evaluated."""
    totals = np.bincount(test.labels[ids], minlength=run_data.num_classes)
    chosen = run_data.class_counts + np.bincount(run_data.validation.labels, minlength=run_data.num_classes)
    return {
        **describe(run_data),
        "name": plan.name,
        # Where all images are kept, the ratio is what the data have.
        "imbalance_ratio": plan.imbalance_ratio or float(chosen.max() / chosen.min()),
        "profile": plan.profile,
        "split_seed": plan.split_seed,
        "class_names": list(run_data.class_names),
        "test_images": len(test.labels),
        "evaluated": len(ids),
        "test_balanced": bool(totals.min() == totals.max()),
        "test_labels_sha256": longtail.fingerprint(test.labels[ids]),
        "test_images_sha256": test.fingerprint,
        "test_claim": test.claim,
        "test_notes": list(test.notes),
        **({"files": {"train": dict(run_data.files), "test": dict(test.files)}} if test.files else {}),
    }


def describe_numerics(dtype: str, mesh: Mesh) -> dict[str, Any]:
    """The card's part on devices and precision."""
    return {
        "backend": jax.default_backend(),
        "device": mesh.devices.flat[0].device_kind,
        "devices": int(mesh.size),
        "processes": jax.process_count(),
        "compute_dtype": dtype,
        "search_matmul_precision": str(jax.config.values["jax_default_matmul_precision"] or "backend default"),
        "verdicts": "float32, highest matmul precision",
        "ambient": ambient.describe(),
    }


def describe_training(about: Mapping[str, Any]) -> dict[str, Any]:
    """The card's part on how a phase was trained, from its own checkpoint: it may be older than the evaluation."""
    run = {key: about["config"][key] for key in ("seed", "threat")}
    return run | {key: about[key] for key in ("steps", "examples", "software", "teachers", "initial") if key in about}
