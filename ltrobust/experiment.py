"""A whole run: data, teacher, student, evaluation, card. What `main.py` calls."""

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ltrobust import models, results
from ltrobust import workdir as workdirs
from ltrobust.data import longtail, sources
from ltrobust.data.splits import Splits, describe, make_splits
from ltrobust.evaluation import protocols
from ltrobust.files import hold
from ltrobust.methods import Teacher, decision_rule
from ltrobust.methods.self_distillation import TEACHER
from ltrobust.preemption import Preemption
from ltrobust.reporting import cards
from ltrobust.training import devices, phases
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.loop import run_phase
from ltrobust.training.records import Records
from ltrobust.training.state import Weights


def train(config: Any, workdir: Path, preemption: Preemption | None = None) -> Path:
    """Trains what is not trained yet, evaluates every network and writes the card. Returns the card's path.

    The same call in the same workdir goes on where it stopped.

    Raises:
      ValueError: a setting that makes no sense; everything that can be known before training is checked before. Or
        another process is at work in the workdir.
      Preempted: `preemption` was asked to stop.
    """
    began = time.monotonic()
    _check_settings(config)
    wanted = _phases_to_run(config)
    mesh = devices.make_mesh()
    splits = load_splits(config)
    planned = {name: phases.make_phase(config, name, splits, mesh) for name in wanted}
    workdirs.claim(workdir, config)
    with hold(workdir):
        _check_teacher_is_there(workdir, wanted)
        networks, training = _run_phases(config, workdir, planned, splits, mesh, preemption)
        settings = workdirs.plain(config)
        return results.report(config, settings, workdir, config.eval.protocol, splits, networks, training, mesh, began)


def _run_phases(
    config: Any,
    workdir: Path,
    planned: Mapping[str, phases.Phase],
    splits: Splits,
    mesh: Mesh,
    preemption: Preemption | None,
) -> tuple[dict[str, results.Network], dict[str, Any]]:
    """Every phase in order; its networks by name, and the card's part on how they were trained."""
    evaluator_of = functools.cache(
        lambda head, rule: results.make_network_evaluator(
            config,
            splits.num_classes,
            mesh,
            head=head,
            rule=rule,
            protocol="validation",
            images=len(splits.validation_labels),
            seed=config.seed,
        )
    )
    about = {"config": workdirs.plain(config), "data": describe(splits), "software": cards.software()}
    networks: dict[str, results.Network] = {}
    training: dict[str, Any] = {}
    teachers: dict[str, Teacher] = {}
    for name, phase in planned.items():
        examples = phase.examples_of(0)
        needed = {key: teachers[key] for key in phase.settings.method.teachers}
        head = phase.settings.method.head
        warm = networks["teacher/last"].weights if config[name].initialize == "teacher" else None
        folder = workdir / "checkpoints" / name
        with Checkpoints(folder, keep=config.checkpoint.keep) as checkpoints, Records(workdir) as records:
            if checkpoints.latest() is not None:
                _check_same_images(checkpoints.about(), splits, folder)
            state, selection = run_phase(
                phase,
                splits,
                mesh=mesh,
                teachers=needed,
                initial=warm,
                checkpoints=checkpoints,
                checkpoint_minutes=config.checkpoint.minutes,
                evaluator=evaluator_of(head, phase.rule),
                records=records,
                about={
                    **about,
                    "phase": name,
                    "steps": phase.total_steps,
                    "examples": {
                        "number": len(examples),
                        "class_counts": phase.class_counts.tolist(),
                        "sha256": longtail.fingerprint(examples),
                    },
                },
                preemption=preemption,
            )
            training[name] = _describe_training(checkpoints.about())
        named = _named(name, state.weights, selection, state.averaged)
        networks |= {key: results.Network(weights, head, phase.rule) for key, weights in named.items()}
        frozen = phases.make_module(config, splits.num_classes, head=head)
        teachers = {TEACHER: Teacher(frozen, state.weights.params, state.weights.batch_stats, phase.rule)}
    return networks, training


def evaluate(config: Any, workdir: Path, preemption: Preemption | None = None) -> Path:
    """Restores a checkpoint on the devices at hand, evaluates all of its weights and writes a card.

    Raises:
      ValueError: the checkpoint was made with another model or other data (lists the differences). Another threat is
        allowed: it is the evaluation's.
      FileNotFoundError: there is no such checkpoint.
    """
    del preemption  # verdicts are on disk as they come: a request to stop needs no waiting
    began = time.monotonic()
    _check_settings(config)
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
        _check_same_images(about, splits, folder)
        method = phases.make_method(ConfigDict(about["config"]), about["phase"])
        module = phases.make_module(config, splits.num_classes, head=method.head)
        template = Weights(*models.initialise(module, jax.random.key(0), splits.images.shape[1:]))
        restored = checkpoints.restore_weights(devices.replicate(template, mesh))
    rule = decision_rule(method, np.array(about["examples"]["class_counts"]))
    networks = {
        f"{about['phase']}/{name}": results.Network(weights, method.head, rule) for name, weights in restored.items()
    }
    name = f"{config.eval.protocol}-{about['phase']}"
    training = {about["phase"]: _describe_training(about)}
    here = workdirs.plain(config)
    settings = {**about["config"], "eval": here["eval"], "threat": here["threat"]}
    return results.report(config, settings, workdir, name, splits, networks, training, mesh, began)


def _check_teacher_is_there(workdir: Path, wanted: list[str]) -> None:
    """Refuses to go on with a student whose teacher is gone: a teacher trained again may be another network."""
    folders = {name: workdir / "checkpoints" / name for name in wanted}
    missing = [name for name in wanted if not any(folders[name].glob("[0-9]*"))]
    if missing == ["teacher"]:
        raise ValueError(
            f"{folders['student']} holds checkpoints, but the teacher's folder {folders['teacher']} is gone or empty. "
            "Put it back; or evaluate the student without it (--mode=evaluate); or train both anew in another workdir."
        )


def _check_same_images(about: Mapping[str, Any], splits: Splits, folder: Path) -> None:
    """Refuses a checkpoint that was trained on other images than those found now."""
    there, here = about["data"]["fingerprints"], splits.fingerprints
    if there != here:
        raise ValueError(
            f"checkpoint {folder} was trained on other images than those found now (SHA-256 of the training part "
            f"{there['train'][:12]}, now {here['train'][:12]}); use the copy of the data set that it was trained on."
        )


def _check_settings(config: Any) -> None:
    """Refuses values that make no sense, and evaluation settings, before anything is trained."""
    workdirs.check_values(config)
    if config.checkpoint.keep < 1 or config.checkpoint.minutes < 0:
        raise ValueError(
            f"checkpoint.keep is {config.checkpoint.keep} and checkpoint.minutes is {config.checkpoint.minutes}; they "
            "must be at least 1 and 0."
        )
    protocols.check_threat(protocols.get(config.eval.protocol), phases.make_threat(config))
    if config.eval.batch_size < 1 or config.eval.limit < 0:
        raise ValueError(
            f"eval.batch_size is {config.eval.batch_size} and eval.limit is {config.eval.limit}; "
            "they must be at least 1 and 0."
        )


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
    teacher, student = (phases.make_method(config, name) for name in phases.NAMES)
    if config.student.initialize == "teacher" and teacher.head != student.head:
        raise ValueError(
            f"student.initialize is 'teacher', but {student.name} has another head than {teacher.name}; use 'scratch'."
        )
    if teacher.teachers or config.teacher.initialize == "teacher":
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


def _named(phase: str, last: Weights, selection: Any, averaged: Weights | None) -> dict[str, Weights]:
    """The phase's networks under their names on the card."""
    named = {f"{phase}/last": last}
    if int(selection.epoch) > 0:
        named[f"{phase}/selected"] = selection.weights
    if averaged is not None:
        named[f"{phase}/averaged"] = averaged
    return named


def _describe_training(about: Mapping[str, Any]) -> dict[str, Any]:
    """The card's part on how a phase was trained, from its own checkpoint: it may be older than the evaluation."""
    run = {key: about["config"][key] for key in ("seed", "threat")}
    return run | {key: about[key] for key in ("steps", "examples", "software")}
