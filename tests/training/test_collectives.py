"""What a training step sends between devices: gradients once, batch norm's statistics as configured, nothing else."""

import collectives
import flops
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_phase import mesh_of, prepared

from ltrobust.compilation import hlo
from ltrobust.training import devices


# The configurations of tests in test_steps.py, so that the programs are there already.
@pytest.mark.slow
@pytest.mark.parametrize(("synchronised", "attack_steps"), [(True, 1), (False, 2)])
def test_a_step_on_several_devices_sums_gradients_and_statistics_and_nothing_else(tiny, synchronised, attack_steps):
    with tiny.unlocked():
        tiny.student.attack.steps = attack_steps
        tiny.model.sync_batch_norm = synchronised
    mesh = devices.make_mesh(jax.devices())
    assert mesh.size > 1
    given = prepared(tiny, "student", mesh, stages=2)
    program = given.compile().lower(given.state, given.inputs, given.order(0, 1), jnp.int32(1), jnp.int32(1)).compile()
    result = hlo.Program(program.as_text()).collectives()
    method, weights = given.phase.settings.method, given.state.weights
    expected = collectives.expected(
        weights.params,
        weights.batch_stats,
        method,
        metrics=4,  # label_loss, logit_loss, igdm_loss, teacher_peak
        synchronised=synchronised,
        differentiated=flops.PASSES["self_distillation"].differentiated,
    )
    assert {one.kind for one in result} == {"all-reduce"}
    # One loop is that over steps. A second one would be the attack's, where no example may wait for another.
    assert {one.depth for one in result} == {1}
    assert sum(one.numbers for one in result) == expected
    assert sum(one.bytes for one in result) == 4 * expected
    if not synchronised:
        assert len(result) == 1, "gradients, statistics and metrics are to travel together"


def test_the_expectation_counts_gradients_once_and_statistics_by_pass(tiny):
    method = prepared(tiny, "student", mesh_of(1)).phase.settings.method
    norm = {"scale": np.zeros(3), "bias": np.zeros(3)}
    params = {"stem": {"kernel": np.zeros((3, 3))}, "block": {"norm2": norm, "shortcut_norm": norm}}
    statistics = {"mean": np.zeros(7), "var": np.zeros(7)}
    scalars = 2 + 4
    count = lambda **how: collectives.expected(  # noqa: E731
        params, statistics, method, metrics=4, differentiated=2, **how
    )
    assert count(synchronised=False) == 9 + 6 + 6 - 3 + 14 + scalars
    assert count(synchronised=True) == 9 + 6 + 6 - 3 + (3 + 2) * 14 + scalars
