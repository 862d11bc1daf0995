"""The parts of a result card."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from ltrobust.analysis import metrics
from ltrobust.analysis.evaluation import Evaluation
from ltrobust.analysis.schema.card import DataRecord, Files, Numerics, ProtocolRecord
from ltrobust.analysis.schema.network import Classifier, Column, Confusion, NetworkResult, Rounded, VerdictFile
from ltrobust.analysis.schema.training import (
    InitialRecord,
    TeacherRecord,
    TrainingExamples,
    TrainingRecord,
    TrainingThreat,
)
from ltrobust.data import identity, listing, longtail, overlap, sources
from ltrobust.data.images import FileImages, take
from ltrobust.data.run_data import DataPlan, RunData
from ltrobust.evaluation import protocols
from ltrobust.runtime import ambient, typed_json
from ltrobust.sanity import panel

SELECTION_RULE = (
    "highest running mean of three balanced PGD-20 accuracies on the validation part, ties to the later epoch"
)


def describe_selection(networks: Collection[str], run_data: RunData) -> str:
    """The card's `selection_rule`: of the selected weights, or that there are none."""
    if any(name.endswith("/selected") for name in networks):
        return SELECTION_RULE
    if len(run_data.validation.labels) == 0:
        return "no weights (no validation part)"
    return f"no weights (fewest validation images of a class: {run_data.validation_counts.min()})"


def describe_network(
    evaluation: Evaluation,
    class_counts: np.ndarray,
    *,
    fingerprints: Mapping[str, str],
    classifier: Classifier | None,
    verdicts: VerdictFile | None,
) -> NetworkResult:
    """The card's part on one network.

    Args:
      evaluation: of the network.
      class_counts: training images per class [C].
      fingerprints: `params_sha256` and `batch_stats_sha256` of its weights.
      classifier, verdicts: see `NetworkResult`.
    """
    headline = evaluation.protocol.headline
    worst = evaluation.final_predictions(headline)
    rounded = metrics.count(evaluation.correct_after_rounding(headline), evaluation.labels, evaluation.num_classes)
    confusions = {
        name: metrics.confusion(predictions, evaluation.labels, evaluation.num_classes)
        for name, predictions in (("clean", evaluation.predictions["clean"]), (headline, worst))
    }
    return NetworkResult(
        **fingerprints,
        columns={name: describe_column(evaluation.counts(name), class_counts) for name in evaluation.columns},
        max_violation=evaluation.max_violation,
        rejected_claims=evaluation.rejected_claims,
        clean_tied=int(np.sum(evaluation.clean_tied)),
        rounded_to_8_bits=Rounded(headline, rounded.correct.tolist()),
        confusion={name: matrix.tolist() for name, matrix in confusions.items()},
        most_frequent_confusion=[
            entry and Confusion(*entry) for entry in metrics.most_frequent_confusion(confusions[headline])
        ],
        sanity=evaluation.sanity,
        sanity_verdict=panel.verdict(evaluation.sanity) if evaluation.sanity else None,
        classifier=classifier,
        verdicts=verdicts,
        same_as=None,
    )


def describe_column(counts: metrics.ClassCounts, class_counts: np.ndarray) -> Column:
    """Counts of a column with all that is computed from them."""
    plain = {"correct": counts.correct.tolist(), "total": counts.total.tolist()}
    return typed_json.parse(Column, typed_json.plain(plain | metrics.views(counts, class_counts)))


def describe_protocol(protocol: protocols.Protocol, seed: int, num_classes: int) -> ProtocolRecord:
    """The card's part on the protocol: every setting, and what its columns may be called. `seed`: of the attacks."""
    columns = [attack.name for attack in protocol.attacks] + [name for name, _ in protocol.combined]
    return ProtocolRecord.of(
        protocols.plain(protocol),
        seed=seed,
        headline=protocol.headline,
        titles={column: protocols.title(column, num_classes) for column in columns},
    )


def find_overlaps(run_data: RunData, test: sources.Split, ids: np.ndarray) -> overlap.Overlap:
    """Compares what is trained on, validated on and evaluated (`overlap.describe`); warnings go to the log."""
    positions = {"training": run_data.training.positions, "validation": run_data.validation.positions, "test": ids}
    labels = {"training": run_data.training.labels, "validation": run_data.validation.labels, "test": test.labels[ids]}

    parts = {"training": run_data.training.images, "validation": run_data.validation.images}
    parts["test"] = take(test.images, ids)

    def names(part: str, rows: np.ndarray) -> list[str]:
        if isinstance(images := parts[part], FileImages):
            return [listing.printable(images.names[row]) for row in rows.tolist()]
        split = "test" if part == "test" else "train"
        files = test.names if part == "test" else run_data.names
        return sources.image_names(
            split, positions[part][rows], labels[part][rows], class_names=run_data.class_names, files=files
        )

    result = overlap.describe(
        parts,
        labels,
        names,
        official={run_data.claim, test.claim} <= identity.OFFICIAL_CLAIMS,
    )
    for sentence in result.warnings:
        logging.warning("%s.", sentence)
    return result


def describe_data(
    plan: DataPlan, run_data: RunData, test: sources.Split, ids: np.ndarray, overlaps: overlap.Overlap | None
) -> DataRecord:
    """The card's part on the data; `ids` are the test images that were evaluated."""
    totals = np.bincount(test.labels[ids], minlength=run_data.num_classes)
    # A validation part with its own list is not a part of the chosen images.
    chosen = run_data.class_counts + (0 if run_data.listed else run_data.validation_counts)
    files = {"train": run_data.files, "test": test.files} if test.files else {}
    return DataRecord(
        name=plan.name,
        # Where all images are kept, the ratio is what the data have.
        imbalance_ratio=plan.imbalance_ratio or float(chosen.max() / chosen.min()),
        profile=plan.profile,
        split_seed=plan.split_seed,
        class_names=list(run_data.class_names),
        class_counts=run_data.class_counts.tolist(),
        validation_counts=run_data.validation_counts.tolist(),
        image_shape=list(run_data.image_shape),
        fingerprints=run_data.fingerprints,
        notes=list(run_data.notes),
        claim=run_data.claim,
        test_images=len(test.labels),
        evaluated=len(ids),
        test_balanced=bool(totals.min() == totals.max()),
        test_labels_sha256=longtail.fingerprint(test.labels[ids]),
        test_images_sha256=test.fingerprint,
        test_claim=test.claim,
        test_notes=list(test.notes),
        files={split: typed_json.parse(Files, result) for split, result in files.items()} or None,
        overlap=overlaps,
    )


def describe_numerics(dtype: str, mesh: Mesh) -> Numerics:
    """The card's part on devices and precision."""
    return Numerics(
        backend=jax.default_backend(),
        device=mesh.devices.flat[0].device_kind,
        devices=int(mesh.size),
        processes=jax.process_count(),
        compute_dtype=dtype,
        search_matmul_precision=str(jax.config.values["jax_default_matmul_precision"] or "backend default"),
        verdicts="float32, highest matmul precision",
        ambient=ambient.describe(),
    )


def describe_training(about: Mapping[str, Any]) -> TrainingRecord:
    """The card's part on how a phase was trained, from its own checkpoint: it may be older than the evaluation."""
    threat = about["config"]["threat"]
    teachers = about.get("teachers")
    return TrainingRecord(
        seed=about["config"]["seed"],
        steps=about["steps"],
        software=about["software"],
        threat=TrainingThreat(threat["norm"], threat["radius"]),
        examples=typed_json.parse(TrainingExamples, about["examples"]),
        teachers=teachers
        and {key: typed_json.parse(TeacherRecord, _renamed(known)) for key, known in teachers.items()},
        initial=typed_json.parse(InitialRecord, _renamed(about["initial"])) if about.get("initial") else None,
        devices=about["devices"],
    )


def _renamed(origin: Mapping[str, Any]) -> dict[str, Any]:
    """Where a network comes from, with the card's name for the checkpoint's `from`."""
    return {"source" if key == "from" else key: value for key, value in origin.items()}
