"""Fair-ARD: the table of its weights, what is counted on an attack's way, and when weights change."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_learner

from ltrobust import methods
from ltrobust.attacks.algorithms.pgd import pgd, pgd_with_tally
from ltrobust.methods import Batch, InnerAttack
from ltrobust.methods.class_wise_wrappers import class_weights
from ltrobust.threat import Threat

INNER = InnerAttack(Threat(radius=16), steps=10, step_size=2)


def test_the_weights_of_four_classes():
    seen = jnp.array([7.0, 7.0, 3.0, 5.0])
    weights = class_weights(jnp.array([9.0, 8.0, 6.0, 4.0]) * seen, seen)
    np.testing.assert_allclose(weights, [0.8333, 0.8333, 0.9396, 2.1142], atol=5e-5)


def test_equal_kappas_and_no_exponent_give_one():
    seen = jnp.array([7.0, 2.0, 3.0])
    np.testing.assert_allclose(class_weights(4 * seen, seen), 1, rtol=1e-6)
    np.testing.assert_allclose(class_weights(jnp.array([1.0, 9.0, 2.0]), seen, exponent=0.0), 1, rtol=1e-6)


def test_a_class_that_was_not_seen_neither_counts_nor_is_weighed():
    weights = class_weights(jnp.array([9.0, 0.0, 4.0]), jnp.array([1.0, 0.0, 1.0]))
    two = class_weights(jnp.array([9.0, 4.0]), jnp.ones(2))
    np.testing.assert_allclose(weights, [two[0], 1.0, two[1]], rtol=1e-6)


def test_an_attack_counts_its_iterates_before_each_step_and_finds_the_same_images():
    images, keys = jnp.full((3, 1, 1, 1), 0.5), jax.random.split(jax.random.key(0), 3)
    settings = {"threat": Threat(radius=25.5), "steps": 5, "step_size": 0.02, "start": "none"}
    # Iterates are 0.50, 0.52, 0.54, 0.56, 0.58 and, not counted, 0.60.
    limits = jnp.array([0.49, 0.53, 0.59])
    objective = lambda points: (points[:, 0, 0, 0], points[:, 0, 0, 0] > limits)  # noqa: E731
    result, tally = pgd_with_tally(objective, images, keys, **settings)
    np.testing.assert_array_equal(tally, [5, 3, 0])
    np.testing.assert_array_equal(result, pgd(lambda points: objective(points)[0], images, keys, **settings))
    _, nothing = pgd_with_tally(objective, images, keys, **settings | {"steps": 0})
    np.testing.assert_array_equal(nothing, 0)


BATCH = Batch(
    jnp.zeros((4, 1, 1, 1)), jnp.array([0, 1, 1, 2]), jax.random.split(jax.random.key(0), 4), *[jnp.zeros(4)] * 2
)
TALLY = jnp.array([9, 6, 2, 3])


def stepped(method, learner, tally=TALLY):
    """Loss and state after one step on one mapped device."""
    run = jax.vmap(lambda _: method.loss(learner, BATCH, (jnp.ones((4, 1, 1, 1)), tally)), axis_name="devices")
    value, outcome = run(jnp.zeros(1))
    state = jax.tree.map(lambda leaf: leaf[0], outcome.method_state)
    return value[0], dataclasses.replace(learner, method_state=state)


def fresh(method, epoch):
    learner = toy_learner(epoch)
    return dataclasses.replace(learner, method_state=method.initial_state(learner.params, learner.class_counts))


@pytest.mark.parametrize("name", ["ard", "iad", "rslad", "mtard"])
@pytest.mark.parametrize("variant", ["as_described", "as_released"])
def test_weights_are_of_the_epoch_before_and_hold_for_a_whole_epoch(name, variant):
    base = methods.create(name, INNER)
    method = methods.wrap(base, "fair_ard", variant=variant)
    learner = fresh(method, 1)
    learner = dataclasses.replace(learner, teachers={**learner.teachers, "clean_teacher": learner.teachers["teacher"]})
    first, learner = stepped(method, learner)
    second, learner = stepped(method, learner)
    np.testing.assert_array_equal(learner.method_state["weights"], 1)
    np.testing.assert_array_equal(learner.method_state["tally"], [18, 16, 6])
    np.testing.assert_array_equal(learner.method_state["seen"], [2, 4, 2])

    plain = jax.vmap(
        lambda _: base.loss(
            dataclasses.replace(learner, method_state=learner.method_state["method"]), BATCH, jnp.ones((4, 1, 1, 1))
        )[0],
        axis_name="devices",
    )(jnp.zeros(1))[0]
    np.testing.assert_allclose([first, second], plain, rtol=1e-6)

    _, learner = stepped(method, dataclasses.replace(learner, epoch=jnp.int32(2)), tally=jnp.zeros(4, jnp.int32))
    divisor = [2.0, 4.0, 2.0] if variant == "as_described" else [8 / 3] * 3
    expected = class_weights(jnp.array([18.0, 16.0, 6.0]), jnp.array(divisor))
    np.testing.assert_allclose(learner.method_state["weights"], expected, rtol=1e-6)
    np.testing.assert_array_equal(learner.method_state["tally"], 0)
    _, learner = stepped(method, learner)
    np.testing.assert_allclose(learner.method_state["weights"], expected, rtol=1e-6)
    assert int(learner.method_state["epoch"]) == 2


def test_the_loss_is_the_weighted_mean():
    method = methods.wrap(methods.create("ard", INNER), "fair_ard")
    learner = fresh(method, 1)
    state = learner.method_state
    values = [
        stepped(method, dataclasses.replace(learner, method_state=state | {"weights": jnp.array(weights)}))[0]
        for weights in ([2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    ]
    # The toy network answers all images alike: a loss is the share of weight.
    np.testing.assert_allclose(np.array(values[:3]) / values[3], [0.5, 0.5, 0.25], rtol=1e-5)


def test_the_attack_counts_answers_of_the_student():
    method = methods.wrap(methods.create("ard", INNER), "fair_ard")
    learner = fresh(method, 1)
    images, tally = method.attack(learner, methods.make_batch(method, learner, BATCH.images, BATCH.labels, BATCH.keys))
    # Within 16/255 of the clean image the toy network says class 0.
    np.testing.assert_array_equal(tally, [10, 0, 0, 0])
    assert images.shape == BATCH.images.shape
    np.testing.assert_array_equal(method.adv_images((images, tally)), images)
