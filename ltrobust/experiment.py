"""A whole run: data, teacher, student, evaluation, card. What `main.py` calls."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ltrobust import card_parts, checks, models, results
from ltrobust.analysis import cards
from ltrobust.commands import diagnose as diagnoses
from ltrobust.data import longtail, sources
from ltrobust.data.run_data import RunData, describe, make_run_data
from ltrobust.methods import TEACHER, Teacher, decision_rule
from ltrobust.runtime import ambient, processes
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import Preempted, Preemption
from ltrobust.training import devices, initial, phases, teachers
from ltrobust.training.checkpoints import Checkpoints, check_phase, folder_in
from ltrobust.training.loop import Services, run_phase
from ltrobust.training.records import Records
from ltrobust.training.state import Weights

_SAME_FOLDER = (
    "checkpoints must lie in a folder that all processes see: a shared disk as --workdir, or "
    "--config.checkpoint.dir=gs://BUCKET/RUN."
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training leaves in memory, for an evaluation.

    Attributes:
      networks: by name, such as `student/last`.
      training: phase -> the card's part on how it was trained.
      run_data: the training and validation parts.
      mesh: the devices.
    """

    networks: dict[str, results.Network]
    training: dict[str, Any]
    run_data: RunData
    mesh: Mesh


def train(config: Any, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Path:
    """Trains what is not trained yet, evaluates every network and writes the card. Returns the card's path.

    With several processes all of them call it; the first one writes. The same call in the same workdir resumes where it
    stopped. `adopt` makes a folder with files of others in it a workdir (`workdir.enter`).

    Raises:
      ValueError: a setting that makes no sense; everything that can be known before training is checked before. Or
        another process is at work in the workdir, or the folder is no workdir.
      Preempted: `preemption` was asked to stop.
    """
    began = time.monotonic()
    with _training(config, workdir, preemption, adopt) as trained:
        return report(config, workdir, config.eval.protocol, trained, began)


def fit(config: Any, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Trained:
    """As `train`, without the evaluation: no test image is read.

    Raises:
      ValueError, Preempted: as `train`.
    """
    with _training(config, workdir, preemption, adopt) as trained:
        return trained


def report(config: Any, workdir: Path, name: str, trained: Trained, began: float) -> Path:
    """Evaluates trained networks under the configuration's `eval` and writes the card `name`. Returns its path."""
    networks, training, run_data, mesh = trained.networks, trained.training, trained.run_data, trained.mesh
    return results.report(config, workdirs.plain(config), workdir, name, run_data, networks, training, mesh, began)


@contextlib.contextmanager
def _training(config: Any, workdir: Path, preemption: Preemption | None, adopt: bool) -> Iterator[Trained]:
    """Trains every phase; the workdir stays locked until the body ends."""
    mesh = devices.make_mesh()
    with processes.all_or_none():
        ambient.check()
        checks.settings(config)
        wanted = checks.phases_to_run(config)
        run_data = load_run_data(config)
        planned = {name: phases.make_phase(config, name, run_data, mesh) for name in wanted}
        checks.warn_of_no_selection(config, planned, run_data)
    used = [name for name in teachers.outside(config) if name in planned["student"].settings.method.teachers]
    shape, platform = run_data.image_shape, devices.platform(mesh)
    known = teachers.load(config, used, num_classes=run_data.num_classes, image_shape=shape, platform=platform)
    starts = initial.load(config, planned, checkpoint_folder(config, workdir), run_data)
    checks.same_start(config, run_data)
    with contextlib.ExitStack() as held:
        with processes.all_or_none():
            if processes.first():
                workdirs.claim(workdir, config, adopt=adopt)
                held.enter_context(hold(workdir))
            folder = checkpoint_folder(config, workdir)
            checks.teacher_is_there(folder, wanted)
            checks.checkpoints_are_there(workdir, folder, wanted)
        preemption = preemption or Preemption()
        # One process alone may stop where it is; several have to agree first.
        with preemption.waiting() if processes.several() else contextlib.nullcontext():
            networks, training = _run_phases(config, workdir, planned, known, starts, run_data, mesh, preemption)
            if processes.several() and any(processes.gather(preemption.requested)):
                raise Preempted("stopped after training; the same command resumes from there.")
        yield Trained(networks, training, run_data, mesh)


def _run_phases(
    config: Any,
    workdir: Path,
    planned: Mapping[str, phases.Phase],
    known: dict[str, teachers.Known],
    starts: Mapping[str, initial.Initial],
    run_data: RunData,
    mesh: Mesh,
    preemption: Preemption,
) -> tuple[dict[str, results.Network], dict[str, Any]]:
    """Every phase in order; its networks by name, and the card's part on how they were trained.

    `known` are external teachers; the teacher phase's last weights join them. `starts` are first weights.
    """
    evaluator_of = functools.cache(
        lambda head, rule: results.make_network_evaluator(
            config,
            run_data.num_classes,
            mesh,
            head=head,
            rule=rule,
            protocol="validation",
            images=len(run_data.validation.labels),
            seed=config.seed,
        )
    )
    about = {"config": workdirs.plain(config), "data": describe(run_data), "software": cards.software()}
    networks: dict[str, results.Network] = {}
    training: dict[str, Any] = {}
    for name, phase in planned.items():
        examples = phase.examples_of(0)
        needed = {key: known[key].teacher for key in phase.settings.method.teachers}
        taught = {key: known[key].about | results.fingerprints_of(teacher) for key, teacher in needed.items()}
        head = phase.settings.method.head
        start = starts.get(name)
        warm = networks["teacher/last"].weights if config[name].initialize == "teacher" else start and start.weights
        began_from = start and start.about | results.fingerprints_of(start.weights)
        folder = checkpoint_folder(config, workdir) / name
        with (
            Checkpoints(folder, keep=config.checkpoint.keep) as checkpoints,
            Records(workdir, silent=not processes.first()) as records,
        ):
            processes.check_same({f"newest checkpoint in {folder}": checkpoints.latest()}, _SAME_FOLDER)
            if checkpoints.latest() is not None:
                check_phase(checkpoints.about(), folder, name)
                checks.same_run(checkpoints.about(), config, folder)
                checks.same_images(checkpoints.about(), run_data, folder)
                checks.same_teachers(checkpoints.about(), taught, folder)
                began_from = checkpoints.about().get("initial")
            services = Services(
                checkpoints=checkpoints,
                checkpoint_minutes=config.checkpoint.minutes,
                metadata={
                    **about,
                    "phase": name,
                    "steps": phase.total_steps,
                    "teachers": taught,
                    **({"initial": began_from} if began_from else {}),
                    "examples": {
                        "number": len(examples),
                        "class_counts": phase.class_counts.tolist(),
                        "sha256": longtail.fingerprint(examples),
                    },
                },
                evaluator=evaluator_of(head, phase.rule),
                record=records.write,
                preemption=preemption,
            )
            state, selection = run_phase(phase, run_data, mesh=mesh, teachers=needed, initial=warm, services=services)
            training[name] = card_parts.describe_training(checkpoints.about())
        named = _named(name, state.weights, selection, state.averaged)
        networks |= {key: results.Network(weights, head, phase.rule) for key, weights in named.items()}
        if name == "teacher":
            frozen = phases.make_module(config, run_data.num_classes, head=head, platform=devices.platform(mesh))
            teacher = Teacher(frozen, state.weights.params, state.weights.batch_stats, phase.rule)
            about_it = {"from": "teacher phase", "weights": "last", "method": phase.settings.method.name}
            known = {TEACHER: teachers.Known(teacher, about_it), **known}
    return networks, training


def evaluate(config: Any, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Path:
    """Restores a checkpoint on the devices at hand, evaluates all of its weights and writes a card.

    The workdir may be another one than the checkpoint's. `adopt` is as in `train`.

    Raises:
      ValueError: the checkpoint was made with another model or other data (lists the differences). Another threat is
        allowed: it is the evaluation's.
      FileNotFoundError: there is no such checkpoint.
    """
    del preemption  # verdicts are on disk as they come: a request to stop needs no waiting
    began = time.monotonic()
    mesh = devices.make_mesh()
    with processes.all_or_none():
        ambient.check()
        checks.settings(config)
        folder = _find_checkpoints(config, workdir)
        run_data = load_run_data(config)
    checks.same_start(config, run_data)
    with Checkpoints(folder, read_only=True) as checkpoints:
        about = checkpoints.about()
        check_phase(about, folder, config.eval.checkpoint if config.eval.checkpoint in phases.NAMES else "")
        about["config"]["model"].setdefault("activation", "relu")  # written when there was no choice
        about["config"]["data"] = sources.form(config.data) | about["config"]["data"]  # when there were no folders
        found = workdirs.differences(about["config"], workdirs.plain(config), only=("model.", "data."))
        if found:
            raise ValueError(
                f"checkpoint {folder} was made with other settings:\n"
                + "\n".join(f"  {line}" for line in found)
                + "\nEvaluate it with the configuration that made it."
            )
        checks.same_images(about, run_data, folder)
        method = phases.make_method(ConfigDict(about["config"]), about["phase"])
        module = phases.make_module(config, run_data.num_classes, head=method.head, platform=devices.platform(mesh))
        template = Weights(*models.initialise(module, jax.random.key(0), run_data.image_shape))
        restored = checkpoints.restore_weights(devices.replicate(template, mesh))
    rule = decision_rule(method, np.array(about["examples"]["class_counts"]))
    networks = {
        f"{about['phase']}/{name}": results.Network(weights, method.head, rule) for name, weights in restored.items()
    }
    name = f"{config.eval.protocol}-{about['phase']}"
    training = {about["phase"]: card_parts.describe_training(about)}
    here = workdirs.plain(config)
    settings = {**about["config"], "eval": here["eval"], "threat": here["threat"]}
    with processes.all_or_none():
        if processes.first():
            places = {group: here[group] for group in ("data", "checkpoint")}
            workdirs.enter(workdir, settings | places, adopt=adopt)
    return results.report(config, settings, workdir, name, run_data, networks, training, mesh, began)


def diagnose(config: Any, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Path:
    """As `evaluate`, under the protocol `diagnose`; then writes the diagnosis of the checkpoint's last weights.

    Returns the path of the page, in `workdir/diagnosis`.

    Raises:
      ValueError, FileNotFoundError: as `evaluate`.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.protocol = diagnoses.PROTOCOL
    evaluate(config, workdir, preemption, adopt=adopt)
    page = None
    with processes.all_or_none():
        if processes.first():
            page = diagnoses.run([workdir], workdir / "diagnosis")
    return processes.share(page)


def load_run_data(config: Any) -> RunData:
    """The training and validation parts that the configuration names."""
    data = config.data
    source = sources.load(data.name, "train", data_dir=data.dir, cache_dir=data.cache_dir, **sources.form(data))
    results.show_source(source)
    return make_run_data(
        source,
        imbalance_ratio=data.imbalance_ratio,
        profile=data.profile,
        seed=data.split_seed,
        validation_fraction=data.validation_fraction,
        validation_floor=data.validation_floor,
        validation_cap=data.validation_cap,
    )


def checkpoint_folder(config: Any, workdir: Path) -> epath.Path:
    """Where the phases' checkpoints lie, each in a folder of its name: anywhere that epath reaches."""
    folder = workdirs.checkpoint_dir(workdir, config.checkpoint.dir)
    return epath.Path(folder) if folder else epath.Path(workdir) / "checkpoints"


def _find_checkpoints(config: Any, workdir: Path) -> epath.Path:
    """The folder of a phase's checkpoints, from `student`, `teacher`, a workdir or such a folder."""
    wanted = config.eval.checkpoint
    path = checkpoint_folder(config, workdir) / wanted if wanted in phases.NAMES else epath.Path(wanted)
    folder = folder_in(path)
    if folder is not None:
        return folder
    raise FileNotFoundError(
        f"eval.checkpoint is {wanted!r}, but there is no folder {path}; give student, teacher, a workdir, or a folder "
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
