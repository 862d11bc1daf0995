"""Class numbers are names in training, too: other numbers give the same network with its outputs in another order.

For AT-BSL, which reads the class counts in its loss. What is not the same under other numbers, by design: which
images a long-tailed subset has, because the profile descends with the class number and one generator runs through the
classes (`longtail.choose`); a phase is therefore compared on one list of images.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training

from ltrobust.training import steps

ORDER = np.random.RandomState(0).permutation(10)  # new class k is old class ORDER[k]
UPDATES = 3


def prepared() -> training.Training:
    # An attack in l2, whose step is a smooth function of the gradient: a sign turns rounding into a whole step.
    config = training.configuration(
        "small_resnet",
        "at_bsl",
        64,
        model__width=4,
        threat__norm="l2",
        threat__radius=64,
        student__attack__steps=1,
        student__attack__step_size=64,
        student__augmentation__policy="none",
    )
    return training.prepare(config, steps_at_once=UPDATES)


def renamed(run: training.Training) -> training.Training:
    """The same run where every class has its new number."""
    labels = np.argsort(ORDER)[np.asarray(run.inputs.data.labels)].astype(np.int32)
    data = dataclasses.replace(run.inputs.data, labels=jnp.asarray(labels))
    inputs = dataclasses.replace(run.inputs, data=data, class_counts=run.inputs.class_counts[ORDER])
    return dataclasses.replace(run, inputs=inputs, state=jax.tree_util.tree_map_with_path(reordered, run.state))


def reordered(path, leaf):
    """The last layer's arrays with their outputs in the new order; every other array as it is."""
    return leaf[..., ORDER] if "linear" in jax.tree_util.keystr(path) else leaf


@pytest.mark.slow
def test_other_numbers_of_classes_reorder_the_outputs_and_change_nothing_else():
    run, other = prepared(), renamed(prepared())
    program = steps.compile_chunk(run.phase.settings, run.mesh).lower(
        run.state, run.inputs, run.order, jnp.int32(1), jnp.int32(1)
    )
    started, program = jax.device_get(run.state.weights.params), program.compile()
    run.run(program, UPDATES)
    other.run(program, UPDATES)
    expected = jax.tree_util.tree_map_with_path(reordered, run.state)
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(other.state), strict=True
    ):
        np.testing.assert_allclose(theirs, ours, atol=2e-5, rtol=1e-5, err_msg=jax.tree_util.keystr(path))
    moved = jax.tree.map(lambda new, old: float(jnp.abs(new - old).max()), run.state.weights.params, started)
    assert max(jax.tree.leaves(moved)) > 0.05
