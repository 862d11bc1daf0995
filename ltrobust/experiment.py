"""A whole run: data, teacher, student, evaluation, card. What `main.py` calls."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ltrobust import models
from ltrobust import workdir as workdirs
from ltrobust.data import longtail, sources
from ltrobust.data.splits import Splits, describe, first_of_each_class, make_splits
from ltrobust.evaluation import metrics, protocols
from ltrobust.evaluation.evaluate import Evaluation, Evaluator, make_evaluator
from ltrobust.methods import Teacher
from ltrobust.methods.self_distillation import TEACHER
from ltrobust.reporting import cards, tables
from ltrobust.training import devices, phases
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.loop import run_phase
from ltrobust.training.records import Records
from ltrobust.training.state import Weights

SELECTION_RULE = (
    "highest running mean of three balanced PGD-20 accuracies on the validation part, ties to the later epoch"
)


def train(config: Any, workdir: Path) -> Path:
    """Trains what is not trained yet, evaluates every network and writes the card. Returns the card's path.

    The same call in the same workdir goes on where it stopped.

    Raises:
      ValueError: a setting that makes no sense; everything that can be known before training is checked before.
    """
    began = time.monotonic()
    protocols.get(config.eval.protocol)
    wanted = _phases_to_run(config)
    mesh = devices.make_mesh()
    splits = load_splits(config)
    planned = {name: phases.make_phase(config, name, splits, mesh) for name in wanted}
    workdirs.claim(workdir, config)
    records = Records(workdir)
    evaluator = _make_evaluator(
        config, splits.num_classes, mesh, protocol="validation", images=len(splits.validation_labels), seed=config.seed
    )
    about = {"config": workdirs.plain(config), "data": describe(splits), "software": cards.software()}
    networks: dict[str, Weights] = {}
    training: dict[str, Any] = {}
    teachers: dict[str, Teacher] = {}
    for name, phase in planned.items():
        needed = {key: teachers[key] for key in phase.settings.method.teachers}
        warm = networks["teacher/last"] if config[name].initialize == "teacher" else None
        with Checkpoints(workdir / "checkpoints" / name, keep=config.checkpoint.keep) as checkpoints:
            state, selection = run_phase(
                phase,
                splits,
                mesh=mesh,
                teachers=needed,
                initial=warm,
                checkpoints=checkpoints,
                checkpoint_minutes=config.checkpoint.minutes,
                evaluator=evaluator,
                records=records,
                about={**about, "phase": name, "total_steps": phase.total_steps},
            )
            training[name] = _describe_training(checkpoints.about())
        networks |= _named(name, state.weights, selection, state.averaged)
        teachers = {TEACHER: Teacher(phases.make_module(config, splits.num_classes), *_parts(state.weights))}
    records.close()
    return _evaluate(config, workdir, config.eval.protocol, splits, networks, training, mesh, began)


def evaluate(config: Any, workdir: Path) -> Path:
    """Restores a checkpoint on the devices at hand, evaluates all of its weights and writes a card.

    Raises:
      ValueError: the checkpoint was made with another model, other data or another threat (lists the differences).
      FileNotFoundError: there is no such checkpoint.
    """
    began = time.monotonic()
    protocols.get(config.eval.protocol)
    folder = _find_checkpoints(config.eval.checkpoint, workdir)
    mesh = devices.make_mesh()
    with Checkpoints(folder, read_only=True) as checkpoints:
        about = checkpoints.about()
        found = workdirs.differences(about["config"], workdirs.plain(config), only=("model.", "data."))
        if found:
            raise ValueError(
                f"checkpoint {folder} was made with other settings:\n"
                + "\n".join(f"  {line}" for line in found)
                + "\nEvaluate it with the configuration that made it."
            )
        splits = load_splits(config)
        module = phases.make_module(config, splits.num_classes)
        template = Weights(*models.initialise(module, jax.random.key(0), splits.images.shape[1:]))
        restored = checkpoints.restore_weights(devices.replicate(template, mesh))
    networks = {f"{about['phase']}/{name}": weights for name, weights in restored.items()}
    name = f"{config.eval.protocol}-{about['phase']}"
    training = {about["phase"]: _describe_training(about)}
    return _evaluate(config, workdir, name, splits, networks, training, mesh, began)


def load_splits(config: Any) -> Splits:
    """The training and validation parts that the configuration names."""
    data = config.data
    source = sources.load(data.name, "train", data_dir=data.dir, cache_dir=data.cache_dir)
    return make_splits(
        source,
        imbalance_ratio=data.imbalance_ratio,
        profile=data.profile,
        seed=data.split_seed,
        validation_fraction=data.validation_fraction,
        validation_floor=data.validation_floor,
        validation_cap=data.validation_cap,
    )


def _phases_to_run(config: Any) -> list[str]:
    """The student, after the teacher where the student's settings need one."""
    for name in phases.NAMES:
        if config[name].initialize not in ("scratch", "teacher"):
            raise ValueError(f"{name}.initialize is {config[name].initialize!r}; known: scratch, teacher.")
    needs_teacher = phases.make_method(config, "student").teachers or config.student.initialize == "teacher"
    if not needs_teacher:
        return ["student"]
    if phases.make_method(config, "teacher").teachers or config.teacher.initialize == "teacher":
        raise ValueError(
            f"teacher.method is {config.teacher.method!r}, which needs a teacher of its own; choose one that does not, "
            "such as pgd_at."
        )
    return ["teacher", "student"]


def _find_checkpoints(wanted: str, workdir: Path) -> Path:
    """The folder of a phase's checkpoints, from `student`, `teacher`, a workdir or such a folder."""
    if wanted in phases.NAMES:
        candidates = [workdir / "checkpoints" / wanted]
    else:
        candidates = [Path(wanted) / "checkpoints" / "student", Path(wanted)]
    for folder in candidates:
        if folder.is_dir():
            return folder
    tried = ", ".join(str(folder) for folder in candidates)
    raise FileNotFoundError(
        f"eval.checkpoint is {wanted!r}, but there is no folder {tried}; give student, teacher, a workdir, or a folder "
        "of checkpoints, and --workdir=DIR where the run is not in the default one."
    )


def _parts(weights: Weights) -> tuple[Any, Any]:
    """Parameters and statistics."""
    return weights.params, weights.batch_stats


def _named(phase: str, last: Weights, selection: Any, averaged: Weights | None) -> dict[str, Weights]:
    """The phase's networks under their names on the card."""
    named = {f"{phase}/last": last}
    if int(selection.epoch) > 0:
        named[f"{phase}/selected"] = selection.weights
    if averaged is not None:
        named[f"{phase}/averaged"] = averaged
    return named


def _make_evaluator(config: Any, num_classes: int, mesh: Mesh, *, protocol: str, images: int, seed: int) -> Evaluator:
    """An evaluator of `Weights` on `images` images; batches are divided over the mesh, verdicts taken in float32."""
    if config.eval.batch_size < 1:
        raise ValueError(f"eval.batch_size is {config.eval.batch_size}; it must be at least 1.")

    def applier(exact: bool):
        module = phases.make_module(config, num_classes, exact=exact)
        return lambda weights, images: models.forward(module, *_parts(weights), images, bn="eval")[0]

    where = devices.sharding(mesh, devices.divided())
    return make_evaluator(
        applier(exact=False),
        protocol=protocols.get(protocol),
        threat=phases.make_threat(config),
        num_classes=num_classes,
        batch_size=-(-min(config.eval.batch_size, max(images, 1)) // mesh.size) * mesh.size,
        seed=seed,
        exact_apply=applier(exact=True),
        place=lambda batch: jax.device_put(batch, where),
    )


def _evaluate(
    config: Any,
    workdir: Path,
    name: str,
    splits: Splits,
    networks: Mapping[str, Weights],
    training: Mapping[str, Any],
    mesh: Mesh,
    began: float,
) -> Path:
    """Evaluates every network on the test set, writes the card and prints its tables."""
    test = sources.load(config.data.name, "test", data_dir=config.data.dir, cache_dir=config.data.cache_dir)
    ids = first_of_each_class(test.labels, config.eval.limit)
    evaluator = _make_evaluator(
        config,
        splits.num_classes,
        mesh,
        protocol=config.eval.protocol,
        images=len(ids),
        seed=config.eval.seed,
    )
    results = {}
    for network, weights in networks.items():
        evaluation = evaluator(weights, test.images[ids], test.labels[ids], ids=ids, progress=f"evaluating {network}")
        results[network] = _describe_network(weights, evaluation, splits.class_counts)
    settings = workdirs.plain(config)
    del settings["data"]["dir"], settings["data"]["cache_dir"]  # this machine's, not the run's
    card = {
        "config": settings,
        "model": {
            "name": config.model.name,
            "parameters": models.count_parameters(next(iter(networks.values())).params),
        },
        "data": _describe_data(config, splits, test, ids),
        "threat": dataclasses.asdict(phases.make_threat(config)) | {"epsilon": phases.make_threat(config).epsilon},
        "protocol": dataclasses.asdict(protocols.get(config.eval.protocol)) | {"seed": config.eval.seed},
        "selection_rule": SELECTION_RULE,
        "training": training,
        "numerics": _describe_numerics(config, mesh),
        "networks": results,
        "seconds": round(time.monotonic() - began, 1),
    }
    path = cards.write(workdir / "results", name, card)
    last = "student/last" if "student/last" in results else next(iter(results))
    print(f"\n{tables.render(card)}\n\n{tables.render_classes(card, last)}\n\ncard: {path}")
    return path


def _describe_network(weights: Weights, evaluation: Evaluation, class_counts: np.ndarray) -> dict[str, Any]:
    """The card's part on one network: fingerprints, counts and views per column."""
    columns = {}
    for column in evaluation.columns:
        counts = evaluation.counts(column)
        plain = {"correct": counts.correct.tolist(), "total": counts.total.tolist()}
        columns[column] = plain | metrics.views(counts, class_counts)
    return {
        "params_sha256": cards.digest(jax.tree.leaves(jax.device_get(weights.params))),
        "batch_stats_sha256": cards.digest(jax.tree.leaves(jax.device_get(weights.batch_stats))),
        "max_violation": evaluation.max_violation,
        "columns": columns,
    }


def _describe_training(about: Mapping[str, Any]) -> dict[str, Any]:
    """The card's part on how a phase was trained, from its own checkpoint: it may be older than the evaluation."""
    return {"steps": about["total_steps"], "seed": about["config"]["seed"], "software": about["software"]}


def _describe_data(config: Any, splits: Splits, test: sources.Split, ids: np.ndarray) -> dict[str, Any]:
    """The card's part on the data."""
    totals = np.bincount(test.labels[ids], minlength=splits.num_classes)
    return {
        **describe(splits),
        "name": config.data.name,
        "imbalance_ratio": config.data.imbalance_ratio,
        "profile": config.data.profile,
        "split_seed": config.data.split_seed,
        "class_names": list(splits.class_names),
        "test_images": len(test.labels),
        "evaluated": len(ids),
        "test_balanced": bool(totals.min() == totals.max()),
        "test_labels_sha256": longtail.fingerprint(test.labels[ids]),
        "test_notes": list(test.notes),
    }


def _describe_numerics(config: Any, mesh: Mesh) -> dict[str, Any]:
    """The card's part on devices and precision."""
    return {
        "backend": jax.default_backend(),
        "device": mesh.devices.flat[0].device_kind,
        "devices": int(mesh.size),
        "processes": jax.process_count(),
        "compute_dtype": config.model.dtype,
        "search_matmul_precision": str(jax.config.values["jax_default_matmul_precision"] or "backend default"),
        "verdicts": "float32, highest matmul precision",
    }


__all__ = ["evaluate", "load_splits", "train"]
