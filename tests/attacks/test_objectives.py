"""Objectives against values worked out by hand and in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.attacks import objectives

CLEAN = jnp.array([[2.0, 1.0, 0.0]])
ADV = jnp.array([[0.5, 1.5, 0.0]])
COUNTS = jnp.array([100.0, 30.0, 10.0])
FIRST, LAST = jnp.array([0]), jnp.array([2])
# Sorted: 7, 3, 1, 0, -1.
FIVE = jnp.array([[3.0, 1.0, 0.0, -1.0, 7.0]])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (objectives.cross_entropy(CLEAN, FIRST), 0.407606),
        (objectives.cross_entropy(ADV, FIRST), 1.464369),
        (objectives.balanced_softmax(ADV, FIRST, COUNTS), 0.629215),
        (objectives.balanced_softmax(ADV, LAST, COUNTS), 3.431800),
        (objectives.kl_divergence(CLEAN, ADV), 0.432260),
        (objectives.tempered_difference(ADV, FIRST, 1.0), 1.201413),
        (jax.nn.softplus(objectives.tempered_difference(ADV, FIRST, 1.0)), 1.464369),
        (objectives.tempered_difference(ADV, FIRST, 5.0), 5.000553),
        (objectives.true_margin(ADV, FIRST), -1.0),
        (objectives.margin(ADV, FIRST, 50.0), -49.0),
        (objectives.margin(ADV, FIRST, 0.0), 0.0),
        (objectives.margin(CLEAN, FIRST, 0.0), -1.0),
        (objectives.dlr(FIVE, FIRST), 4 / 6),
        (objectives.dlr(FIVE, jnp.array([4])), -4 / 6),
        (objectives.targeted_dlr(FIVE, jnp.array([1]), FIRST), 2 / 6.5),
        (objectives.targeted_dlr(FIVE, jnp.array([4]), jnp.array([3])), -8 / 6.5),
        (objectives.difference(FIVE, jnp.array([1]), FIRST), 2),
    ],
)
def test_toy_vector(value, expected):
    assert value.shape == (1,)
    np.testing.assert_allclose(value[0], expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 5, 50])
def test_temperatures_gradient_has_the_direction_of_scaled_cross_entropy_in_float64(scale):
    # In float32, 1 - p_y is 0 beyond a scaled margin of about 17, and the rivals' part beyond about 100.
    draws = np.random.RandomState(0)
    values, labels = draws.uniform(-20, 20, (300, 4)).astype(np.float32), draws.randint(0, 4, 300)
    rivals = scale * (values.astype(float) - values[np.arange(300), labels][:, None])
    rivals[np.arange(300), labels] = -np.inf
    expected = np.exp(rivals - rivals.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    expected[np.arange(300), labels] = -1.0  # CE's gradient over 1 - p_y
    result = jax.grad(lambda z: jnp.sum(objectives.tempered_difference(z, jnp.asarray(labels), float(scale))))(values)
    np.testing.assert_allclose(result / scale, expected, atol=1e-3)


def test_margin_masks_the_true_class_also_when_every_other_logit_is_negative():
    assert float(objectives.true_margin(jnp.array([[1.0, -5.0, -7.0]]), FIRST)[0]) == 6.0


logits = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3)


@given(logits, logits, st.floats(-30, 30, width=32))
def test_kl_is_not_negative_zero_at_equality_and_blind_to_a_constant(first, second, constant):
    first, second = jnp.array([first]), jnp.array([second])
    assert float(objectives.kl_divergence(first, second)[0]) >= -1e-5
    assert abs(float(objectives.kl_divergence(first, first)[0])) < 1e-5
    moved = objectives.kl_divergence(first + constant, second - constant)
    np.testing.assert_allclose(moved, objectives.kl_divergence(first, second), rtol=1e-3, atol=1e-3)


@given(logits, st.integers(0, 2), st.integers(1, 5000))
def test_equal_counts_reduce_balanced_softmax_to_cross_entropy(values, label, count):
    values, labels = jnp.array([values]), jnp.array([label])
    equal = jnp.full(3, float(count))
    balanced = objectives.balanced_softmax(values, labels, equal)
    np.testing.assert_allclose(balanced, objectives.cross_entropy(values, labels), rtol=1e-4, atol=1e-4)


def test_balanced_softmax_at_zero_logits_is_the_surprise_of_the_class():
    counts = jnp.array([5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100], jnp.float32)
    values = objectives.balanced_softmax(jnp.zeros((10, 10)), jnp.arange(10), counts)
    np.testing.assert_allclose(values[jnp.array([0, 9])], [1.029, 4.941], atol=5e-4)
    np.testing.assert_allclose(jnp.sum(values * counts) / jnp.sum(counts), 1.771, atol=5e-4)


def test_kl_differentiates_both_branches():
    by_target, by_model = jax.grad(lambda t, z: jnp.sum(objectives.kl_divergence(t, z)), (0, 1))(CLEAN, ADV)
    assert float(jnp.abs(by_target).max()) > 0.1
    assert float(jnp.abs(by_model).max()) > 0.1
