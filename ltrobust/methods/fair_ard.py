"""Fair-ARD: classes that are easy to attack count for more in the student's loss (Yue et al., NeurIPS 2023)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ltrobust.methods.contract import Batch, Learner, Method
from ltrobust.methods.settings import check_variant


def class_weights(
    tally: jax.Array, seen: jax.Array, *, exponent: float = 2.0, lower: float = 5 / 6, upper: float = 5 / 2
) -> jax.Array:
    """`clip( C (kappa_c + 1e-5)^-p / sum_j (kappa_j + 1e-5)^-p )`, with kappa_c = tally_c / seen_c; float32 [C].

    kappa_c is the mean number of attack iterates at which an image of class c is still classified correctly. Equal
    kappas give 1. A class that was not seen gets 1 and is left out of C and of the sum.
    """
    kappa = tally / jnp.maximum(seen, 1)
    hardness = jnp.where(seen > 0, (kappa + 1e-5) ** -exponent, 0.0)
    share = hardness / jnp.maximum(jnp.sum(hardness), 1e-30)
    weights = jnp.clip(jnp.sum(seen > 0, dtype=jnp.float32) * share, lower, upper)
    return jnp.where(seen > 0, weights, 1.0)


def fair_ard(
    method: Method,
    *,
    exponent: float = 2.0,
    lower: float = 5 / 6,
    upper: float = 5 / 2,
    variant: str = "as_described",
) -> Method:
    """`L = mean_i w_{y_i} L_i` of the method's loss per example, with `class_weights` of the epoch before.

    The attack is the method's own; on its way the iterates x_0 .. x_{K-1} that are still classified correctly are
    counted. The first epoch's weights are 1; later ones are not scaled to a mean of 1. State: weights, the sums per
    class of the current epoch over all devices, and its number; new weights are formed at the first step of an epoch.

    Args:
      exponent: how strongly hard classes count (p), at least 0; 0 gives the method itself.
      lower, upper: bounds of the class weights.
      variant: `as_described` divides a class's count by its images; `as_released` by N / C, as if all had as many.

    Raises:
      ValueError: a setting outside of the above; or a method whose loss is not a mean over examples, whose attack is
        not PGD on an objective, or that reads its own state outside of its loss.
    """
    if not exponent >= 0 or not 0 < lower <= 1 <= upper:
        raise ValueError(
            f"fair_ard.exponent is {exponent}, lower {lower}, upper {upper}; needed are exponent >= 0 and "
            "0 < lower <= 1 <= upper."
        )
    check_variant("fair_ard", variant)
    objective = method.objective
    if objective is None or not method.weighted:
        raise ValueError(
            f"fair_ard cannot wrap {method.name}: it needs a loss that is a mean over examples and an attack that "
            "follows one objective, as ard, iad, rslad, adaad and mtard have."
        )
    if any(hook is not None for hook in (method.radii, method.perturb_weights, method.observe, method.end_epoch)):
        raise ValueError(f"fair_ard cannot wrap {method.name}; name it before the other wrappers.")

    def attack(learner: Learner, batch: Batch):
        ascended = objective(learner, batch)

        def counted(images: jax.Array):
            values, logits = ascended(images)
            return values, jnp.argmax(logits, axis=-1) == batch.labels

        return method.inner.tallied(counted, batch)

    def loss(learner: Learner, batch: Batch, adv):
        adv_images, tally = adv
        state = learner.method_state
        own = {name: state[name] for name in ("weights", "tally", "seen", "epoch")}
        own = jax.lax.cond(own["epoch"] == learner.epoch, lambda own: own, renewed, own) | {"epoch": learner.epoch}
        batch = dataclasses.replace(batch, weights=own["weights"][batch.labels])
        value, outcome = method.loss(learner.inside, batch, adv_images)
        own |= _counted(learner, batch.labels, own, tally)
        return value, dataclasses.replace(outcome, method_state=own | {"method": outcome.method_state})

    def renewed(own: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """At the first step of an epoch: weights from the sums of the one before, and empty sums."""
        seen = own["seen"]
        divisor = seen if variant == "as_described" else jnp.full_like(seen, jnp.mean(seen))
        weights = class_weights(own["tally"], divisor, exponent=exponent, lower=lower, upper=upper)
        return own | {"weights": weights, "tally": jnp.zeros_like(seen), "seen": jnp.zeros_like(seen)}

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, Any]:
        nothing = jnp.zeros(class_counts.shape, jnp.float32)
        own = {"weights": nothing + 1, "tally": nothing, "seen": nothing, "epoch": jnp.int32(1)}
        return own | {"method": method.initial_state(params, class_counts)}

    return dataclasses.replace(
        method,
        attack=attack,
        loss=loss,
        adv_images=lambda adv: adv[0],
        objective=None,  # its tally is taken; a second count beside it would go unread
        weighted=False,
        initial_state=initial_state,
    )


def _counted(learner: Learner, labels: jax.Array, own: dict[str, jax.Array], tally: jax.Array) -> dict[str, jax.Array]:
    """The sums per class after this batch, over all devices."""
    of_class = jax.nn.one_hot(labels, len(own["seen"]), dtype=jnp.float32)
    added = {"tally": tally.astype(jnp.float32) @ of_class, "seen": jnp.sum(of_class, axis=0)}
    return jax.tree.map(jnp.add, {name: own[name] for name in added}, jax.lax.psum(added, learner.axis_name))
