"""Friendly adversarial training: where its attack stops, against the definition, and its limits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import INNER, gradient_of, real_batch, real_learner

from ltrobust import methods
from ltrobust.attacks import ball, objectives

LONG = dataclasses.replace(INNER, steps=6, step_size=4.0, start="uniform")


@pytest.mark.slow
@pytest.mark.optimized
def test_with_patience_for_all_steps_it_is_pgd_at_bit_for_bit(network):
    learner = real_learner(network)
    patient, plain = methods.create("fat", INNER, patience=INNER.steps), methods.create("pgd_at", INNER)
    for mine, theirs in zip(gradient_of(patient, learner), gradient_of(plain, learner), strict=True):
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["as_described", "as_released"])
@pytest.mark.parametrize("patience", [0, 2])
def test_images_stay_after_so_many_steps_from_misclassified_iterates(network, patience, variant):
    learner = real_learner(network)
    method = methods.create("fat", LONG, patience=patience, variant=variant)
    batch = real_batch(method, learner)
    # Half of the labels are the predictions, so that some iterates are right and some wrong.
    right = jnp.argmax(learner.forward(batch.images, bn="eval")[0], axis=-1)
    batch = dataclasses.replace(batch, labels=jnp.where(jnp.arange(6) < 3, right, batch.labels))

    @jax.jit
    def answer(points):
        def total(points):
            logits, _ = learner.forward(points, bn="eval")
            return jnp.sum(objectives.cross_entropy(logits, batch.labels)), jnp.argmax(logits, -1) != batch.labels

        return jax.grad(total, has_aux=True)(points)

    start = ball.random_start(batch.images, batch.keys, batch.radius, start="uniform", threat=LONG.threat)
    points, made, stopped = np.asarray(start), np.zeros(6, int), 0
    for _ in range(LONG.steps):
        gradient, wrong = (np.asarray(part) for part in answer(jnp.asarray(points)))
        moved = np.asarray(
            ball.project(points + np.float32(4 / 255) * np.sign(gradient), batch.images, batch.radius, LONG.threat)
        )
        for i in range(6):
            if (wrong[i] or variant == "as_released") and made[i] >= patience:
                stopped += 1
            else:
                made[i] += wrong[i]
                points = points.copy()
                points[i] = moved[i]
    assert stopped > 0
    np.testing.assert_allclose(jax.jit(method.attack)(learner, batch), points, atol=1e-5)


@pytest.mark.slow
def test_as_released_an_image_whose_steps_are_spent_stays_though_it_is_classified_correctly(network):
    learner = real_learner(network)
    described, released = (methods.create("fat", LONG, patience=0, variant=v) for v in ("as_described", "as_released"))
    batch = real_batch(described, learner)
    right = jnp.argmax(learner.forward(batch.images, bn="eval")[0], axis=-1)
    batch = dataclasses.replace(batch, labels=right)
    start = ball.random_start(batch.images, batch.keys, batch.radius, start="uniform", threat=LONG.threat)
    still = ball.project(start, batch.images, batch.radius, LONG.threat)
    np.testing.assert_allclose(jax.jit(released.attack)(learner, batch), still, atol=1e-6)
    assert float(jnp.abs(jax.jit(described.attack)(learner, batch) - still).max()) > 0.01


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="patience is -1; it must be at least 0"):
        methods.create("fat", INNER, patience=-1)
    with pytest.raises(ValueError, match="fair_ard cannot wrap fat"):
        methods.wrap(methods.create("fat", INNER), "fair_ard")
