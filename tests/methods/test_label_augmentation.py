"""Label augmentation: its value, and that attack, accuracy and test are blind to the added output."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from affine import KERNEL, learner
from toy import INNER, on_one_device

from ltrobust import methods, models
from ltrobust.attacks import objectives


def batch(method, learner):
    images, keys = jax.random.uniform(jax.random.key(1), (6, 2, 2, 1)), jax.random.split(jax.random.key(2), 6)
    return methods.make_batch(method, learner, images, jnp.arange(6) % 3, keys)


def loss(method, learner, **changes):
    chosen = dataclasses.replace(batch(method, learner), **changes)
    return on_one_device(lambda: method.loss(learner, chosen, chosen.images))


def test_the_value_of_four_outputs():
    method = methods.create("label_aug", INNER)
    value, outcome = loss(method, learner(jnp.zeros((4, 4)), [2.0, 1.0, 0.0, 0.5]), labels=jnp.zeros(6, jnp.int32))
    np.testing.assert_allclose(value, 0.771006, atol=1e-6)
    np.testing.assert_array_equal(outcome.adv_logits, [[2.0, 1.0, 0.0]] * 6)


def test_without_the_output_it_is_pgd_at_and_without_delta_cross_entropy_over_four():
    three = learner(KERNEL, jnp.zeros(3))
    none = methods.create("label_aug", INNER, extra=0)
    assert (none.head, none.test_logits) == (models.Head(), None)
    np.testing.assert_allclose(loss(none, three)[0], loss(methods.create("pgd_at", INNER), three)[0], rtol=1e-6)
    four = learner(jnp.pad(KERNEL, ((0, 0), (0, 1))), jnp.zeros(4))
    outputs = four.forward(batch(none, three).images, bn="eval")[0]
    expected = jnp.mean(objectives.cross_entropy(outputs, jnp.arange(6) % 3))
    np.testing.assert_allclose(loss(methods.create("label_aug", INNER, delta=0.0), four)[0], expected, rtol=1e-6)


def test_attack_and_test_do_not_see_the_added_output():
    method, plain = methods.create("label_aug", INNER), methods.create("pgd_at", INNER)
    sink = jnp.concatenate([KERNEL, jnp.array([[90.0], [-90.0], [90.0], [-90.0]])], axis=1)
    four, three = learner(sink, jnp.zeros(4)), learner(KERNEL, jnp.zeros(3))
    adv = method.attack(four, batch(method, four))
    np.testing.assert_array_equal(adv, plain.attack(three, batch(plain, three)))
    # The plain attack on all outputs runs into the sink.
    assert bool((plain.attack(four, batch(plain, four)) != adv).any())
    assert method.head == models.Head(extra=1)
    rule = methods.decision_rule(method, np.array([100, 30, 10]))
    np.testing.assert_array_equal(rule(jnp.array([[1.0, 2.0, 0.0, 99.0]])), [[1.0, 2.0, 0.0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"extra": 2}, "label_aug.extra is 2; it must be 1, or 0"), ({"delta": 1.5}, "label_aug.delta is 1.5")],
)
def test_what_does_not_fit_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        methods.create("label_aug", INNER, **settings)
