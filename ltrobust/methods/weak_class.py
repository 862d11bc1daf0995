"""More weight for the class that is weakest on the validation part. The published form is unknown; this one is ours."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.methods.contract import Batch, Learner, Method
from ltrobust.methods.settings import check_fractions, check_weights


def weak_class_reweight(
    method: Method, *, kappa: float = 1.0, kept: float = 0.7, plain_fraction: float = 0.1
) -> Method:
    """`L = mean_i w_{y_i} L_i` of the method's loss per example, with `weak_class_weights` w.

    After "Analysis and Applications of Class-wise Robustness in Adversarial Training" (KDD 2021, arXiv 2105.14240),
    which reports a small change of training that raises the weakest class; its formula is not known, and this one is
    ours. State: a, each class's robust accuracy on the validation part (PGD-20, which validation runs), averaged over
    epochs; -1 for a class of which no validation image was seen; and the method's own.

    Args:
      kappa: what is added to the weakest class's weight of 1; 0 is the method itself.
      kept: of the averaged class accuracies at an epoch; the average starts at the first one.
      plain_fraction: first epochs with w = 1, a fraction of the phase; epoch 1, which has no accuracy yet, always is
        one.

    Raises:
      ValueError: a setting out of range; or a method whose loss is not a mean over examples, or that sets radii,
        perturbs weights or reads validation itself.
    """
    check_weights("weak_class_reweight", kappa=kappa)
    check_fractions("weak_class_reweight", kept=kept, plain_fraction=plain_fraction)
    if not method.weighted:
        raise ValueError(
            f"weak_class_reweight cannot wrap {method.name}: its loss is not a mean over examples that takes weights, "
            "or it weighs classes itself; name it directly after a method such as pgd_at, trades, at_bsl or "
            "self_distillation."
        )
    if any(hook is not None for hook in (method.radii, method.perturb_weights, method.observe, method.end_epoch)):
        raise ValueError(
            f"weak_class_reweight cannot wrap {method.name}, which sets radii, perturbs weights or reads validation; "
            "name weak_class_reweight before awp and robust_lt, and leave out cfa."
        )
    if kappa == 0:
        return method

    def attack(learner: Learner, batch: Batch):
        return method.attack(learner.inside, batch)

    def loss(learner: Learner, batch: Batch, adv):
        state = learner.method_state
        accuracy = jnp.where(learner.epoch > learner.last_epoch_of(plain_fraction), state["accuracy"], -1.0)
        weights = weak_class_weights(accuracy, learner.class_counts, kappa=kappa)
        batch = dataclasses.replace(batch, weights=weights[batch.labels])
        value, outcome = method.loss(learner.inside, batch, adv)
        return value, dataclasses.replace(outcome, method_state=state | {"method": outcome.method_state})

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, Any]:
        return {"accuracy": jnp.full(class_counts.shape, -1.0), "method": method.initial_state(params, class_counts)}

    def end_epoch(learner: Learner, observed: Mapping[str, Any]) -> dict[str, Any]:
        state = learner.method_state
        before, now = np.asarray(state["accuracy"]), np.asarray(observed["robust"])
        moved = np.where(before < 0, now, kept * before + (1 - kept) * now)
        return state | {"accuracy": jnp.asarray(np.where(np.isnan(now), before, moved), jnp.float32)}

    return dataclasses.replace(
        method,
        attack=attack,
        loss=loss,
        objective=None,
        weighted=False,
        regularization=None,
        initial_state=initial_state,
        end_epoch=end_epoch,
    )


def weak_class_weights(accuracy: jax.Array, class_counts: jax.Array, *, kappa: float) -> jax.Array:
    """`w_c = (1 + kappa 1[c is weakest]) N / sum_k n_k (1 + kappa 1[k is weakest])`, [C].

    The mean over training images is 1, so that the size of a step stays; with equal counts that is the mean over
    classes. Of equally weak classes all are weakest.

    Args:
      accuracy: a, [C]; below 0 where it is not known: such a class is never the weakest.
      class_counts: n, [C].
      kappa: at least 0.
    """
    known = accuracy >= 0
    lowest = jnp.min(jnp.where(known, accuracy, jnp.inf))
    raised = 1 + kappa * (known & (accuracy == lowest)).astype(jnp.float32)
    return raised * jnp.sum(class_counts) / jnp.sum(class_counts * raised)
