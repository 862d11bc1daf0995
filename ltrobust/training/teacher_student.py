"""Trains a run's phases in order: the teacher, if there is one, then the student."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from jax.sharding import Mesh

from ltrobust.analysis import card_parts, cards
from ltrobust.analysis.schema.training import TrainingExamples, TrainingRecord
from ltrobust.data import longtail
from ltrobust.data.run_data import RunData, describe
from ltrobust.evaluation import protocols
from ltrobust.methods import TEACHER, Teacher
from ltrobust.plan import RunPlan, naming_phase
from ltrobust.runtime import processes
from ltrobust.runtime.preemption import Preemption
from ltrobust.training import answers, compatibility, devices, feeds, initial, metadata, networks, placement, teachers
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.initial import Initial
from ltrobust.training.loop import Services, run_phase
from ltrobust.training.metadata import Metadata
from ltrobust.training.networks import Network, fingerprints_of
from ltrobust.training.phases import Phase, make_phase
from ltrobust.training.records import Records, check_wandb
from ltrobust.training.state import Selection, TrainState, Weights
from ltrobust.training.teachers import Known

_SAME_FOLDER = (
    "checkpoints must lie in a folder that all processes see: a shared disk as --workdir, or "
    "--config.checkpoint.dir=gs://BUCKET/RUN."
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Results of training that an evaluation needs.

    Attributes:
      networks: by name, such as `student/last`.
      training: phase -> the card's part on how it was trained.
      run_data: the training and validation parts.
      mesh: the devices.
    """

    networks: dict[str, Network]
    training: dict[str, TrainingRecord]
    run_data: RunData
    mesh: Mesh


@dataclasses.dataclass(frozen=True)
class Ready:
    """Everything that training needs, prepared and checked before any file is written.

    Attributes:
      phases: in order, by name.
      known: external teachers by name.
      starts: first weights from another run, of the phases that have them.
    """

    plan: RunPlan
    run_data: RunData
    mesh: Mesh
    phases: Mapping[str, Phase]
    known: Mapping[str, Known]
    starts: Mapping[str, Initial]


def make_phases(plan: RunPlan, run_data: RunData, mesh: Mesh, memory: int | None = None) -> dict[str, Phase]:
    """The plan's phases by name, in order. Warns of those that select no weights although there is a validation part.

    `memory` are bytes of a device, by which `data.residence` "auto" decides; None where they are not known.

    Raises:
      ValueError: see `make_phase` and `feeds.host_fed`; or `log.wandb` is set and the package is not installed.
    """
    check_wandb(plan.wandb)
    host_fed = feeds.host_fed(plan.data.residence, run_data, memory)
    phases = {phase.name: make_phase(phase, plan.model, run_data, mesh, host_fed=host_fed) for phase in plan.phases}
    for phase in plan.phases:
        if len(run_data.validation.labels) and not phases[phase.name].selects:
            logging.warning(
                "%s: no weights are selected: validation images of the rarest class: %d, %s.selection_floor: %d.",
                *(phase.name, run_data.validation_counts.min(), phase.name, phase.selection_floor),
            )
    return phases


def prepare(plan: RunPlan, run_data: RunData, mesh: Mesh, phases: Mapping[str, Phase]) -> Ready:
    """Loads external teachers and first weights, traces the methods, and compares the processes; writes nothing.

    Raises:
      ValueError: a teacher or first weights that do not fit, a method that returns what it must not, or processes that
        differ.
    """
    known = teachers.load(
        plan.teachers,
        dtype=plan.model.dtype,
        num_classes=run_data.num_classes,
        image_shape=run_data.image_shape,
        platform=devices.platform(mesh),
    )
    starts = initial.load(plan, phases, run_data)
    with processes.all_or_none():
        for phase in phases.values():
            devices.check_compiler(phase.settings.compiler)
        phases = _traced(plan, run_data, mesh, phases, known)
    compatibility.same_start(plan.recorded, run_data)
    return Ready(plan, run_data, mesh, phases, known, starts)


def _traced(
    plan: RunPlan, run_data: RunData, mesh: Mesh, phases: Mapping[str, Phase], known: Mapping[str, Known]
) -> dict[str, Phase]:
    """The phases with the names of their metrics. All are traced before the first is trained."""
    result = {}
    for phase, needed in with_teachers(plan, run_data, mesh, phases, known):
        with naming_phase(phase.name):
            metrics = placement.trace(phase, run_data, mesh, needed)
        result[phase.name] = dataclasses.replace(phase, metrics=metrics)
    return result


def with_teachers(
    plan: RunPlan, run_data: RunData, mesh: Mesh, phases: Mapping[str, Phase], known: Mapping[str, Known]
) -> Iterator[tuple[Phase, dict[str, Teacher]]]:
    """Each phase with the teachers that its method needs; the run's own teacher has shapes in place of its weights."""
    taught = {name: each.teacher for name, each in known.items()}
    for phase in phases.values():
        yield phase, {key: taught[key] for key in phase.settings.method.teachers}
        if phase.name == "teacher":
            shapes = placement.weight_shapes(phase, run_data)
            taught = {TEACHER: _frozen(plan, run_data, mesh, phase, shapes), **taught}


def _frozen(plan: RunPlan, run_data: RunData, mesh: Mesh, phase: Phase, weights: Weights) -> Teacher:
    """The teacher phase's network as a teacher."""
    head, platform = phase.settings.method.head, devices.platform(mesh)
    module = plan.model.create(run_data.num_classes, head=head, platform=platform, training=True)
    return Teacher(module, weights.params, weights.batch_stats, phase.rule)


def train(ready: Ready, preemption: Preemption) -> Trained:
    """Trains every phase, or what is left of it.

    The teacher phase's last weights teach the student; with `student.initialize` "teacher" they are its first ones.

    Raises:
      ValueError: checkpoints that do not belong to this run.
      FloatingPointError, OSError, MemoryError, Preempted: see `loop.run_phase`.
    """
    plan, run_data, mesh = ready.plan, ready.run_data, ready.mesh
    evaluator_of = functools.cache(
        lambda head, rule: networks.make_network_evaluator(
            plan,
            run_data.num_classes,
            mesh,
            head=head,
            rule=rule,
            protocol=protocols.get("validation"),
            images=len(run_data.validation.labels),
            seed=plan.seed,
        )
    )
    trained, known = Trained({}, {}, run_data, mesh), dict(ready.known)
    for settings in plan.phases:
        phase = ready.phases[settings.name]
        method, start = phase.settings.method, ready.starts.get(phase.name)
        warm = trained.networks["teacher/last"].weights if settings.initialize == "teacher" else start and start.weights
        services = Services(
            checkpoint_minutes=plan.checkpoints.minutes,
            evaluator=evaluator_of(method.head, phase.rule),
            preemption=preemption,
            workers=plan.data.workers,
        )
        state, selection, trained.training[phase.name] = _train_phase(ready, phase, known, warm, services)
        named = _named(phase.name, state.weights, selection, state.averaged)
        trained.networks.update({key: Network(weights, method.head, phase.rule) for key, weights in named.items()})
        if phase.name == "teacher":
            teacher = _frozen(plan, run_data, mesh, phase, state.weights)
            about = {"from": "teacher phase", "weights": "last", "method": method.name}
            known = {TEACHER: Known(teacher, about), **known}
    return trained


def _train_phase(
    ready: Ready, phase: Phase, known: Mapping[str, Known], warm: Weights | None, services: Services
) -> tuple[TrainState, Selection, TrainingRecord]:
    """Trains one phase, or resumes it from a checkpoint that fits. The card's part on it comes last.

    `warm` are its first weights, where it does not draw them.
    """
    plan, run_data, start = ready.plan, ready.run_data, ready.starts.get(phase.name)
    folder = plan.checkpoints.folder / phase.name
    needed = {key: known[key] for key in phase.settings.method.teachers}
    taught = {key: result.about | fingerprints_of(result.teacher) for key, result in needed.items()}
    began_from = start and start.about | fingerprints_of(start.weights)
    head = phase.settings.method.head
    answered = answers.take(plan.model, run_data.num_classes, head, run_data.image_shape)
    used: Sequence[int] = ()
    with (
        Checkpoints(folder, keep=plan.checkpoints.keep) as checkpoints,
        Records(plan.workdir, silent=not processes.first(), wandb=plan.wandb, config=plan.recorded) as records,
    ):
        processes.check_same({f"newest checkpoint in {folder}": checkpoints.latest()}, _SAME_FOLDER)
        if checkpoints.latest() is not None:
            there = metadata.read(checkpoints, phase.name)
            compatibility.same_run(there, plan.recorded, folder)
            compatibility.same_images(there, run_data, folder)
            compatibility.same_teachers(there.teachers, taught, folder)
            answers.check(plan.model.name, there.answers, answered)
            began_from, used = there.initial, there.devices
        used_here = _with_this(used, ready.mesh.size)
        services = dataclasses.replace(
            services,
            checkpoints=checkpoints,
            metadata=_metadata(plan, run_data, phase, taught, began_from, answered, used_here).plain(),
            record=records.write,
        )
        state, selection = run_phase(
            phase,
            run_data,
            mesh=ready.mesh,
            teachers={key: result.teacher for key, result in needed.items()},
            initial=warm,
            services=services,
        )
        return state, selection, card_parts.describe_training(metadata.read(checkpoints).plain())


def _metadata(
    plan: RunPlan,
    run_data: RunData,
    phase: Phase,
    taught: Mapping[str, Any],
    began_from: Mapping[str, Any] | None,
    answered: list[list[float]],
    devices: Sequence[int],
) -> Metadata:
    """Metadata of a phase's checkpoints."""
    examples = phase.examples_of(0)
    return Metadata(
        config=plan.recorded,
        data=describe(run_data),
        software=cards.software(),
        phase=phase.name,  # pyright: ignore[reportArgumentType] - one of the two
        steps=phase.total_steps,
        devices=devices,
        teachers=taught,
        examples=TrainingExamples(len(examples), phase.class_counts.tolist(), longtail.fingerprint(examples)),
        initial=began_from or {},
        answers=answered,
    )


def _with_this(used: Sequence[int], here: int) -> list[int]:
    """Numbers of devices that a phase was trained on, in order, once it resumes here."""
    return [*used] if [*used[-1:]] == [here] else [*used, here]


def _named(phase: str, last: Weights, selection: Selection, averaged: Weights | None) -> dict[str, Weights]:
    """The phase's networks under their names on the card."""
    named = {f"{phase}/last": last}
    if int(selection.epoch) > 0:
        named[f"{phase}/selected"] = selection.weights
    if averaged is not None:
        named[f"{phase}/averaged"] = averaged
    return named
