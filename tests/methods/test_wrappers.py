"""Wrappers: lengths of weight perturbations, tables of radii, limits, and what does not fit together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import INNER, toy_batch, toy_learner

from ltrobust import methods
from ltrobust.data import longtail
from ltrobust.methods.wrappers import relative_radii

CIFAR_10_LT = longtail.class_counts(np.full(10, 5000), imbalance_ratio=50.0, profile="exp")
CIFAR_100_LT = longtail.class_counts(np.full(100, 500), imbalance_ratio=10.0, profile="exp")
SHAPES = {"conv": (3, 3, 2, 4), "linear": (4, 5), "bias": (5,), "scale": (4,), "untouched": (2, 2)}


def arrays(seed: int) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    drawn = {name: jax.random.normal(key, SHAPES[name]) for name, key in zip(SHAPES, keys, strict=True)}
    return drawn | ({"untouched": jnp.zeros((2, 2))} if seed else {})


def perturbation(epoch: int = 1, **settings):
    method = methods.wrap(methods.create("at_bsl", INNER), "awp", **settings)
    learner = dataclasses.replace(toy_learner(epoch=epoch, epochs=10), params=arrays(0))
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.5, momentum=0.9))
    _, state = optimizer.update(arrays(2), optimizer.init(learner.params), learner.params)
    update = lambda gradients: optimizer.update(gradients, state, learner.params)[0]  # noqa: E731
    return method.perturb_weights(learner, arrays(1), update), update


def test_weights_move_by_gamma_of_their_length_along_the_gradient_and_vectors_stay():
    moved, _ = perturbation(gamma=0.01)
    weights, gradients = arrays(0), arrays(1)
    for name in ("conv", "linear"):
        length = jnp.linalg.norm(moved[name].ravel())
        np.testing.assert_allclose(length, 0.01 * jnp.linalg.norm(weights[name].ravel()), rtol=1e-6)
        cosine = jnp.vdot(moved[name], gradients[name]) / length / jnp.linalg.norm(gradients[name].ravel())
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-6)
    for name in ("bias", "scale", "untouched"):  # the last has a gradient of 0
        np.testing.assert_array_equal(moved[name], 0)


def test_no_weight_moves_during_warm_up_or_with_gamma_0():
    for settings in ({"gamma": 0.0}, {"warmup_epochs": 3, "epoch": 3}):
        assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(perturbation(**settings)[0]))
    after = perturbation(warmup_epochs=3, epoch=4)[0]
    jax.tree.map(np.testing.assert_array_equal, after, perturbation()[0])


def test_the_optimisers_direction_is_its_step_for_the_negative_gradient():
    moved, update = perturbation(gamma=0.01, direction="optimizer")
    expected = update(jax.tree.map(jnp.negative, arrays(1)))
    # -0.5 (0.9 v - g + 0.1 w), with v the momentum after one step on other gradients.
    by_hand = -0.5 * (
        0.9 * (arrays(2)["linear"] + 0.1 * arrays(0)["linear"]) - arrays(1)["linear"] + 0.1 * arrays(0)["linear"]
    )
    np.testing.assert_allclose(expected["linear"], by_hand, rtol=1e-5, atol=1e-6)
    scale = 0.01 * jnp.linalg.norm(arrays(0)["linear"]) / jnp.linalg.norm(by_hand)
    np.testing.assert_allclose(moved["linear"], scale * by_hand, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("counts", "spread", "expected"),
    [
        (CIFAR_10_LT, 0.3, [5.600, 8.026, 9.031, 9.802, 10.453, 11.027, 11.543, 12.021, 12.464, 12.878]),
        (CIFAR_100_LT, 0.4, [4.800, *[None] * 98, 11.060]),
    ],
)
def test_radii_are_those_of_the_published_settings_and_their_mean_is_the_threats(counts, spread, expected):
    radii = 8 * relative_radii(jnp.asarray(counts, jnp.float32), spread=spread)
    for radius, value in zip(radii.tolist(), expected, strict=True):
        assert value is None or abs(radius - value) <= 6e-4
    np.testing.assert_allclose(np.sum(counts / counts.sum() * radii), 8, rtol=1e-6)


def radii_at(epoch: int, **settings):
    inner = dataclasses.replace(INNER, threat=dataclasses.replace(INNER.threat, radius=8), step_size=2.0)
    method = methods.wrap(methods.create("at_bsl", inner), "robust_lt", **settings)
    learner = dataclasses.replace(toy_learner(epoch=epoch, epochs=10), class_counts=jnp.array([100.0, 30.0, 10.0]))
    return method.radii(learner, jnp.array([2, 0, 1, 0]))


def test_radii_grow_from_nothing_to_their_end_and_steps_with_them():
    full = radii_at(9)[0]
    np.testing.assert_array_equal(radii_at(10)[0], full)
    for epoch, fraction in ((1, 0.0), (2, 1 / 8), (5, 1 / 2), (8, 7 / 8)):
        radius, step_size = radii_at(epoch)
        np.testing.assert_allclose(radius, fraction * full, rtol=1e-6)
        np.testing.assert_allclose(step_size, radius / 4, rtol=1e-6)
    np.testing.assert_allclose(full[1], 0.7 * 8 / 255, rtol=1e-6)
    np.testing.assert_array_equal(radii_at(1, ramp=0.0)[0], full)


def test_without_spread_and_ramp_radii_are_the_threats_bit_for_bit():
    method = methods.create("at_bsl", INNER)
    wrapped = methods.wrap(method, "robust_lt", spread=0.0, ramp=0.0)
    batch = toy_batch()
    plain, same = (
        methods.make_batch(each, toy_learner(), batch.images, batch.labels, batch.keys) for each in (method, wrapped)
    )
    np.testing.assert_array_equal(plain.radius, same.radius)
    np.testing.assert_array_equal(plain.step_size, same.step_size)


def test_wrappers_stack_in_any_order_and_say_so():
    method = methods.create("robal", INNER)
    for order in (("awp", "robust_lt"), ("robust_lt", "awp")):
        stacked = method
        for name in order:
            stacked = methods.wrap(stacked, name)
        assert stacked.name == "+".join(("robal", *order))
        assert stacked.perturb_weights is not None
        assert stacked.radii is not None
        assert (stacked.loss, stacked.test_logits) == (method.loss, method.test_logits)


def wrapped(*names, **replaced):
    method = dataclasses.replace(methods.create("at_bsl", INNER), **replaced)
    for name in names:
        method = methods.wrap(method, name)
    return method


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wrapped("sam"), "wrapper is 'sam'; known wrappers: awp, robust_lt"),
        (lambda: wrapped("awp", "robust_lt", "awp"), r"at_bsl\+awp\+robust_lt is in the wrapper awp already"),
        (lambda: wrapped("robust_lt", radii=lambda learner, labels: None), "robust_lt cannot wrap at_bsl, which sets"),
        (lambda: wrapped("awp", perturb_weights=lambda *arguments: None), "awp cannot wrap at_bsl, which perturbs"),
        (lambda: wrapped("robust_lt").check(np.array([7, 7, 7])), "all 3 classes have 7 images; leave it out"),
        (lambda: wrapped("robust_lt", "awp").check(np.array([7, 7])), "all 2 classes have 7 images"),
        (lambda: methods.wrap(wrapped(), "awp", rho=1), "no setting rho; its settings: gamma, warmup_epochs"),
        (lambda: methods.wrap(wrapped(), "awp", gamma=-1.0), "awp.gamma is -1.0"),
        (lambda: methods.wrap(wrapped(), "awp", direction="up"), "known: gradient, optimizer"),
        (lambda: methods.wrap(wrapped(), "robust_lt", spread=1.5), r"spread is 1.5; it must lie in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
