"""Complete runs: data, teacher, student, evaluation, card. Called by the commands and `ltrobust.train`.

Each function first turns its configuration into a plan.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from ltrobust import models, recipes
from ltrobust.analysis import card_parts, cards
from ltrobust.analysis.schema.card import Card, Files, ModelRecord, ThreatRecord
from ltrobust.data import overlap, run_data, sources
from ltrobust.data.run_data import DataPlan, RunData, first_of_each_class
from ltrobust.plan import RunPlan, make_plan
from ltrobust.report import tables
from ltrobust.runtime import ambient, processes, typed_json
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import Preempted, Preemption
from ltrobust.runtime.workdir import PHASES
from ltrobust.training import compatibility, devices, networks, saved, teacher_student
from ltrobust.training.checkpoints import Checkpoints, folder_in
from ltrobust.training.networks import Network
from ltrobust.training.teacher_student import Trained


@dataclasses.dataclass(frozen=True)
class TestSet:
    """Data shared by the evaluations of one command.

    Attributes:
      split: the test images, all of them.
      overlaps: `eval.limit` -> what the images that it leaves share with those that were trained and validated on.
    """

    split: sources.Split
    overlaps: Callable[[int], overlap.Overlap]


def train(config: ConfigDict, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Path:
    """Trains what is not trained yet, evaluates every network and writes the card. Returns the card's path.

    The evaluations of `eval.also` come first and have separate cards, so the newest card is that of the main one.

    With several processes all of them call it; the first one writes. The same call in the same workdir resumes where it
    stopped. `adopt` makes a folder with files of others in it a workdir (`workdir.enter`).

    Raises:
      ValueError: an unknown key, or a setting that makes no sense; everything that can be known before training is
        checked before. Or another process is at work in the workdir, or the folder is no workdir.
      Preempted: `preemption` was asked to stop.
    """
    began, plan = time.monotonic(), _make_plan(config, workdir)
    with _training(plan, preemption, adopt) as trained:
        test = open_test(plan.data, trained.run_data)
        for also in plan.also:
            name = also.evaluation.protocol.name
            if also.threat != plan.threat:
                name += f"-{also.threat.norm}{also.threat.radius:g}"
            write_card(also, also.recorded, name, trained, time.monotonic(), test)
        return write_card(plan, plan.recorded, plan.evaluation.protocol.name, trained, began, test)


def fit(config: ConfigDict, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Trained:
    """As `train`, without the evaluation: no test image is read.

    Raises:
      ValueError, Preempted: as `train`.
    """
    with _training(_make_plan(config, workdir), preemption, adopt) as trained:
        return trained


def report(config: ConfigDict, workdir: Path, name: str, trained: Trained, began: float) -> Path:
    """Evaluates trained networks under the configuration's `eval` and writes the card `name`. Returns its path."""
    plan = make_plan(config, workdir, training=False)
    return write_card(plan, plan.recorded, name, trained, began)


def evaluate(config: ConfigDict, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Path:
    """Restores a checkpoint on the available devices, evaluates all of its weights and writes a card.

    The workdir may be another one than the checkpoint's. `adopt` is as in `train`.

    Raises:
      ValueError: the checkpoint was made with another model or other data (lists the differences). Another threat is
        allowed: it is the evaluation's.
      FileNotFoundError: there is no such checkpoint.
    """
    del preemption  # verdicts are on disk as they come: a request to stop needs no waiting
    began, plan = time.monotonic(), _make_plan(config, workdir, training=False)
    mesh = devices.make_mesh()
    with processes.all_or_none():
        folder = _find_checkpoints(plan)
        data = load_run_data(plan.data)
    compatibility.same_start(plan.recorded, data)
    wanted = plan.evaluation.checkpoint if plan.evaluation.checkpoint in PHASES else ""
    with Checkpoints(folder, read_only=True) as checkpoints:
        there = saved.read(checkpoints, wanted)
        metadata = there.metadata
        compatibility.same_network(metadata, plan.recorded, folder)
        compatibility.same_images(metadata, data, folder)
        module = there.create(platform=devices.platform(mesh))
        restored = saved.restore(checkpoints, module, data.image_shape, mesh)
    here = plan.recorded
    settings = {**metadata.config, "eval": here["eval"], "threat": here["threat"]}
    with processes.all_or_none():
        if processes.first():
            compatibility.same_workdir(workdir, metadata, folder)
            places = {group: here[group] for group in ("data", "checkpoint")}
            workdirs.enter(workdir, settings | places, adopt=adopt)
    result = {
        f"{there.phase}/{name}": Network(weights, there.method.head, there.rule) for name, weights in restored.items()
    }
    training = card_parts.describe_training(metadata.plain())
    if there.step < metadata.steps:
        logging.warning("%s: training has not ended: step %d of %d.", folder, there.step, metadata.steps)
        training = dataclasses.replace(training, evaluated_step=there.step)
    trained = Trained(result, {there.phase: training}, data, mesh)
    return write_card(plan, settings, f"{plan.evaluation.protocol.name}-{there.phase}", trained, began)


def load_run_data(plan: DataPlan) -> RunData:
    """The training and validation parts; prints where they come from."""
    return run_data.load(plan, show_source)


def show_source(source: sources.Split) -> None:
    """Prints how many images there are, where they come from and what was skipped (process 0)."""
    if source.origin and processes.first():
        images, classes = len(source.labels), source.num_classes
        print(f"{source.split} of {source.name}: {images:,} images in {classes} classes; {source.origin}")
        if source.files:
            print(tables.render_files(typed_json.parse(Files, source.files), source.class_names), flush=True)


def open_test(plan: DataPlan, run_data: RunData) -> TestSet:
    """The test set; prints where it comes from. All processes call it."""
    with processes.all_or_none():
        test = plan.open("test")
    show_source(test)
    processes.check_same({"test set": test.fingerprint}, compatibility.SAME_DATA)

    @functools.cache
    def overlaps(limit: int) -> overlap.Overlap:
        return card_parts.find_overlaps(run_data, test, first_of_each_class(test.labels, limit))

    return TestSet(test, overlaps)


def write_card(
    plan: RunPlan,
    settings: Mapping[str, Any],
    name: str,
    trained: Trained,
    began: float,
    test_set: TestSet | None = None,
) -> Path:
    """Evaluates every network on the test set, writes the card and prints its tables (process 0).

    Args:
      plan: of the evaluation.
      settings: what the card says: the training's configuration with this evaluation's settings, as plain values.
      name: of the card.
      trained: the networks, and how they were trained.
      began: when the work began, by `time.monotonic`.
      test_set: what `open_test` returned, where a command writes several cards; None opens it.
    """
    data, mesh = trained.run_data, trained.mesh
    test_set = test_set or open_test(plan.data, data)
    test = test_set.split
    ids = first_of_each_class(test.labels, plan.evaluation.limit)
    overlaps = test_set.overlaps(plan.evaluation.limit) if processes.first() else None
    results = networks.evaluate(plan, data, trained.networks, test, ids, mesh)
    if overlaps is None:  # another process writes
        return processes.share(None)
    parameters = models.count_parameters(next(iter(trained.networks.values())).weights.params)
    card = Card(
        created=cards.now(),
        command=cards.command(),
        software=cards.software(),
        config=cards.describe_config(settings),
        model=ModelRecord(plan.model.name, parameters),
        data=card_parts.describe_data(plan.data, data, test, ids, overlaps),
        threat=ThreatRecord(**dataclasses.asdict(plan.threat), epsilon=plan.threat.epsilon),
        protocol=card_parts.describe_protocol(plan.evaluation.protocol, plan.evaluation.seed, data.num_classes),
        selection_rule=card_parts.describe_selection(trained.networks, data),
        training=trained.training,
        numerics=card_parts.describe_numerics(plan.model.dtype, mesh),
        networks=results,
        seconds=round(time.monotonic() - began, 1),
    )
    path = cards.write(plan.workdir / "results", name, card)
    last = "student/last" if "student/last" in results else next(iter(results))
    print(f"\n{tables.render(card)}\n\n{tables.render_classes(card, last)}\n\ncard: {path}")
    return processes.share(path)


def _make_plan(config: ConfigDict, workdir: Path, *, training: bool = True) -> RunPlan:
    """The plan, once JAX's settings and the keys are known to be sound. A mistake in one process is raised in all."""
    with processes.all_or_none():
        ambient.check()
        workdirs.check_values(config)
        recipes.check_keys(config)  # an unlocked configuration takes every key, which would be ignored
        return make_plan(config, workdir, training=training)


@contextlib.contextmanager
def _training(plan: RunPlan, preemption: Preemption | None, adopt: bool) -> Iterator[Trained]:
    """Trains every phase; the workdir stays locked until the body ends."""
    mesh, folder = devices.make_mesh(), plan.checkpoints.folder
    memory = devices.memory(mesh)
    with processes.all_or_none():
        data = load_run_data(plan.data)
        phases = teacher_student.make_phases(plan, data, mesh, memory)
    ready = teacher_student.prepare(plan, data, mesh, phases)
    with contextlib.ExitStack() as held:
        with processes.all_or_none():
            if processes.first():
                workdirs.claim(plan.workdir, plan.recorded, adopt=adopt)
                held.enter_context(hold(plan.workdir))
            compatibility.teacher_is_there(folder, list(phases))
            compatibility.checkpoints_are_there(plan.workdir, folder, list(phases))
        preemption = preemption or Preemption()
        # One process alone may stop where it is; several have to agree first.
        with preemption.waiting() if processes.several() else contextlib.nullcontext():
            trained = teacher_student.train(ready, preemption)
            if processes.several() and any(processes.gather(preemption.requested)):
                raise Preempted("stopped after training; the same command resumes from there.")
        yield trained


def _find_checkpoints(plan: RunPlan) -> epath.Path:
    """The folder of a phase's checkpoints, from `student`, `teacher`, a workdir or such a folder."""
    wanted = plan.evaluation.checkpoint
    path = plan.checkpoints.folder / wanted if wanted in PHASES else epath.Path(wanted)
    folder = folder_in(path)
    if folder is not None:
        return folder
    raise FileNotFoundError(
        f"eval.checkpoint is {wanted!r}, but there is no folder {path}; give student, teacher, a workdir, or a folder "
        "of checkpoints, and --workdir=DIR where the run is not in the default one."
    )
