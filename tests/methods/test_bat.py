"""BAT: its value, its passes, and that its two points are those of the attack's own iterates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from affine import KERNEL, learner
from toy import lookup, on_one_device, passes, toy_batch, toy_learner

from ltrobust import methods
from ltrobust.attacks import objectives
from ltrobust.attacks.algorithms.pgd import pgd
from ltrobust.threat import Threat

INNER = methods.InnerAttack(Threat(radius=60), steps=4, step_size=24, start="uniform")


def test_the_toy_vector_and_the_passes():
    # The rows -1, 0 and 1 of the table: x, x_lc and x_fa.
    toy = toy_learner()
    toy = dataclasses.replace(toy, params=lookup([2.2, 0.4, -0.6], [2.0, 1.0, 0.0], [0.5, 1.5, 0.0]))
    batch = dataclasses.replace(toy_batch(), images=-jnp.ones((1, 1, 1, 1)))
    method = methods.create("bat", INNER)
    points = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1))
    value, outcome = on_one_device(lambda: method.loss(toy, batch, points))
    np.testing.assert_allclose(value, 5.480284, atol=1e-6)
    np.testing.assert_array_equal(outcome.batch_stats["seen"], passes("xam"))
    np.testing.assert_array_equal(method.adv_images(points), points[1])


def images_and_labels(affine):
    """Forty images, as the network classifies most of them."""
    images = jax.random.uniform(jax.random.key(1), (40, 2, 2, 1))
    labels = jnp.argmax(affine.forward(images, bn="eval")[0], axis=-1)
    return images, labels.at[:4].set((labels[:4] + 1) % 3)


@pytest.mark.parametrize("variant", ["as_described", "as_released"])
def test_the_points_are_those_of_the_definition_on_the_iterates_of_pgd(variant):
    affine = learner(2 * KERNEL, -jnp.sum(KERNEL, axis=0))
    images, labels = images_and_labels(affine)
    keys = jax.random.split(jax.random.key(2), 40)
    method = methods.create("bat", INNER, variant=variant)
    batch = methods.make_batch(method, affine, images, labels, keys)
    result = jax.jit(method.attack)(affine, batch)
    clean_logits = affine.forward(images, bn="eval")[0]
    own = jax.vmap(lambda key: jax.random.split(key))(keys)

    @jax.jit
    def iterates(keys):
        """x_0 .. x_4 and whether each is misclassified."""
        points = [
            pgd(
                lambda images: objectives.kl_divergence(clean_logits, affine.forward(images, bn="eval")[0]),
                *(images, keys),
                **{"threat": INNER.threat, "steps": steps, "step_size": 24 / 255, "start": "uniform"},
            )
            for steps in range(5)
        ]
        wrong = [jnp.argmax(affine.forward(point, bn="eval")[0], axis=-1) != labels for point in points]
        return jnp.stack(points), jnp.stack(wrong)

    points, wrong = jax.device_get(iterates(own[:, 0]))
    # The released code does not look at x_4.
    firsts = [np.flatnonzero(column[: 5 if variant == "as_described" else 4]) for column in wrong.T]
    assert any((column[:4] == 0).all() and column[4] for column in wrong.T)
    last_clean = [max(first[0] - 1, 0) if len(first) else 4 for first in firsts]
    np.testing.assert_allclose(result[0], points[last_clean, range(40)], atol=1e-6)
    points, wrong = jax.device_get(iterates(own[:, 1]))
    seconds = [np.flatnonzero(column) for column in wrong.T]
    first_adversarial = [second[1] if len(second) > 1 else 4 for second in seconds]
    np.testing.assert_allclose(result[1], points[first_adversarial, range(40)], atol=1e-6)
    # All kinds of images are there: never, at once and later misclassified.
    assert {0, 4} < set(last_clean)
    assert len(set(first_adversarial)) > 2


def test_without_steps_and_noise_both_points_are_the_image():
    affine = learner(KERNEL, jnp.zeros(3))
    images, labels = images_and_labels(affine)
    method = methods.create("bat", dataclasses.replace(INNER, steps=0, start="none"))
    batch = methods.make_batch(method, affine, images, labels, jax.random.split(jax.random.key(2), 40))
    points = method.attack(affine, batch)
    for point in points:
        np.testing.assert_array_equal(point, images)
    _, outcome = on_one_device(lambda: method.loss(affine, batch, points))
    assert abs(float(outcome.metrics["robust_loss"])) < 1e-6


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="no gradient there"):
        methods.create("bat", dataclasses.replace(INNER, start="none"))
    with pytest.raises(ValueError, match=r"bat.beta is -1.0"):
        methods.create("bat", INNER, beta=-1.0)
