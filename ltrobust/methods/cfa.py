"""CFA: radii, regularisation and weight averaging by class-wise robust accuracy (Wei et al., CVPR 2023)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.methods.contract import Batch, Learner, Method
from ltrobust.methods.settings import check_fractions, check_weights
from ltrobust.threat import pixels


def cfa(
    method: Method,
    *,
    margins: bool = True,
    margin_base: float = 0.5,
    regularization: bool = True,
    regularization_base: float = 0.5,
    normalized: bool = True,
    plain_epochs: int = 10,
    kept: float = 0.85,
    threshold: float = 0.2,
    average_after: int = 49,
) -> Method:
    """Radii `(l_1 + t_c) eps`, regularisation `beta_c = (l_2 + t_c) beta`, and averaging of epochs (arXiv 2303.14460).

    t_c is class c's robust accuracy on the training images' x', train-mode logits, in the epoch before. Steps keep
    their size. Where the method has a `regularization` beta, as TRADES has, its loss becomes
    `mean_i [(first_i + beta_{y_i} second_i) / (1 + beta_{y_i})]`. State: t and the sums of the current epoch over all
    devices; which epochs were averaged. Averaging reads the validation part's accuracy under PGD-20.

    Args:
      margins: whether radii differ by class.
      margin_base: l_1 of the radii `(l_1 + t_c) eps`; 0.3 with trades, 0.7 with fat.
      regularization: whether the weight of the regularisation differs by class (trades).
      regularization_base: l_2 of `(l_2 + t_c) beta`.
      normalized: whether each image's loss is divided by `1 + beta_c` (trades).
      plain_epochs: first epochs at eps and beta; epoch 1, which has none before it, always is one.
      kept: of the averaged weights at an epoch that is taken in; 0: no averaging.
      threshold: an epoch is taken in if every class's robust validation accuracy is at least this. The first one is
        copied; until then, the averaged weights are the last ones.
      average_after: epochs before any is taken in.

    Raises:
      ValueError: a setting out of range, or a method that sets radii, perturbs weights or observes validation itself.
    """
    check_weights("cfa", margin_base=margin_base, regularization_base=regularization_base)
    check_weights("cfa", plain_epochs=plain_epochs, average_after=average_after)
    check_fractions("cfa", kept=kept, threshold=threshold)
    if any(hook is not None for hook in (method.radii, method.perturb_weights, method.observe, method.end_epoch)):
        raise ValueError(
            f"cfa cannot wrap {method.name}, which sets radii, perturbs weights or reads validation; name cfa before "
            "the other wrappers, and leave out robust_lt and weak_class_reweight."
        )
    beta = method.regularization

    def by_class(learner: Learner, base: float, wanted: bool) -> jax.Array:
        """`base + t`, [C], or 1 where it is not wanted, too early, or t is not known."""
        accuracy = _of_this_epoch(learner)["accuracy"]
        known = (accuracy >= 0) & (learner.epoch > plain_epochs)
        return jnp.where(known & wanted, base + accuracy, 1.0)

    def radii(learner: Learner, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = by_class(learner, margin_base, margins)[labels]
        return factor * method.inner.threat.epsilon, jnp.full(labels.shape, pixels(method.inner.step_size), jnp.float32)

    def attack(learner: Learner, batch: Batch):
        return method.attack(learner.inside, batch)

    def loss(learner: Learner, batch: Batch, adv):
        own = _of_this_epoch(learner)
        if beta is not None:
            factors = by_class(learner, regularization_base, regularization)[batch.labels]
            weights = 1 / (1 + beta * factors) if normalized else None
            batch = dataclasses.replace(batch, factors=factors, weights=weights)
        value, outcome = method.loss(learner.inside, batch, adv)
        own |= _counted(learner, batch.labels, outcome.adv_logits, own)
        return value, dataclasses.replace(outcome, method_state=own | {"method": outcome.method_state})

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, Any]:
        nothing = jnp.zeros(class_counts.shape, jnp.float32)
        counted = {"accuracy": nothing - 1, "correct": nothing, "seen": nothing, "epoch": jnp.int32(1)}
        averaged = {"accepted": jnp.int32(0), "kept": jnp.float32(0)}
        return counted | averaged | {"method": method.initial_state(params, class_counts)}

    def end_epoch(learner: Learner, observed: Mapping[str, Any]) -> dict[str, Any]:
        state = learner.method_state
        accepted = np.nanmin(observed["robust"]) >= threshold and int(learner.epoch) > average_after
        keeps = (kept if accepted else 1.0) if int(state["accepted"]) else 0.0
        return state | {"accepted": state["accepted"] + jnp.int32(accepted), "kept": jnp.float32(keeps)}

    return dataclasses.replace(
        method,
        attack=attack,
        loss=loss,
        objective=None,
        weighted=False,
        regularization=None,
        radii=radii,
        initial_state=initial_state,
        end_epoch=end_epoch if kept else None,
        averaging=(lambda state: state["kept"]) if kept else None,
    )


def _of_this_epoch(learner: Learner) -> dict[str, Any]:
    """The state as the step's epoch sees it: at a new epoch, accuracies are those of the one before."""
    state = learner.method_state
    begins, seen = learner.epoch != state["epoch"], state["seen"]
    accuracy = jnp.where(begins & (seen > 0), state["correct"] / jnp.maximum(seen, 1), state["accuracy"])
    sums = {name: jnp.where(begins, 0, state[name]) for name in ("correct", "seen")}
    return state | sums | {"accuracy": accuracy, "epoch": learner.epoch}


def _counted(learner: Learner, labels: jax.Array, logits: jax.Array, own: dict[str, Any]) -> dict[str, jax.Array]:
    """The sums per class after this batch, over all devices."""
    of_class = jax.nn.one_hot(labels, len(own["seen"]), dtype=jnp.float32)
    correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
    added = {"correct": correct @ of_class, "seen": jnp.sum(of_class, axis=0)}
    return jax.tree.map(jnp.add, {name: own[name] for name in added}, jax.lax.psum(added, learner.axis_name))
