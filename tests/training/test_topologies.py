"""A checkpoint belongs to no number of devices: it is restored exactly on any, and training continues there."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_phase import Prepared, assert_close, mesh_of, prepared
from toy_states import EMPTY, TEMPLATE, state_at, weights

from ltrobust.training import devices
from ltrobust.training.checkpoints import Checkpoints
from ltrobust.training.state import TrainState, create_selection, select


def assert_exactly_there(restored: Any, saved: Any, count: int) -> None:
    """Equal bit for bit, and a whole copy on each of the first `count` devices."""
    jax.tree.map(np.testing.assert_array_equal, restored, jax.device_get(saved))
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.device_set == set(jax.devices()[:count])
        assert leaf.sharding.is_fully_replicated
        for shard in leaf.addressable_shards:
            np.testing.assert_array_equal(shard.data, leaf)


@pytest.mark.parametrize(("there", "here"), [(1, 4), (4, 1), (4, 2)])
def test_state_selection_and_weights_are_restored_exactly_on_other_devices(tmp_path, there, here):
    selection = select(EMPTY, weights(1), score=0.5, epoch=1)
    saved = devices.replicate((state_at(5), selection), mesh_of(there))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(*saved, {})
    template, empty = devices.replicate((TEMPLATE, EMPTY), mesh_of(here))
    with Checkpoints(tmp_path) as checkpoints:
        assert_exactly_there(checkpoints.restore(template, empty), saved, here)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        result = checkpoints.restore_weights(template.weights)
    expected = {"last": saved[0].weights, "selected": selection.weights, "averaged": saved[0].averaged}
    assert_exactly_there(result, expected, here)


@pytest.mark.slow
def test_training_goes_on_from_1_to_2_to_1_devices(tiny, tmp_path):
    # Sign gradients amplify rounding, so few attack steps and few updates are compared.
    with tiny.unlocked():
        tiny.student.attack.steps = 1
    on = {count: prepared(tiny, "student", mesh_of(count)) for count in (1, 2)}
    chunks = {count: given.compile() for count, given in on.items()}
    template = jax.device_get(on[1].state)
    alone, chain = tmp_path / "alone", tmp_path / "chain"
    saved = None
    for first, count in enumerate((1, 2, 1)):
        expected, _ = advance(on[1], chunks[1], template, alone, first)
        state, restored = advance(on[count], chunks[count], template, chain, first)
        if saved is not None:
            assert_exactly_there(restored, saved, count)
        saved = jax.device_get(state)
        assert int(saved.step) == first + 1
        assert_close(expected.weights, saved.weights, 2e-4)
        assert_close(expected.sums, saved.sums, 2e-3)


def advance(
    given: Prepared, chunk: Any, template: Any, folder: pathlib.Path, done: int
) -> tuple[TrainState, TrainState]:
    """Restores the checkpoint of step `done`, trains one step, and saves: the state after, and as restored."""
    state, selection = devices.replicate((template, create_selection(template.weights)), given.mesh)
    with Checkpoints(folder) as checkpoints:
        if done:
            state, selection = checkpoints.restore(state, selection)
        restored = jax.tree.map(jnp.copy, state)  # the step takes the state's buffers
        state = chunk(state, given.inputs, given.order(done, 1), jnp.int32(1), jnp.int32(1))
        checkpoints.save(state, selection, {})
    return state, restored
