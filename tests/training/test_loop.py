"""The loop of a phase alone: a made-up step that only counts, and services one at a time or none."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest
from one_phase import NETWORK, mesh_of, phase_with
from toy_methods import class_wise

from ltrobust.data import batches
from ltrobust.runtime.preemption import Preempted, Preemption
from ltrobust.training import loop
from ltrobust.training.state import Selection, TrainState


@pytest.fixture
def phase(tiny):
    """`(phase, run_data)` of 14 steps in 2 epochs."""
    with tiny.unlocked():
        tiny.student.method = "pgd_at"
        tiny.student.attack.steps = 1
    run_data = planned.load_run_data(tiny)
    return phase_with(planned.make_phase(tiny, "student", run_data, mesh_of(1)), module=NETWORK), run_data


class CountingSteps:
    """In place of the compiled steps: counts, and remembers the steps, epochs and rows that it was given."""

    def __init__(self, bad_step: int = -1):
        self.bad_step = bad_step
        self.calls: list[tuple[int, int, int]] = []
        self.rows: list[np.ndarray] = []

    def __call__(self, settings: Any, mesh: Any) -> Any:
        return self.chunk

    def chunk(self, state: TrainState, inputs: Any, order: Any, count: Any, epoch: Any) -> TrainState:
        self.calls.append((int(state.step), int(count), int(epoch)))
        self.rows.extend(np.asarray(order)[: int(count)])
        sums = {**state.sums, "examples": state.sums["examples"] + jnp.float32(count)}
        bad = jnp.int32(self.bad_step if 0 <= self.bad_step < int(state.step + count) else -1)
        return dataclasses.replace(state, step=state.step + count, sums=sums, bad_step=bad)


@dataclasses.dataclass
class Memory:
    """Checkpoints that are kept in a list, with the records before them."""

    events: list[str] = dataclasses.field(default_factory=list)
    saved: tuple[TrainState, Selection] | None = None

    def latest(self) -> int | None:
        return None if self.saved is None else int(self.saved[0].step)

    def save(self, state: TrainState, selection: Selection, metadata: Any) -> None:
        self.events.append(f"saved {int(state.step)} {metadata}")
        self.saved = jax.tree.map(jnp.copy, (state, selection))

    def restore(self, state: TrainState, selection: Selection) -> tuple[TrainState, Selection]:
        assert self.saved is not None
        return self.saved

    def wait(self) -> None:
        self.events.append("waited")


def test_a_phase_trains_with_nothing_but_images_and_devices(phase):
    phase, run_data = phase
    state, selection = loop.run_phase(phase, run_data, mesh=mesh_of(1))
    assert int(state.step) == phase.total_steps == 14
    assert int(selection.epoch) == 0
    # The selection still holds the first weights.
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), state.weights.params, selection.weights.params)
    assert 0 < max(jax.tree.leaves(moved)) < np.inf


@pytest.mark.parametrize("capacity", [1, 3, 1024])
def test_stretches_end_with_their_epoch_and_visit_every_row_in_order(phase, capacity):
    (phase, run_data), steps = phase, CountingSteps()
    loop.run_phase(phase, run_data, mesh=mesh_of(1), compile_chunk=steps, capacity=capacity)
    ends = [first + count for first, count, _ in steps.calls]
    assert [first for first, _, _ in steps.calls] == [0, *ends[:-1]]
    assert max(count for _, count, _ in steps.calls) == min(capacity, 7)
    assert [epoch for first, _, epoch in steps.calls] == [first // 7 + 1 for first, _, _ in steps.calls]
    assert {7, 14} <= set(ends)
    whole = batches.order(phase.schedule, phase.order_key, 0, phase.total_steps, phase.examples_of)
    np.testing.assert_array_equal(steps.rows, whole)


def test_an_epoch_is_recorded_before_its_checkpoint_and_the_last_one_is_waited_for(phase):
    (phase, run_data), memory = phase, Memory()
    services = loop.Services(
        memory,  # pyright: ignore[reportArgumentType]
        checkpoint_minutes=0.0,
        metadata={"of": "test"},
        record=lambda record: memory.events.append(f"recorded {record['epoch']}"),
    )
    loop.run_phase(phase, run_data, mesh=mesh_of(1), services=services, compile_chunk=CountingSteps(), capacity=2)
    expected = []
    for step in (1, 2, 4, 6, 7, 9, 11, 13, 14):
        expected += [f"recorded {step // 7}"] * (step % 7 == 0) + [f"saved {step} {{'of': 'test'}}"]
    assert memory.events == [*expected, "waited"]
    # Where the newest checkpoint is that of the last step, no step is asked for.
    again = loop.run_phase(phase, run_data, mesh=mesh_of(1), services=services, compile_chunk=None)
    assert int(again[0].step) == 14


def test_between_checkpoints_nothing_is_saved(phase):
    (phase, run_data), memory = phase, Memory()
    loop.run_phase(phase, run_data, mesh=mesh_of(1), services=loop.Services(memory), compile_chunk=CountingSteps())
    assert memory.events == ["saved 14 {}", "waited"]


def test_a_request_to_stop_is_followed_after_the_chunk(phase):
    (phase, run_data), memory, steps = phase, Memory(), CountingSteps()
    preemption = Preemption()
    preemption.requested = "SIGTERM"
    run = lambda **services: loop.run_phase(  # noqa: E731
        phase, run_data, mesh=mesh_of(1), services=loop.Services(**services), compile_chunk=steps
    )
    message = "stopped by SIGTERM: student saved at step 1 of 14; the same command continues"
    with pytest.raises(Preempted, match=message):
        run(checkpoints=memory, preemption=preemption)
    assert memory.events == ["saved 1 {}", "waited"]
    with pytest.raises(Preempted, match=r"stopped by SIGTERM: student ends at step 1 of 14, and has no checkpoints"):
        run(preemption=preemption)
    # It resumes from what it saved.
    assert int(run(checkpoints=memory)[0].step) == 14
    assert [first for first, _, _ in steps.calls][:3] == [0, 0, 1]


def test_a_step_that_is_not_finite_ends_the_phase_also_without_checkpoints(phase):
    phase, run_data = phase
    with pytest.raises(FloatingPointError, match=r"not finite at step 8 of 14 \(epoch 2\); nothing was saved yet"):
        loop.run_phase(phase, run_data, mesh=mesh_of(1), compile_chunk=CountingSteps(bad_step=8))


def test_a_method_that_learns_from_validation_needs_an_evaluator(phase):
    phase, run_data = phase
    phase = phase_with(phase, method=class_wise(phase.settings.method))
    with pytest.raises(ValueError, match="method 'pgd_at' learns from validation; give the phase an evaluator"):
        loop.run_phase(phase, run_data, mesh=mesh_of(1), compile_chunk=CountingSteps())


def test_an_error_of_the_device_that_is_no_lack_of_memory_is_passed_on(phase):
    def failing(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device fell off the bus")

    phase, run_data = phase
    with pytest.raises(jax.errors.JaxRuntimeError, match="fell off the bus"):
        loop.run_phase(phase, run_data, mesh=mesh_of(1), compile_chunk=lambda settings, mesh: failing)
