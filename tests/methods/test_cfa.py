"""CFA: the published table, whose accuracies count, its limits, and which epochs are averaged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from six_images import BATCH, CE, ROWS, stepped
from toy import INNER, toy_batch, toy_learner, toy_loss

from ltrobust import methods
from ltrobust.threat import Threat
from ltrobust.training import steps
from ltrobust.training.state import Weights

EIGHT = dataclasses.replace(INNER, threat=Threat(radius=8), step_size=2.0)
TABLE = jnp.array([0.8, 0.5, 0.2])


def wrapped(name="trades", inner=EIGHT, **settings):
    return methods.wrap(methods.create(name, inner), "cfa", **{"plain_epochs": 0, **settings})


def known(method, accuracy=TABLE, epoch=1):
    """A learner whose classes had those accuracies in the epoch before."""
    learner = toy_learner(epoch, 10)
    state = method.initial_state(learner.params, learner.class_counts)
    return dataclasses.replace(learner, method_state=state | {"accuracy": accuracy, "epoch": jnp.int32(epoch)})


def test_radii_of_the_published_accuracies_and_steps_that_stay():
    method = wrapped()
    radius, step_size = method.radii(known(method), jnp.array([0, 1, 2, 1]))
    np.testing.assert_allclose(255 * radius, [10.4, 8.0, 5.6, 8.0], rtol=1e-6)
    np.testing.assert_allclose(255 * step_size, 2, rtol=1e-6)


@pytest.mark.slow
def test_regularisation_of_the_published_accuracies():
    seen = []

    def loss(learner, batch, adv):
        seen.append((batch.factors, batch.weights))
        return base.loss(learner, batch, adv)

    base = methods.create("trades", EIGHT)
    method = methods.wrap(dataclasses.replace(base, loss=loss), "cfa", plain_epochs=0)
    learner = known(method)
    batch = dataclasses.replace(toy_batch(), labels=jnp.array([0, 1, 2]), images=jnp.zeros((3, 1, 1, 1)))
    jax.vmap(lambda _: method.loss(learner, batch, jnp.ones((3, 1, 1, 1)))[0], axis_name="devices")(jnp.zeros(1))
    factors, weights = seen[0]
    np.testing.assert_allclose(6 * factors, [7.8, 6, 4.2], rtol=1e-6)
    np.testing.assert_allclose(1 - weights, [0.886364, 0.857143, 0.807692], atol=1e-6)


def test_the_toy_vector():
    value, _ = toy_loss(wrapped())
    np.testing.assert_allclose(value, 0.428738, atol=1e-6)
    np.testing.assert_allclose(toy_loss(wrapped(normalized=False))[0], 3.001166, atol=1e-6)
    np.testing.assert_allclose(toy_loss(wrapped("pgd_at"))[0], 1.464369, atol=1e-6)


@pytest.mark.parametrize("settings", [{"margin_base": 0.7}, {"margins": False}, {"plain_epochs": 3}])
def test_limits_give_the_radius_itself(settings):
    method = wrapped(**settings)
    accuracy = jnp.full(3, 0.3) if "margin_base" in settings else TABLE
    radius, step_size = method.radii(known(method, accuracy, epoch=3), jnp.array([0, 1, 2]))
    plain = methods.make_batch(methods.create("pgd_at", EIGHT), toy_learner(), BATCH.images, BATCH.labels, BATCH.keys)
    np.testing.assert_allclose(radius, plain.radius[:3], rtol=1e-6)
    np.testing.assert_array_equal(step_size, plain.step_size[:3])


@pytest.mark.parametrize("devices", [1, 2])
def test_accuracies_are_of_the_epoch_before_over_the_images_that_were_seen(devices):
    method = wrapped("pgd_at")
    right = ROWS.argmax(axis=-1) == np.asarray(BATCH.labels)
    expected = np.array([right[np.asarray(BATCH.labels) == label].mean() for label in range(3)])
    value, first = stepped(method, devices=devices)
    np.testing.assert_allclose(value, CE.mean(), rtol=1e-5)
    state = first.method_state
    np.testing.assert_array_equal(state["seen"], [3, 2, 1])
    assert (state["accuracy"] == -1).all()
    _, second = stepped(method, state, epoch=2, devices=devices)
    np.testing.assert_allclose(second.method_state["accuracy"], expected, rtol=1e-6)
    np.testing.assert_array_equal(second.method_state["seen"], [3, 2, 1])
    # A class that the epoch did not hold keeps its accuracy.
    empty = second.method_state | {"seen": jnp.array([3.0, 0, 1]), "correct": jnp.array([0.0, 0, 1])}
    _, third = stepped(method, empty, epoch=3, devices=devices)
    np.testing.assert_allclose(third.method_state["accuracy"], [0, expected[1], 1], rtol=1e-6)


def averaged(worst, **settings):
    """The average after epochs whose weights are 1, 2, 3 ... and whose worst classes are given."""
    method = wrapped("pgd_at", **settings)
    learner = toy_learner()
    state = method.initial_state(learner.params, learner.class_counts)
    average = Weights(jnp.float32(0), jnp.float32(0))
    for epoch, accuracy in enumerate(worst, 1):
        learner = dataclasses.replace(learner, method_state=state, epoch=jnp.int32(epoch))
        state = method.end_epoch(learner, {"robust": np.array([0.9, accuracy, np.nan])})
        average = steps.average(
            average, Weights(jnp.float32(epoch), -jnp.float32(epoch)), float(method.averaging(state))
        )
    assert average.batch_stats == -average.params
    return float(average.params)


def test_epochs_whose_worst_class_is_robust_are_averaged():
    settings = {"kept": 0.75, "average_after": 0, "threshold": 0.2}
    assert averaged([0.1, 0.1], **settings) == 2  # none: the last weights
    assert averaged([0.1, 0.2, 0.1], **settings) == 2  # copied, then left alone
    assert averaged([0.3, 0.1, 0.3], **settings) == 0.75 * 1 + 0.25 * 3
    assert averaged([0.3, 0.1, 0.3], **settings | {"average_after": 1}) == 3
    # Without a threshold: the moving average of all.
    assert averaged([0.0, 0.0, 0.0], **settings | {"threshold": 0.0}) == 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 3
    assert wrapped("pgd_at", kept=0.0).averaging is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wrapped(kept=1.5), r"cfa.kept is 1.5; it must lie in \[0, 1\]"),
        (lambda: wrapped(margin_base=-1.0), "cfa.margin_base is -1.0"),
        (lambda: methods.wrap(methods.wrap(methods.create("trades", EIGHT), "awp"), "cfa"), "name cfa before"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
