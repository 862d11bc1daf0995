"""The programs that a configuration's run compiles, traced from shapes for devices that need not exist."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jax.sharding import Mesh

from ltrobust.compilation.record import CALL, PASS, STEP
from ltrobust.data import blank
from ltrobust.data.run_data import RunData
from ltrobust.evaluation import protocols
from ltrobust.evaluation.lowering import programs as evaluation_programs
from ltrobust.evaluation.protocols import Attack
from ltrobust.plan import RunPlan, naming_phase
from ltrobust.training import devices, loop, networks, placement, steps, teacher_student, teachers
from ltrobust.training.phases import Phase


@dataclasses.dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
      name: such as `student step`, or `quick: pgd (fgsm, pgd20)`.
      attacks: for which attacks of a protocol it is, if it is for some.
      images: that it works on at a time, on all devices together.
      image_shape: height, width and channels of each.
      unit: what it does at a time: a training step, a pass of all images through the network, or one call.
      mapped: whether its operations are those of one device, as in training.
      batch_key: the configuration's key that sets its images.
      trace: gives JAX's `Traced`.
      remedies: as in `Phase`.
    """

    name: str
    attacks: tuple[str, ...]
    images: int
    image_shape: tuple[int, ...]
    unit: str
    mapped: bool
    batch_key: str
    trace: Callable[[], Any]
    remedies: tuple[str, ...] = ()


def programs(plan: RunPlan, mesh: Mesh, only: str = "", memory: int | None = None) -> Iterator[Program]:
    """The chunk of steps of each phase, then the programs of validation and of the protocol, at their full batches.

    No image is read where shapes and class counts are known without (`data.blank`); of image lists none is decoded.

    Args:
      plan: of the run.
      mesh: from `compilation.topologies`, or any other.
      only: a phase; empty for all. Evaluated are the networks of these phases.
      memory: bytes of a device, see `teacher_student.make_phases`.

    Raises:
      ValueError: as a run would before it trains: a setting that does not fit the data or the devices.
    """
    data = blank.make_run_data(plan.data)
    known = teachers.load(
        plan.teachers,
        dtype=plan.model.dtype,
        num_classes=data.num_classes,
        image_shape=data.image_shape,
        platform=devices.platform(mesh),
    )
    phases = teacher_student.make_phases(plan, data, mesh, memory)
    if only and only not in phases:
        raise ValueError(f"--phase is {only!r}, but this configuration trains {' and '.join(phases)} only.")
    chosen = [phase for phase in phases.values() if only in ("", phase.name)]
    for phase, needed in teacher_student.with_teachers(plan, data, mesh, phases, known):
        if phase not in chosen:
            continue

        def trace(phase: Phase = phase, needed: Any = needed) -> Any:
            with naming_phase(phase.name):
                arguments = placement.argument_shapes(phase, data, mesh, needed, loop.CAPACITY)
                return steps.compile_chunk(phase.settings, mesh).trace(*arguments)

        key = f"{phase.name}.batch_size"
        title, size, shape = f"{phase.name} step", phase.schedule.batch_size, data.image_shape
        yield Program(title, (), size, shape, STEP, True, key, trace, phase.remedies)
    yield from _evaluations(plan, mesh, data, chosen)


def _evaluations(plan: RunPlan, mesh: Mesh, data: RunData, phases: list[Phase]) -> Iterator[Program]:
    """The programs of validation and of the protocol; those that networks share once."""
    tasks = [(plan.evaluation.protocol, blank.count_test_images(plan.data, plan.evaluation.limit))]
    if len(data.validation):
        tasks.insert(0, (protocols.get("validation"), len(data.validation)))
    networks_seen: dict[Any, Phase] = {}
    for phase in phases:
        networks_seen.setdefault((phase.settings.method.head, phase.rule), phase)
    for (head, rule), phase in networks_seen.items():
        result: dict[int, tuple[Any, list[str], list[Attack]]] = {}
        for protocol, images in tasks:
            settings: dict[str, Any] = {"head": head, "rule": rule, "images": images}
            driver = networks.make_network_driver(plan, data.num_classes, mesh, **settings)
            # Two tasks with batches of one size share their programs.
            _, names, attacks = result.setdefault(driver.batch_size, (driver, [], []))
            names.append(protocol.name)
            attacks += [attack for attack in protocol.attacks if attack not in attacks]
        variables = devices.shapes(placement.weight_shapes(phase, data), mesh)
        for size, (driver, names, attacks) in result.items():
            place = lambda tree: devices.shapes(tree, mesh, devices.divided())  # noqa: E731
            title = " and ".join(names) + (f" of the {phase.name}" if len(networks_seen) > 1 else "")
            remedies = () if plan.model.dtype == "bfloat16" else ("model.dtype=bfloat16",)
            for name, users, trace, passes in evaluation_programs(driver, variables, data.image_shape, attacks, place):
                unit = PASS if passes else CALL
                name = f"{title}: {name}{_of(users)}"
                yield Program(name, users, size, data.image_shape, unit, False, "eval.batch_size", trace, remedies)


def _of(attacks: tuple[str, ...]) -> str:
    """The attacks that a program is for, in its name."""
    if not attacks:
        return ""
    more = f" and {len(attacks) - 2} more" if len(attacks) > 2 else ""
    return f" ({', '.join(attacks[:2])}{more})"
