"""Gradient accumulation: a step computes its batch in equal parts, one after another, and averages them.

A part is a run of neighbouring examples of each device's share, with the keys that they have in the whole batch. All
parts see the same weights. Losses that are means over examples then have the gradient of the whole batch, except for
BatchNorm in the modes `train` and `batch_frozen`: every part is normalised by its own statistics. Each part starts from
the running statistics before the step, and the new ones are the mean over the parts: they move once a step, as without
parts. The method's state goes from part to part.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ltrobust.methods import Batch, Learner, Outcome

# `(learner, part of the batch, its adversarial images) -> (loss, outcome, gradients)`.
Gradient = Callable[[Learner, Batch, Any], tuple[jax.Array, Outcome, Any]]


def check(parts: int, batch_size: int, mesh: Mesh, key: str) -> None:
    """Refuses a number of parts into which a batch cannot be divided.

    Raises:
      ValueError: names the key, its value and what is allowed.
    """
    if batch_size % (parts * mesh.size):
        raise ValueError(
            f"{key} is {parts}, and a batch of {batch_size} does not divide into {parts} parts on {mesh.size} "
            f"device(s); use a batch size that is a multiple of {parts * mesh.size}."
        )


def split(batch: Batch, parts: int) -> Batch:
    """The batch with every array [B, ...] as [parts, B / parts, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:]), batch)


def attack(of_part: Callable[[Batch], Any], batch: Batch, parts: int) -> Any:
    """What the attack returns for the batch; with several parts for each of them, stacked."""
    return of_part(batch) if parts == 1 else jax.lax.map(of_part, split(batch, parts))


def gradient(of_part: Gradient, learner: Learner, batch: Batch, adv: Any, parts: int) -> tuple[jax.Array, Outcome, Any]:
    """Loss, outcome and gradients of the batch.

    Args:
      of_part: the same of one part.
      adv: from `attack`.
    """
    if parts == 1:
        return of_part(learner, batch, adv)

    def add(carry: tuple[Any, Any], part: tuple[Batch, Any]) -> tuple[tuple[Any, Any], tuple[jax.Array, Outcome]]:
        total, method_state = carry
        value, outcome, gradients = of_part(dataclasses.replace(learner, method_state=method_state), *part)
        total = jax.tree.map(jnp.add, total, gradients)
        return (total, outcome.method_state), (value, dataclasses.replace(outcome, method_state=()))

    zeros = jax.tree.map(jnp.zeros_like, learner.params)
    (total, method_state), (values, outcomes) = jax.lax.scan(
        add, (zeros, learner.method_state), (split(batch, parts), adv)
    )
    batch_stats, metrics = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), (outcomes.batch_stats, outcomes.metrics))
    adv_logits = outcomes.adv_logits.reshape(-1, outcomes.adv_logits.shape[-1])
    outcome = Outcome(batch_stats, method_state, adv_logits, metrics)
    return jnp.mean(values), outcome, jax.tree.map(lambda leaf: leaf / parts, total)
