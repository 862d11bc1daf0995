"""DAFA, WAT and FRL: tables of weights, limits in which they are TRADES, and when their states change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from six_images import BATCH, ROWS, stepped
from toy import INNER, toy_learner

from ltrobust import methods
from ltrobust.attacks import objectives
from ltrobust.methods import class_wise_trades
from ltrobust.methods.class_wise_trades import class_shares

class_distances = jax.jit(class_wise_trades.class_distances, static_argnames="variant")
SHARES = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], np.float32)
SEEN = np.array([4.0, 2.0, 8.0], np.float32)
LABELS = np.asarray(BATCH.labels)
# x is x' in BATCH, so that the divergence is 0 and the loss the clean one.
CE = np.asarray(objectives.cross_entropy(jnp.asarray(ROWS, jnp.float32), BATCH.labels))


def test_dafa_weights_of_the_published_table():
    weights = class_distances(SHARES * SEEN[:, None], SEEN)
    np.testing.assert_allclose(weights, [0.95, 1.33, 0.72], atol=1e-6)
    np.testing.assert_allclose(class_distances(SHARES, np.ones(3)).sum(), 3, rtol=1e-6)
    np.testing.assert_array_equal(class_distances(SHARES, np.ones(3, np.float32), scale=0.0), 1)
    np.testing.assert_allclose(class_distances(SHARES, np.ones(3), floor=0.8), [0.95, 1.33, 0.8], atol=1e-6)


def test_dafa_moves_equal_amounts_between_any_pair_and_leaves_out_unseen_classes():
    answers = np.random.RandomState(0).dirichlet(np.ones(6), size=6).astype(np.float32)
    weights = class_distances(answers, np.ones(6), floor=-9.0)
    by_hand = np.ones(6)
    for i in range(6):
        for j in range(6):
            if answers[i, i] < answers[j, j]:
                by_hand[i] += answers[i, j] * answers[j, j]
                by_hand[j] -= answers[i, j] * answers[j, j]
    np.testing.assert_allclose(weights, by_hand, rtol=1e-5)
    unseen = class_distances(answers, np.array([1, 1, 1, 1, 0, 1.0]))
    rest = np.delete(np.arange(6), 4)
    np.testing.assert_allclose(unseen[rest], class_distances(answers[rest][:, rest], np.ones(5)), rtol=1e-6)
    assert unseen[4] == 1


def test_dafa_as_released_takes_from_both_of_a_tie():
    tied = np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)
    np.testing.assert_array_equal(class_distances(tied, np.ones(2)), 1)
    np.testing.assert_allclose(class_distances(tied, np.ones(2), variant="as_released"), 0.75)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_dafa_collects_in_the_last_epoch_of_the_warm_up_and_weighs_after_it(devices):
    method = methods.create("dafa", INNER, warmup_fraction=0.3, floor=0.0)
    _, outcome = stepped(method, epoch=2, devices=devices)
    np.testing.assert_array_equal(outcome.method_state["seen"], 0)
    value, outcome = stepped(method, epoch=3, devices=devices)
    np.testing.assert_allclose(value, CE.mean(), rtol=1e-5)
    answers = np.exp(ROWS) / np.exp(ROWS).sum(axis=-1, keepdims=True)
    expected = np.stack([answers[label == LABELS].sum(axis=0) for label in range(3)])
    np.testing.assert_allclose(outcome.method_state["answers"], expected, rtol=1e-5)
    np.testing.assert_array_equal(outcome.method_state["seen"], [3, 2, 1])
    weights = class_distances(expected, np.array([3.0, 2, 1]))
    assert np.ptp(weights) > 0.1
    value, later = stepped(method, outcome.method_state, epoch=4, devices=devices)
    np.testing.assert_allclose(value, np.mean(weights[LABELS] * CE), rtol=1e-5)
    np.testing.assert_array_equal(later.method_state["seen"], [3, 2, 1])
    for epoch, factor in ((3, np.ones(6)), (4, weights[LABELS])):
        learner = dataclasses.replace(toy_learner(epoch, 10), method_state=later.method_state)
        radius, step_size = method.radii(learner, BATCH.labels)
        np.testing.assert_allclose(radius, factor * 16 / 255, rtol=1e-5)
        np.testing.assert_allclose(step_size, factor * 6 / 255, rtol=1e-5)


def test_wat_hedges_over_class_losses_and_their_mean():
    method = methods.create("wat", INNER)
    state = method.initial_state({}, jnp.ones(3))
    np.testing.assert_array_equal(state["weights"], 1)
    for _ in range(2):  # sums are never forgotten
        learner = dataclasses.replace(toy_learner(), method_state=state)
        state = method.end_epoch(learner, {"loss": np.array([0.5, 1.0, 2.0])})
    np.testing.assert_allclose(state["weights"], [0.652506, 0.721130, 0.880791, 0.745573], atol=1e-6)
    np.testing.assert_allclose(jnp.sum(state["weights"]), 3, rtol=1e-6)
    missing = method.end_epoch(learner, {"loss": np.array([0.5, np.nan, 2.5])})
    np.testing.assert_allclose(missing["sums"] - learner.method_state["sums"], [0.5, 1.5, 2.5, 1.5], rtol=1e-6)


def test_wat_weighs_images_by_class_and_all_alike():
    weights = jnp.array([0.5, 2.0, 1.0, 0.25])
    state = {"sums": jnp.zeros(4), "weights": weights}
    value, _ = stepped(methods.create("wat", INNER), state)
    np.testing.assert_allclose(value, np.mean((np.asarray(weights)[LABELS] + 0.25) * CE), rtol=1e-5)
    normalized, _ = stepped(methods.create("wat", INNER, normalized=True), state)
    np.testing.assert_allclose(normalized, value / (3.5 / 3 + 0.25), rtol=1e-5)


def test_wat_without_a_rate_is_trades_times_a_constant_and_observes_its_loss():
    learner = toy_learner()
    flat = methods.create("wat", INNER, rate=0.0)
    state = flat.initial_state({}, jnp.ones(3))
    state = flat.end_epoch(dataclasses.replace(learner, method_state=state), {"loss": np.array([1.0, 2.0, 5.0])})
    for method, factor in ((flat, 1.5), (methods.create("wat", INNER, rate=0.0, normalized=True), 1.0)):
        np.testing.assert_allclose(stepped(method, state)[0], factor * CE.mean(), rtol=1e-5)
    batch = methods.make_batch(flat, learner, jnp.abs(BATCH.images), BATCH.labels, BATCH.keys)
    logits, _ = learner.forward(batch.images, bn="eval")
    # The toy network is a table: no attack changes its answer.
    expected = objectives.cross_entropy(logits, batch.labels)
    np.testing.assert_allclose(jax.jit(flat.observe)(learner, batch)["loss"], expected, atol=1e-5)


def ended(method, clean, robust, epochs=1):
    state = method.initial_state({}, jnp.ones(len(clean)))
    for epoch in range(1, epochs + 1):
        learner = dataclasses.replace(toy_learner(epoch, 100), method_state=state)
        state = method.end_epoch(learner, {"clean": np.array(clean), "robust": np.array(robust)})
    return state


def test_frl_multipliers_follow_what_lies_above_mean_and_slack():
    settings = {"slack": 0.05, "rate": 0.1, "margin_rate": 0.2}
    state = ended(methods.create("frl", INNER, **settings, remargin=True), [0.9, 0.6, 0.9], [0.6, 0.1, 0.5])
    # Clean errors 0.1, 0.4, 0.1, their mean 0.2; the differences 0.3, 0.5, 0.4, their mean 0.4.
    np.testing.assert_allclose(state["clean"], [0, 0.015, 0], atol=1e-7)
    np.testing.assert_allclose(state["boundary"], [0, 0.01, 0], atol=1e-7)
    np.testing.assert_allclose(state["margin"], [-0.03, 0.01, -0.01], atol=1e-7)
    assert (ended(methods.create("frl", INNER, **settings), [0.9, 0.6], [0.6, 0.1])["margin"] == 0).all()
    halved = ended(methods.create("frl", INNER, **settings, halve_every=1), [0.9, 0.6, 0.9], [0.6, 0.1, 0.5], epochs=2)
    np.testing.assert_allclose(halved["clean"], [0, 0.015 / 2 + 0.015 / 4, 0], atol=1e-7)
    released = methods.create("frl", INNER, **settings, halve_every=2, variant="as_released")
    # The first update is the one before epoch 2.
    np.testing.assert_allclose(
        ended(released, [0.9, 0.6, 0.9], [0.6, 0.1, 0.5], epochs=2)["clean"], [0, 0.015 / 2 + 0.015 / 2, 0], atol=1e-7
    )


def test_frl_bounds_its_multipliers_and_all_mass_on_one_class_is_the_published_share():
    state = ended(methods.create("frl", INNER, rate=50.0), [0.1] + [0.9] * 9, [0.1] + [0.9] * 9)
    np.testing.assert_allclose(state["clean"], [0.5] + [0.0] * 9, atol=1e-6)
    shares = class_shares(state["clean"])
    np.testing.assert_allclose(shares, [0.55] + [0.05] * 9, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(shares), 1, rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 3])
def test_frl_weighs_over_the_whole_batch_and_is_trades_at_first(devices):
    method = methods.create("frl", INNER)
    np.testing.assert_allclose(stepped(method, devices=devices)[0], CE.mean(), rtol=1e-5)
    phi = jnp.array([0.0, 0.0, 0.3])
    state = {"clean": phi, "boundary": phi[::-1], "margin": jnp.zeros(3)}
    of_image = np.asarray(class_shares(phi))[LABELS]
    value, outcome = stepped(method, state, devices=devices)
    np.testing.assert_allclose(value, np.sum(of_image * CE) / of_image.sum(), rtol=1e-5)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, outcome.method_state, state))


def test_frl_radii_are_bounded_and_steps_are_a_quarter_of_the_largest():
    method = methods.create("frl", INNER, remargin=True)
    state = {"margin": jnp.array([-5.0, 0.1, 5.0])}
    radius, step_size = method.radii(dataclasses.replace(toy_learner(), method_state=state), jnp.array([0, 1, 2]))
    np.testing.assert_allclose(radius, np.array([0.98, np.exp(0.2), 3]) * 16 / 255, rtol=1e-6)
    np.testing.assert_allclose(step_size, 3 * 16 / 255 / 4, rtol=1e-6)
    assert methods.create("frl", INNER).radii is None


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dafa", {"variant": "x"}, "dafa.variant is 'x'"),
        ("dafa", {"warmup_fraction": 70.0}, r"warmup_fraction is 70.0; it must lie in \[0, 1\]"),
        ("wat", {"rate": -1.0}, "wat.rate is -1.0"),
        ("frl", {"limit": 1.0}, "frl.limit is 1.0; it must be at least 0 and below 1"),
        ("frl", {"halve_every": 0}, "frl.halve_every is 0; it must be above 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, settings, message):
    with pytest.raises(ValueError, match=message):
        methods.create(name, INNER, **settings)
