"""Offsets and equal lengths in the linear head: limits, what they do to logits, and what they leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.models.last_layer import class_logit_offset, norm_equalise


@pytest.fixture(scope="module")
def network():
    module = models.create("small_resnet", num_classes=3, width=4, head=models.Head(extra=1))
    return module, *models.initialise(module, jax.random.key(0), (8, 8, 1))


IMAGES = jax.random.uniform(jax.random.key(1), (5, 8, 8, 1))


def outputs(network, params):
    module, _, batch_stats = network
    return np.asarray(models.forward(module, params, batch_stats, IMAGES, bn="eval")[0])


def test_factors_of_1_and_tau_0_are_the_parameters_bit_for_bit(network):
    _, params, _ = network
    for same in (class_logit_offset(params, jnp.ones(3)), norm_equalise(params, tau=0.0, num_classes=3)):
        jax.tree.map(np.testing.assert_array_equal, same, params)


@pytest.mark.slow
def test_the_network_answers_with_the_offset_and_outputs_beyond_the_classes_stay(network):
    _, params, _ = network
    before = params["linear"]["bias"].copy()
    factors = jnp.array([1.0, 3.0, 0.5])
    result, plain = outputs(network, class_logit_offset(params, factors)), outputs(network, params)
    np.testing.assert_allclose(result[:, :3], plain[:, :3] + np.log(factors), atol=1e-6)
    np.testing.assert_array_equal(result[:, 3], plain[:, 3])
    np.testing.assert_array_equal(params["linear"]["bias"], before)


@pytest.mark.slow
def test_a_common_factor_changes_no_prediction_no_loss_and_no_gradient(network):
    module, params, batch_stats = network

    def answer(factors):
        changed = class_logit_offset(params, factors)

        def loss(images):
            logits = models.forward(module, changed, batch_stats, images, bn="eval")[0][:, :3]
            return -jnp.sum(jax.nn.log_softmax(logits)[:, 0]), jax.nn.softmax(logits)

        (value, shares), gradient = jax.value_and_grad(loss, has_aux=True)(IMAGES)
        return value, shares, gradient

    factors = jnp.array([1.0, 2.0, 1.25])
    for mine, theirs in zip(answer(factors), answer(7 * factors), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_tau_1_gives_equal_lengths_and_a_half_their_geometric_middle(network):
    _, params, _ = network
    kernel = params["linear"]["kernel"]
    lengths = np.linalg.norm(kernel[:, :3], axis=0)
    for tau in (0.5, 1.0):
        result = norm_equalise(params, tau=tau, num_classes=3)["linear"]
        after = np.linalg.norm(result["kernel"][:, :3], axis=0)
        np.testing.assert_allclose(after, lengths ** (1 - tau) * lengths.mean() ** tau, rtol=1e-5)
        np.testing.assert_array_equal(result["kernel"][:, 3], kernel[:, 3])
        np.testing.assert_array_equal(result["bias"], params["linear"]["bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda params: class_logit_offset(params, jnp.array([1.0, 0.0, 1.0])), "give one above 0 for each class"),
        (lambda params: class_logit_offset(params, jnp.ones(5)), "at most 4"),
        (lambda params: norm_equalise(params, tau=1.5, num_classes=3), r"tau is 1.5; it must lie in \[0, 1\]"),
        (lambda params: class_logit_offset({"cosine": {}}, jnp.ones(3)), "head has no linear layer"),
        (lambda params: norm_equalise({"cosine": {}}, tau=1.0, num_classes=3), "head has no linear layer"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(network, change, message):
    with pytest.raises(ValueError, match=message):
        change(network[1])
