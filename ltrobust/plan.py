"""The plan of a run: a configuration is read once and checked before any data are read.

`make_plan` turns a ConfigDict into frozen dataclasses; code below it takes no configuration. Checkpoints record
configurations as plain values, from which the same functions make networks and methods.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ltrobust import methods
from ltrobust.data.augment import check_jitter
from ltrobust.data.run_data import DataPlan
from ltrobust.evaluation.evaluation_plan import EvaluationPlan, change_evaluation, check_networks, make_evaluation_plan
from ltrobust.methods import TEACHER, Method
from ltrobust.methods.settings import check_parts
from ltrobust.models.model_plan import ModelPlan, make_model_plan
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.names import nearest
from ltrobust.runtime.workdir import WEIGHTS
from ltrobust.threat import Threat

SUBSETS = ("balanced", "all")


@dataclasses.dataclass(frozen=True)
class OptimizerPlan:
    """Optimiser and learning rate. Attributes are keys of a phase's `optimizer`."""

    name: str
    momentum: float
    nesterov: bool
    options: Mapping[str, Any]
    weight_decay: float
    learning_rate: float
    schedule: str
    drops: tuple[float, ...]
    drop_factor: float
    warmup_epochs: int


@dataclasses.dataclass(frozen=True)
class BalancedPlan:
    """A balanced subset of the training part. Attributes are keys of a phase's `balanced`."""

    count: int
    gamma: float
    up_sample: bool
    redraw: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class AugmentationPlan:
    """Attributes are keys of a phase's `augmentation`."""

    policy: str
    crop_padding: int
    flip: bool
    jitter: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """Teacher or student. Attributes are keys of the phase, except for these.

    Attributes:
      name: `teacher` or `student`.
      seed: of the run.
      compiler: of the run: options of XLA's compiler by name.
      method: with its settings, inner attack and wrappers.
    """

    name: str
    seed: int
    compiler: Mapping[str, Any]
    method: Method
    subset: str
    balanced: BalancedPlan
    shuffle_labels: bool
    initialize: str
    epochs: int
    steps: int
    batch_size: int
    accumulate: int
    remainder: str
    optimizer: OptimizerPlan
    ema_decay: float
    augmentation: AugmentationPlan
    validate_every: int
    selection_floor: int


@dataclasses.dataclass(frozen=True)
class TeacherPlan:
    """An external teacher. Attributes are keys of `teachers.NAME`."""

    path: str
    weights: str
    architecture: str
    activation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class CheckpointPlan:
    """Where the phases' checkpoints lie, each in a subfolder of its name, and how often and how many are kept."""

    folder: epath.Path
    minutes: float
    keep: int


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """Plan of a run: everything in its configuration.

    Attributes:
      workdir: folder of the run.
      recorded: the configuration as plain values, as files and cards record it.
      seed: of initial weights, order of images, augmentation and training attacks.
      data: which images are read, and which of them are trained on.
      threat: of evaluation, and of training where a phase sets no radius.
      model: network of both phases.
      phases: to be trained, in order; empty where nothing is trained.
      teachers: external ones by name, as the student's method asks for them.
      evaluation: on the test set.
      checkpoints: where and how often.
      wandb: `log.wandb`; empty if nothing is trained.
      also: plans of further evaluations of what this plan trains (`eval.also`); empty if nothing is trained.
    """

    workdir: Path
    recorded: Mapping[str, Any]
    seed: int
    data: DataPlan
    threat: Threat
    model: ModelPlan
    phases: tuple[PhasePlan, ...]
    teachers: Mapping[str, TeacherPlan]
    evaluation: EvaluationPlan
    checkpoints: CheckpointPlan
    wandb: str = ""
    also: tuple["RunPlan", ...] = ()


def make_plan(config: ConfigDict, workdir: Path, *, training: bool = True) -> RunPlan:
    """The plan of a configuration.

    Args:
      config: with the keys of `configs/default.py`.
      workdir: folder of the run; where it is one already, a relative `checkpoint.dir` is looked up in it.
      training: False for an evaluation. Method and phases are then the checkpoint's, and those of the configuration
        are neither made nor checked.

    Raises:
      ValueError: a setting that makes no sense; names the key, the value and what is allowed.
    """
    workdirs.check_values(config)
    settings: dict[str, Any] = config.to_dict()
    checkpoint = settings["checkpoint"]
    if checkpoint["keep"] < 1 or checkpoint["minutes"] < 0:
        raise ValueError(
            f"checkpoint.keep is {checkpoint['keep']} and checkpoint.minutes is {checkpoint['minutes']}; they "
            "must be at least 1 and 0."
        )
    threat, data = Threat(**settings["threat"]), DataPlan(**settings["data"])
    evaluation = make_evaluation_plan(settings["eval"], threat)
    external = {name: entry for name, entry in settings["teachers"].items() if entry["path"]}
    phases = _make_phases(settings, external) if training else ()
    data = DataPlan(**settings["data"])  # before the entries of `eval.also`, which would be blamed
    also = tuple(_make_also(config, changes, workdir) for changes in settings["eval"]["also"]) if training else ()
    if phases:
        averaging = {phase.name for phase in phases if phase.ema_decay or phase.method.averaging is not None}
        check_networks((evaluation, *(plan.evaluation for plan in also)), [phase.name for phase in phases], averaging)
    wanted = phases[-1].method.teachers if phases else ()
    folder = workdirs.checkpoint_dir(workdir, checkpoint["dir"]) or workdir / "checkpoints"
    return RunPlan(
        workdir=workdir,
        recorded=workdirs.plain(config),
        seed=settings["seed"],
        data=data,
        threat=threat,
        model=make_model_plan(settings["model"]),
        phases=phases,
        teachers={name: make_teacher_plan(name, external[name]) for name in external if name in wanted},
        evaluation=evaluation,
        checkpoints=CheckpointPlan(epath.Path(folder), checkpoint["minutes"], checkpoint["keep"]),
        wandb=settings["log"]["wandb"] if training else "",
        also=also,
    )


def _make_also(config: ConfigDict, changes: Any, workdir: Path) -> RunPlan:
    """The plan of an entry of `eval.also`."""
    try:
        return make_plan(change_evaluation(config, changes), workdir, training=False)
    except ValueError as error:
        raise ValueError(f"eval.also has {changes!r}: {error}") from error


def make_method(config: Mapping[str, Any], name: str) -> Method:
    """The method of phase `name` with its settings, inner attack and wrappers, the first wrapper innermost.

    `config` is a configuration as plain values, or what a checkpoint records of one.

    Raises:
      ValueError: an unknown method or wrapper, or a setting that it refuses; names the phase.
    """
    phase, attack = config[name], config[name]["attack"]

    def settings(of: str) -> dict[str, Any]:
        # JSON has lists where configurations have tuples.
        return {key: workdirs.with_tuples(value) for key, value in config["methods"].get(of, {}).items()}

    with naming_phase(name):
        threat = Threat(**config["threat"])
        if attack["radius"] >= 0:
            threat = dataclasses.replace(threat, radius=attack["radius"])
        inner = methods.InnerAttack(threat, attack["steps"], attack["step_size"], attack["start"], attack["bn"])
        method = methods.create(phase["method"], inner, **settings(phase["method"]))
        for wrapper in phase["wrappers"]:
            method = methods.wrap(method, wrapper, **settings(wrapper))
        return method


def make_phase_plan(config: Mapping[str, Any], name: str, method: Method | None = None) -> PhasePlan:
    """The plan of phase `name`; `method` is what `make_method` gives for it.

    Raises:
      ValueError: as `make_method`, or a value out of its range.
    """
    method = method or make_method(config, name)
    phase = config[name]
    with naming_phase(name):
        _check_phase(name, phase, method)
        kept = {field.name for field in dataclasses.fields(PhasePlan)} & phase.keys()
        parts = {
            "method": method,
            "balanced": BalancedPlan(**phase["balanced"]),
            "optimizer": OptimizerPlan(**phase["optimizer"]),
            "augmentation": AugmentationPlan(**phase["augmentation"]),
        }
        whole = {"seed": config["seed"], "compiler": config.get("compiler", {})}
        return PhasePlan(name=name, **whole | {key: phase[key] for key in kept} | parts)


@contextlib.contextmanager
def naming_phase(name: str) -> Iterator[None]:
    """Adds the phase's name to a ValueError."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name}: {error}") from error


def make_teacher_plan(name: str, entry: Mapping[str, Any]) -> TeacherPlan:
    """The plan of the external teacher `teachers.NAME`."""
    if entry["weights"] not in WEIGHTS:
        raise ValueError(
            f"teachers.{name}.weights is {entry['weights']!r}; {nearest(entry['weights'], WEIGHTS)}known: "
            f"{', '.join(WEIGHTS)}."
        )
    return TeacherPlan(**entry)


def _make_phases(config: Mapping[str, Any], external: Collection[str]) -> tuple[PhasePlan, ...]:
    """The student, after the teacher where the student's settings need one that is not external."""
    student = make_method(config, "student")
    warm = config["student"]["initialize"] == "teacher"
    for name in student.teachers:
        if name not in external and name != TEACHER:
            raise ValueError(f"student.method {config['student']['method']} needs a {name}; give teachers.{name}.path.")
    if warm and TEACHER in external:
        raise ValueError(
            "student.initialize is 'teacher', which is the run's own teacher phase, but teachers.teacher.path names "
            "another; use 'scratch', or leave the path empty."
        )
    if not warm and (TEACHER not in student.teachers or TEACHER in external):
        return (make_phase_plan(config, "student", student),)
    teacher = make_method(config, "teacher")
    if warm and teacher.head != student.head:
        raise ValueError(
            f"student.initialize is 'teacher', but {student.name} has another head than {teacher.name}; use 'scratch'."
        )
    if teacher.teachers or config["teacher"]["initialize"] == "teacher":
        raise ValueError(
            f"teacher.method is {config['teacher']['method']!r}, which itself needs a teacher; choose one that "
            "does not, such as pgd_at."
        )
    return (make_phase_plan(config, "teacher", teacher), make_phase_plan(config, "student", student))


def _check_phase(name: str, phase: Mapping[str, Any], method: Method) -> None:
    """Refuses values of a phase that are out of range whatever the data are."""
    for key, what in {"validate_every": "epochs", "selection_floor": "images"}.items():
        least = int(key != "selection_floor")
        if (value := phase[key]) < least or isinstance(value, bool):
            raise ValueError(f"{name}.{key} is {value}; give a number of {what}, at least {least}.")
    check_parts(f"{name}.accumulate", phase["accumulate"], method.name, method.separable)
    check_jitter(phase["augmentation"]["jitter"])
    if not 0 <= phase["ema_decay"] < 1:
        raise ValueError(f"{name}.ema_decay is {phase['ema_decay']}; give 0 for no average, or a number below 1.")
    if (subset := phase["subset"]) not in SUBSETS:
        raise ValueError(f"{name}.subset is {subset!r}; {nearest(subset, SUBSETS)}known subsets: {', '.join(SUBSETS)}.")
    if phase["steps"] < 0 or (phase["steps"] == 0 and phase["epochs"] < 1):
        raise ValueError(
            f"{name}.epochs is {phase['epochs']} and {name}.steps is {phase['steps']}; give at least one epoch or step."
        )
    if method.averaging is not None and phase["ema_decay"]:
        ema = phase["ema_decay"]
        raise ValueError(f"{name}.ema_decay is {ema}, but {method.name} averages weights itself; give 0.")
