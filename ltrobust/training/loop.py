"""The training loop: chunks of steps, validation, selection, records, checkpoints. Independent of the method."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltrobust.analysis import metrics
from ltrobust.analysis.evaluation import Evaluation
from ltrobust.data import batches
from ltrobust.data.run_data import RunData
from ltrobust.evaluation.drive import out_of_memory
from ltrobust.evaluator import Evaluator
from ltrobust.methods import Learner, Method, Teacher, make_batch
from ltrobust.runtime import processes
from ltrobust.runtime.preemption import Preempted, Preemption
from ltrobust.training import feeds, placement, steps
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.phases import Phase
from ltrobust.training.progress import Dispatches
from ltrobust.training.state import Selection, TrainState, Weights, select

# Most steps in one chunk: the rows of the order array that the compiled program takes.
CAPACITY = 1024


@dataclasses.dataclass(frozen=True)
class Services:
    """What a phase uses beside what it computes with. A service that is left out is not used.

    Attributes:
      checkpoints: where training saves its state, and from whose newest checkpoint it resumes.
      checkpoint_minutes: time between checkpoints; the last step has one in any case.
      metadata: JSON values that go into every checkpoint.
      evaluator: validation's, `(Weights, images, labels) -> Evaluation`. Nothing is selected without it.
      record: called with the record of each epoch, before the checkpoint of that epoch.
      preemption: asked after each chunk of steps.
      workers: processes that decode images in files, see `loader.read`.
    """

    checkpoints: Checkpoints | None = None
    checkpoint_minutes: float = 10.0
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    evaluator: Evaluator | None = None
    record: Callable[[Mapping[str, Any]], None] = lambda record: None
    preemption: Preemption = dataclasses.field(default_factory=Preemption)
    workers: int = 0


def run_phase(
    phase: Phase,
    run_data: RunData,
    *,
    mesh: Mesh,
    teachers: Mapping[str, Teacher] = MappingProxyType({}),
    initial: Weights | None = None,
    services: Services | None = None,
    compile_chunk: Callable[[steps.StepSettings, Mesh], Callable[..., TrainState]] = steps.compile_chunk,
    capacity: int = CAPACITY,
) -> tuple[TrainState, Selection]:
    """Trains one phase to its end, from the newest checkpoint if there is one.

    Args:
      teachers: frozen networks by the names that the method asks for.
      initial: weights to start from, or None to draw them.
      services: checkpoints, validation, records and requests to stop; None uses none of them.
      compile_chunk: makes the program of several steps, see `steps.compile_chunk`. Tests give another one.
      capacity: most steps in one chunk; fewer where its images are sent from the host. It changes no result.

    Returns:
      The last state and the selection. A finished phase returns at once.

    Raises:
      ValueError: the method learns from validation, and there is no evaluator.
      FloatingPointError: a non-finite loss or update; names the step and the last good checkpoint.
      OSError: the last checkpoint could not be written. An earlier failure is reported, and the next save replaces it.
      MemoryError: a step does not fit on the devices; names what makes it smaller.
      images.UnreadableImage, MemoryError, OSError: images cannot be read on the host (see `loader.read`).
      Preempted: the run was asked to stop; a checkpoint has been written.
    """
    services = services or Services()
    if phase.settings.method.end_epoch is not None and services.evaluator is None:
        raise ValueError(f"method {phase.settings.method.name!r} learns from validation; give the phase an evaluator.")
    with contextlib.ExitStack() as held:
        with _advice_on_memory(phase, mesh):
            feed = held.enter_context(feeds.open_feed(phase, run_data, mesh, teachers, capacity, services.workers))
            state, selection = placement.first_state(phase, feed.inputs, mesh, initial)
        if services.checkpoints is not None and services.checkpoints.latest() is not None:
            state, selection = services.checkpoints.restore(state, selection)
        # A phase that is finished is never trained again, whatever else has changed since.
        if int(state.step) < phase.total_steps:
            chunk = compile_chunk(phase.settings, mesh)
            state, selection = _train(phase, run_data, mesh, feed, chunk, state, selection, services)
    return state, selection


def _train(
    phase: Phase,
    run_data: RunData,
    mesh: Mesh,
    feed: feeds.Feed,
    chunk: Callable[..., TrainState],
    state: TrainState,
    selection: Selection,
    services: Services,
) -> tuple[TrainState, Selection]:
    """Trains from this state to the end of the phase; see `run_phase`."""
    checkpoints, preemption = services.checkpoints, services.preemption
    # One step first, because that call also compiles; the following chunks are sized to last about two seconds.
    longest, saved = 1, time.monotonic()
    epoch_began = saved
    with (
        preemption.waiting(),
        Dispatches(
            phase.name,
            phase.total_steps,
            int(state.step),
            phase.schedule.batch_size,
            silent=not processes.first(),
        ) as progress,
    ):
        while (done := int(state.step)) < phase.total_steps:
            # A chunk never crosses the end of an epoch: validation and records belong to the state at that step.
            epoch, count, ends_epoch = phase.chunk(done, min(longest, feed.capacity))
            with progress.dispatch(count), _advice_on_memory(phase, mesh):
                # The examples of any chunk follow from its first step alone, so a resumed run sees the same batches.
                # A file that one process cannot read ends all, which would wait for it in the chunk.
                with processes.all_or_none():
                    inputs, order = feed.take(done, count)
                state = chunk(state, inputs, order, jnp.int32(count), jnp.int32(epoch + 1))
                bad_step = int(state.bad_step)  # waits until the chunk is done
            # Checked before anything is saved: no checkpoint holds weights that are not finite.
            if bad_step >= 0:
                raise FloatingPointError(_describe_bad_step(phase, bad_step, checkpoints))
            if ends_epoch:
                state, selection, record = _end_epoch(
                    phase, state, selection, inputs, epoch + 1, run_data, services.evaluator
                )
                # The record comes before the checkpoint of its epoch. If the run is killed in between, the epoch is
                # recorded twice with the same numbers; the other order could leave an epoch without a record.
                services.record({**record, "seconds": round(time.monotonic() - epoch_began, 3)})
                progress.end_epoch(f"epoch {epoch + 1}, {_one_line(record)}")
                epoch_began = time.monotonic()
            due = time.monotonic() - saved >= 60 * services.checkpoint_minutes
            # Clocks and signals differ between processes, and all of them must take the same next step.
            longest, due, request = _agree(progress.longest, due, preemption.requested)
            if checkpoints is not None and (done + count == phase.total_steps or due):
                checkpoints.save(state, selection, services.metadata)
                saved = time.monotonic()
            if request:
                _save_and_stop(phase, state, selection, services, request)
    if checkpoints is not None:
        checkpoints.wait()
    return state, selection


def _agree(longest: int, due: bool, request: str | None) -> tuple[int, bool, str | None]:
    """The length of the next chunk and whether to save, by process 0's clock; a request in any process."""
    # Clocks and signals differ between processes, and all must dispatch the same steps.
    every = processes.gather((longest, due, request))
    requests = [f"{result} in process {number}" for number, (_, _, result) in enumerate(every) if result]
    if len(every) == 1:
        return longest, due, request
    return every[0][0], every[0][1], requests[0] if requests else None


@contextlib.contextmanager
def _advice_on_memory(phase: Phase, mesh: Mesh) -> Iterator[None]:
    """Adds remedies to an out-of-memory error. The batch size belongs to the recipe, so it is not halved."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"{phase.name}: a step does not fit into the memory of {mesh.size} device(s). Use more devices or, in a "
            f"new workdir, {''.join(f'{setting}, ' for setting in phase.remedies)}or a lower {phase.name}.batch_size "
            f"({phase.schedule.batch_size})."
        ) from error


def _save_and_stop(phase: Phase, state: TrainState, selection: Selection, services: Services, request: str) -> NoReturn:
    """Writes a checkpoint of the current step, waits for it, and raises."""
    where = f"step {int(state.step)} of {phase.total_steps}"
    if services.checkpoints is None:
        raise Preempted(f"stopped by {request}: {phase.name} ends at {where}, and has no checkpoints to save it to.")
    services.checkpoints.save(state, selection, services.metadata)
    # The process ends next, so the checkpoint must be on disk.
    services.checkpoints.wait()
    raise Preempted(f"stopped by {request}: {phase.name} saved at {where}; the same command continues from there.")


def _end_epoch(
    phase: Phase,
    state: TrainState,
    selection: Selection,
    inputs: steps.Inputs,
    epoch: int,
    run_data: RunData,
    evaluator: Evaluator | None,
) -> tuple[TrainState, Selection, dict[str, Any]]:
    """Validates, selects, lets the method update its state, and empties the sums. `epoch` counts from 1."""
    method = phase.settings.method
    sums = {name: float(value) for name, value in jax.device_get(state.sums).items()}
    step = int(state.step)
    record: dict[str, Any] = {
        "phase": phase.name,
        "epoch": epoch,
        "step": step,
        "learning_rate": float(np.asarray(phase.learning_rate(step - 1))),
        "train": {name: value / sums["examples"] for name, value in sums.items() if name != "examples"},
    }
    due = epoch % phase.validate_every == 0 or step == phase.total_steps or method.end_epoch is not None
    if due and evaluator is not None and len(run_data.validation.labels):
        evaluation = evaluator(state.weights, run_data.validation.images, run_data.validation.labels)
        record["validation"] = _views(evaluation, run_data.class_counts)
        if phase.selects:
            # From the validation part only; the test set is not known here. Balanced, so that a frequent class does not
            # decide.
            score = record["validation"]["pgd20"]["balanced"]
            selection = select(selection, state.weights, score=score, epoch=epoch)
        record["selected_epoch"] = int(selection.epoch)
        if method.end_epoch is not None:
            learner = steps.make_learner(state.weights, state.method_state, inputs, jnp.int32(epoch), phase.settings)
            observed = _observe(method, learner, run_data) | {
                "clean": evaluation.counts("clean").accuracy,
                "robust": evaluation.counts("pgd20").accuracy,
            }
            method_state = method.end_epoch(learner, observed)  # pyright: ignore
            # Back to the devices with the sharding of the rest of the state: it goes into the next step and the
            # checkpoint.
            method_state = processes.put(method_state, state.step.sharding)
            state = dataclasses.replace(state, method_state=method_state)  # pyright: ignore
            if method.averaging is not None:
                averaged = steps.average(state.averaged, state.weights, float(method.averaging(method_state)))
                state = dataclasses.replace(state, averaged=averaged)  # pyright: ignore
    # After the record, and before the next checkpoint: a resumed run starts the epoch with the same sums.
    state = dataclasses.replace(state, sums=jax.tree.map(jnp.zeros_like, state.sums))  # pyright: ignore
    return state, selection, record


def _observe(method: Method, learner: Learner, run_data: RunData) -> dict[str, np.ndarray]:
    """Class means [C] over the validation part of what the method's `observe` returns per example."""
    if method.observe is None:
        return {}
    labels, values = run_data.validation.labels, {}
    observe = _compile_observe(method)
    for chunk in batches.chunks(np.arange(len(labels)), min(len(labels), 128)):
        images = batches.to_unit(run_data.validation.images[chunk.rows])
        # The same starts in every epoch, so that differences between epochs come from the weights.
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(0), row))(jnp.asarray(chunk.rows))
        chunk_labels = jnp.asarray(labels[chunk.rows], jnp.int32)
        for name, value in jax.device_get(observe(learner, jnp.asarray(images), chunk_labels, keys)).items():
            values.setdefault(name, []).append(value[: chunk.valid])
    totals = metrics.count(np.ones(len(labels), bool), labels, run_data.num_classes).total
    with np.errstate(invalid="ignore"):
        return {
            name: np.bincount(labels, np.concatenate(parts), run_data.num_classes) / totals
            for name, parts in values.items()
        }


@functools.cache
def _compile_observe(method: Method) -> Callable[..., dict[str, jax.Array]]:
    """`(learner, images, labels, keys) -> what the method's observe returns`, compiled once a process."""
    return jax.jit(lambda learner, *examples: method.observe(learner, make_batch(method, learner, *examples)))  # pyright: ignore


def _views(evaluation: Evaluation, class_counts: np.ndarray) -> dict[str, Any]:
    """Plain numbers of a validation for the record: overall, balanced, tail and per class."""
    result = {}
    for column in evaluation.columns:
        views = metrics.views(evaluation.counts(column), class_counts)
        result[column] = {name: views[name]["value"] for name in ("overall", "balanced", "tail_third")}
        result[column]["per_class"] = [estimate["value"] for estimate in views["per_class"]]
    return result


def _one_line(record: Mapping[str, Any]) -> str:
    """The end of the progress line: loss, and the validation part's accuracies (balanced)."""
    line = f"loss {record['train']['loss']:.3f}"
    if "validation" in record:
        clean, robust = (record["validation"][column] for column in ("clean", "pgd20"))
        accuracies = clean["balanced"], robust["balanced"], robust["tail_third"]
        clean, robust, tail = (f"{100 * accuracy:.1f} %" for accuracy in accuracies)
        line += f", val clean {clean}, PGD-20 {robust}, tail {tail}"
    return line


def _describe_bad_step(phase: Phase, bad_step: int, checkpoints: Checkpoints | None) -> str:
    """Message for a non-finite step: where it happened, the last good checkpoint, and what to try."""
    where = "nothing was saved yet"
    if checkpoints is not None:
        checkpoints.settle()
        if (good := checkpoints.latest()) is not None:
            where = f"the last good checkpoint is {checkpoints.folder / str(good)}"
    return (
        f"{phase.name}: loss or update is not finite at step {bad_step} of {phase.total_steps} "
        f"(epoch {phase.schedule.epoch_of(bad_step) + 1}); {where}. "
        f"Lower {phase.name}.optimizer.learning_rate, or add {phase.name}.optimizer.warmup_epochs, in a new workdir."
    )
