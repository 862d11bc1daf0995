"""The complete state of training."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

PyTree = Any
# Names of sums that every method has: of examples, and over examples of the loss and of right answers at x'.
OWN_SUMS = ("examples", "loss", "robust_correct")


@flax.struct.dataclass
class Weights:
    """Parameters and the running statistics that belong to them."""

    params: PyTree
    batch_stats: PyTree


@flax.struct.dataclass
class TrainState:
    """The state between two steps.

    `step` counts finished updates. `averaged` is a moving average of the weights, or None. `sums` holds
    the sums over the current epoch's examples of every training metric. `bad_step` is the first step with a non-finite
    loss or update, or -1.
    """

    step: jax.Array
    weights: Weights
    opt_state: PyTree
    averaged: Weights | None
    method_state: PyTree
    sums: dict[str, jax.Array]
    bad_step: jax.Array


@flax.struct.dataclass
class Selection:
    """The best weights so far by validation, and what the rule needs to continue.

    `recent` are the last three validations' scores, the newest last, NaN where there was none; `score` is the best
    running mean of them, `epoch` (from 1) where it was reached, 0 for never.
    """

    weights: Weights
    score: jax.Array
    epoch: jax.Array
    recent: jax.Array


def create_state(
    params: PyTree,
    batch_stats: PyTree,
    *,
    optimizer: optax.GradientTransformation,
    method_state: PyTree,
    metrics: Iterable[str],
    averaging: bool,
) -> TrainState:
    """The state before the first step.

    Args:
      method_state: what the method's `initial_state` returns.
      metrics: names of the metrics that the method's loss returns.
      averaging: whether the weights' moving average is kept.
    """
    weights = Weights(params, batch_stats)
    return TrainState(
        step=jnp.int32(0),
        weights=weights,
        opt_state=optimizer.init(params),
        averaged=copy(weights) if averaging else None,
        method_state=method_state,
        sums={name: jnp.float32(0) for name in (*OWN_SUMS, *metrics)},
        bad_step=jnp.int32(-1),
    )


def create_selection(weights: Weights) -> Selection:
    """Nothing selected yet."""
    # NaN stands for validations that have not happened; the mean leaves them out.
    return Selection(copy(weights), jnp.float32(-jnp.inf), jnp.int32(0), jnp.full(3, jnp.nan, jnp.float32))


def select(selection: Selection, weights: Weights, *, score: float, epoch: int) -> Selection:
    """The selection after one more validated epoch.

    Rule: highest running mean of the last three scores (fewer at the start), ties to the later epoch
    (docs/concepts/data.md, selection).
    """
    recent = jnp.append(selection.recent[1:], jnp.float32(score))
    smoothed = jnp.nanmean(recent)
    # Strictly lower, so that a tie goes to the later epoch.
    if float(smoothed) < float(selection.score):
        return dataclasses.replace(selection, recent=recent)
    # Where the old one lies: with several processes, everything in a checkpoint lies on the devices of all.
    return Selection(copy(weights), smoothed, jnp.full_like(selection.epoch, epoch), recent)


def copy(tree: PyTree) -> PyTree:
    """Fresh buffers, so that donating one holder does not invalidate the other."""
    return jax.tree.map(jnp.copy, tree)
