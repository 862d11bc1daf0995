"""Friendly adversarial training: an attack that stops soon after it has succeeded (Zhang et al., ICML 2020)."""

import dataclasses

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball
from ltrobust.methods.adversarial import label_objective, pgd_at
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method
from ltrobust.methods.settings import check_variant


def fat(inner: InnerAttack, *, patience: int = 3, variant: str = "as_described") -> Method:
    """`L = CE(z(x'), y)`, x' from PGD on CE that makes at most `patience` steps from misclassified iterates.

    Zhang et al. (ICML 2020), in the form that is a base of CFA. An image whose iterate is misclassified after that many
    such steps stays there; steps from iterates that are classified correctly are not counted. One train-mode pass,
    on x'.

    Args:
      patience: steps of the attack from misclassified iterates (tau); 0 stops at the first misclassified iterate, as
        many as the attack has steps is PGD-AT.
      variant: `as_described`, or `as_released` by CFA: an image that has made so many such steps stays for good.

    Raises:
      ValueError: negative patience, or an unknown variant.
    """
    check_variant("fat", variant)
    if patience < 0:
        raise ValueError(f"fat.patience is {patience}; it must be at least 0.")
    objective = label_objective(inner)

    def attack(learner: Learner, batch: Batch) -> jax.Array:
        ascended = objective(learner, batch)

        def total(points: jax.Array) -> tuple[jax.Array, jax.Array]:
            values, logits = ascended(points)
            return jnp.sum(values), jnp.argmax(logits, axis=-1) != batch.labels

        def step(_, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            points, made = carry
            gradient, wrong = jax.grad(total, has_aux=True)(points)
            stays = (wrong | (variant == "as_released")) & (made >= patience)
            step_size = ball.per_example(jnp.where(stays, 0.0, batch.step_size), points)
            moved = points + step_size * ball.direction(gradient, threat.norm)
            counted = made + (wrong & ~stays).astype(jnp.int32)
            return ball.project(moved, batch.images, batch.radius, threat), counted

        threat = inner.threat
        start = ball.random_start(batch.images, batch.keys, batch.radius, start=inner.start, threat=threat)
        if not inner.steps:
            return ball.project(start, batch.images, batch.radius, threat)
        return jax.lax.fori_loop(0, inner.steps, step, (start, jnp.zeros(len(start), jnp.int32)))[0]

    return dataclasses.replace(pgd_at(inner), name="fat", attack=attack, objective=None)
