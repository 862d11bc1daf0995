"""The jobs in order of value: what each one does, what it costs by arithmetic, and what it needs. No JAX.

A job has parts. Each finished part is a separate result, so a job that does not fit into the minutes at hand
is done part by part.

Seconds are `fixed + work / rate`. `work` counts FLOPs of convolutions and matrix products as `benchmarks/flops.py`
does; `rate` is what a training step reaches on the device. `fixed` stands for everything that a faster device does not
shorten: starting, reading, compiling.
"""

import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.accelerator import ROOT
from ltrobust.data import longtail

RATES = (150.0, 300.0)  # TFLOP/s that a training step may reach; the first one is planned with until one is measured
BATCH = 128
SEEDS = (0, 1, 2)
EPOCHS, TEACHER_EPOCHS = 50, 15  # half of the published lengths
WRN_EPOCHS = 8  # what fits into nine minutes
QUICK_IMAGES = 10_000
_TRAINING_CLASSES = {"cifar10": (10, 5000, 50.0), "cifar100": (100, 500, 10.0)}  # classes, images of each, ratio


@dataclasses.dataclass(frozen=True)
class Run:
    """One training with its teacher, if it needs one: a configuration as changes of keys.

    Attributes:
      name: of its folder.
      changes: keys of the configuration (`configs/default.py`), dotted, and their values.
      config: file that is changed.
      standard: test images of each class that `standard` sees, the first ones.
    """

    name: str
    changes: Mapping[str, Any]
    config: str = "configs/cifar10.py"
    standard: int = 200

    def value(self, key: str) -> Any:
        """A key's value: the change, or what the recipe has."""
        recipe = {
            "data.validation_fraction": 0.05,
            "model.name": "resnet18",
            "teacher.method": "pgd_at",
            "teacher.subset": "balanced",
            "teacher.epochs": 30,
            "teacher.steps": 0,
            "student.method": "self_distillation",
            "student.subset": "all",
            "student.epochs": 100,
            "student.steps": 0,
        }
        return self.changes.get(key, recipe[key])


@dataclasses.dataclass(frozen=True)
class Part:
    """One result of a job.

    Attributes:
      name: unique in its job; the folder of its files.
      fixed: seconds that the device's rate does not shorten.
      work: FLOPs.
      run: the training, for parts that train.
    """

    name: str
    fixed: float
    work: float = 0.0
    run: Run | None = None

    def seconds(self, tflops: float) -> float:
        """Expected seconds where a training step reaches so many TFLOP/s."""
        return self.fixed + self.work / (tflops * 1e12)


@dataclasses.dataclass(frozen=True)
class Job:
    """One entry of the queue.

    Attributes:
      name: of the job; its results are `<name>.zip`.
      summary: what it does, for a person.
      module: of this package, whose function `run(context, part)` does a part.
      parts: in order of value.
      memory: GiB of device memory that it needs.
      packs: data sets whose packs it needs.
      golden: whether it needs the golden networks.
      shares_device: whether PyTorch works beside JAX, which then must not take the device's memory at the start.
    """

    name: str
    summary: str
    module: str
    parts: tuple[Part, ...]
    memory: float = 4.0
    packs: tuple[str, ...] = ()
    golden: bool = False
    shares_device: bool = False

    def seconds(self, tflops: float) -> float:
        """Expected seconds of all parts."""
        return sum(part.seconds(tflops) for part in self.parts)


def ratio_of(data: str) -> float:
    """The imbalance ratio that the jobs train on.

    Raises:
      ValueError: no job has this data set.
    """
    if data not in _TRAINING_CLASSES:
        raise ValueError(f"data set is {data!r}; the jobs have {' and '.join(_TRAINING_CLASSES)}.")
    return _TRAINING_CLASSES[data][2]


def balanced_steps(data: str, validation_fraction: float, epochs: int) -> int:
    """Steps of a phase of so many epochs on the balanced subset; partial batches carry over."""
    return epochs * _counts(data, validation_fraction)[1] // BATCH


def steps(data: str, validation_fraction: float, epochs: int) -> int:
    """Steps of a phase of so many epochs on all images; the last partial batch of an epoch is dropped."""
    return _counts(data, validation_fraction)[0] // BATCH * epochs


@functools.cache
def _counts(data: str, validation_fraction: float) -> tuple[int, int]:
    """Training images, and images of the balanced subset."""
    classes, each, ratio = _TRAINING_CLASSES[data]
    counts = longtail.class_counts(np.full(classes, each), imbalance_ratio=ratio)
    labels = np.repeat(np.arange(classes), counts)
    carve = longtail.carve_validation(labels, fraction=validation_fraction, floor=10, cap=0.2)
    left = longtail.count_classes(labels[carve.train], classes)
    return int(left.sum()), classes * longtail.balanced_count(left)


@functools.cache
def floors() -> dict[str, Any]:
    """`benchmarks/results/floors.json`."""
    return json.loads((ROOT / "benchmarks" / "results" / "floors.json").read_text())


def training_work(run: Run, data: str) -> float:
    """FLOPs of a run's phases: steps times images times those of one image in a step."""
    per_image = floors()["networks"][run.value("model.name")]["step_flops"]
    fraction = run.value("data.validation_fraction")

    def phase(name: str) -> float:
        method = run.value(f"{name}.method")
        count, epochs = run.value(f"{name}.steps"), run.value(f"{name}.epochs")
        if not count:
            count = (balanced_steps if run.value(f"{name}.subset") == "balanced" else steps)(data, fraction, epochs)
        # Adversarial training makes the same passes with and without balanced softmax.
        return count * BATCH * per_image["at_bsl" if method == "pgd_at" else method]

    return phase("student") + (phase("teacher") if run.value("student.method") == "self_distillation" else 0.0)


def evaluation_work(run: Run, data: str) -> float:
    """FLOPs of `quick` on all test images and `standard` on the first of each class, for each network of the run.

    A guess, since it depends on how many images resist: half of them through the four attacks of `quick`, 30 % through
    AutoAttack's 1,000 steps of APGD (2 passes each), 900 of FAB (3) and 5,000 queries of Square. The sanity panel's
    attacks are about 750 passes for each image.
    """
    forward = floors()["networks"][run.value("model.name")]["forward_flops"]
    networks = 2 if run.value("student.method") == "self_distillation" else 1
    quick = QUICK_IMAGES * (2 + 0.5 * 3 * 40)
    classes = _TRAINING_CLASSES[data][0]
    standard = min(classes * run.standard, QUICK_IMAGES) * (0.3 * (2 * 1000 + 3 * 900 + 5000) + 750)
    return networks * forward * (quick + standard)


def _common(seed: int, epochs: int, teacher_epochs: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "model.dtype": "bfloat16",
        "teacher.epochs": teacher_epochs,
        "teacher.validate_every": 10,
        "student.epochs": epochs,
        "student.validate_every": 10,
        "checkpoint.minutes": 1.0,
        "eval.batch_size": 1000,
    }


def trio(seed: int, epochs: int, teacher_epochs: int, **changes: Any) -> tuple[Run, ...]:
    """Balanced teacher and self-distilled student, and AT-BSL at the student's length."""
    common = _common(seed, epochs, teacher_epochs) | changes
    return (
        Run("self_distillation", common),
        Run("at_bsl", common | {"student.method": "at_bsl"}),
    )


def controls(seed: int) -> tuple[Run, ...]:
    """What else could explain the student's gain: more passes, balanced data alone, a teacher without balanced data."""
    fraction = 0.05
    common = _common(seed, EPOCHS, TEACHER_EPOCHS)
    student, baseline = (training_work(run, "cifar10") for run in trio(seed, EPOCHS, TEACHER_EPOCHS))
    return (
        # As many passes as teacher and student together.
        Run(
            "at_bsl_matched",
            common | {"student.method": "at_bsl", "student.epochs": round(EPOCHS * student / baseline)},
        ),
        # The teacher's recipe for as many steps as the student has.
        Run(
            "balanced_pgd_at",
            common
            | {
                "student.method": "pgd_at",
                "student.subset": "balanced",
                "student.remainder": "carry",
                "student.optimizer.drops": (0.6, 0.8),
                "student.steps": steps("cifar10", fraction, EPOCHS),
            },
        ),
        # A teacher of as many steps as the balanced one, which sees all images and has AT-BSL's loss.
        Run(
            "taught_by_at_bsl",
            common
            | {
                "teacher.method": "at_bsl",
                "teacher.subset": "all",
                "teacher.steps": balanced_steps("cifar10", fraction, TEACHER_EPOCHS),
            },
        ),
    )


def _training_job(name: str, summary: str, runs: tuple[Run, ...], *, pack: str = "cifar10", memory: float = 6.0) -> Job:
    """A job with a part for each run."""

    def part(run: Run) -> Part:
        phases = 2 if run.value("student.method") == "self_distillation" else 1
        # A process, two programs for each phase, about ten for `quick` and `standard`. A guess, as long as nobody has
        # compiled them on a GPU.
        fixed = 45.0 + 20.0 * phases
        return Part(run.name, fixed, training_work(run, pack) + evaluation_work(run, pack), run)

    return Job(name, summary, "train", tuple(part(run) for run in runs), memory, packs=(pack,))


@functools.cache
def every() -> tuple[Job, ...]:
    """The queue, the most valuable job first."""
    short = f"balanced teacher, self-distilled student and AT-BSL, {EPOCHS} epochs"
    wrn = _common(0, WRN_EPOCHS, 0) | {"model.name": "wrn_34_10", "student.method": "at_bsl", "eval.batch_size": 500}
    hundred = [
        dataclasses.replace(run, config="configs/cifar100.py", standard=20) for run in trio(0, EPOCHS, TEACHER_EPOCHS)
    ]
    check = (Part("golden", 25.0), Part("repeat", 20.0), Part("batches", 7.0), Part("bfloat16", 8.0))
    speed = (
        Part("steps", 50.0),
        Part("pgd20", 10.0),
        Part("standard", 30.0),
        Part("larger", 30.0),
        Part("precision", 20.0),
        Part("profile", 10.0),
    )
    return (
        Job("check", "golden verdicts, repeated training, batch sizes, bfloat16 search", "check", check, golden=True),
        Job(
            "speed",
            "training steps, PGD-20 and standard against PyTorch; matmul peak; profile",
            "speed",
            speed,
            memory=24.0,
            golden=True,
            shares_device=True,
        ),
        *(_training_job(f"trio-seed{seed}", short, trio(seed, EPOCHS, TEACHER_EPOCHS)) for seed in SEEDS),
        *(
            _training_job(
                f"controls-seed{seed}",
                "AT-BSL with matched passes; PGD-AT on the balanced subset; a student taught by AT-BSL",
                controls(seed),
            )
            for seed in SEEDS
        ),
        *(
            _training_job(
                f"full-seed{seed}",
                "the trio at 100 epochs, without a validation part",
                trio(seed, 100, 30, **{"data.validation_fraction": 0.0}),
            )
            for seed in SEEDS
        ),
        _training_job("cifar100", f"CIFAR-100-LT, ratio 10: {short}", tuple(hundred), pack="cifar100"),
        _training_job(
            "wrn", f"WRN-34-10, AT-BSL, {WRN_EPOCHS} epochs", (Run("at_bsl", wrn, standard=50),), memory=24.0
        ),
    )


def get(name: str) -> Job:
    """The job of that name.

    Raises:
      ValueError: unknown; lists the names, the nearest one first.
    """
    names = [job.name for job in every()]
    if name not in names:
        nearest = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"job is {name!r}; {hint}Known jobs: {', '.join(names)}.")
    return next(job for job in every() if job.name == name)
