"""Two teachers that pull equally hard: MTARD and B-MTARD (Zhao et al., ECCV 2022 and TPAMI 2024).

A robust teacher answers on x', a naturally trained one on x. The weights of the two losses follow how much of its first
value each still has, so that neither teacher is learned at the other's expense. The state is the same on all devices.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import label_objective
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.distillation import distilled, scaled_losses, teacher_logits
from ltrobust.methods.settings import check_fractions, check_weights
from ltrobust.methods.teacher import CLEAN_TEACHER, TEACHER

COLDEST, HOTTEST = 1.0, 10.0


def mtard(
    inner: InnerAttack, *, rate: float = 0.025, rate_drops: Sequence[float] = (), kl_scale: float = 0.1
) -> Method:
    """`L = w_a KL(p_ta(x') || p(x')) + w_n KL(p_tn(x) || p(x))`, x' from PGD on CE (Zhao et al., ECCV 2022).

    Before each loss is formed, with r_i the mean of loss i over the whole batch as a multiple of its first value,

        w_n <- w_n - rate (w_n - r_n / (r_a + r_n)),    w_a = 1 - w_n,    from w_n = 1/2.

    Train-mode passes: x', x.

    Args:
      rate: at which the loss weights follow the losses, in [0, 1].
      rate_drops: fractions of the phase after which the rate is a tenth, as in the learning rate's `drops`.
      kl_scale: multiplies both KLs; public code has other scales (docs/methods/distillation.md).

    Raises:
      ValueError: a setting outside of the above.
    """
    return _method("mtard", inner, rate, rate_drops, kl_scale, heat_rate=None)


def b_mtard(
    inner: InnerAttack,
    *,
    rate: float = 0.025,
    heat_rate: float = 0.001,
    rate_drops: Sequence[float] = (),
    kl_scale: float = 0.1,
) -> Method:
    """MTARD with a temperature for each teacher, which the more certain one raises (Zhao et al., TPAMI 2024).

    Teachers' logits are divided by T_a and T_n, the student's by 1. After the losses, H being the entropy of a tempered
    teacher averaged over the whole batch and the classes,

        T_a <- clip_[1,10]( T_a - q sign(H_a / H_n - 1) ),    T_n <- clip_[1,10]( T_n - q sign(H_n / H_a - 1) )

    from 1. The paper updates both loss weights, cuts them at 0 and divides by their sum: from 1/2 and with targets that
    add up to 1 that is MTARD's rule.

    Args:
      rate: at which the loss weights follow the losses, in [0, 1].
      heat_rate: q, by which the teachers' temperatures move in a step, at least 0.
      rate_drops: fractions of the phase after which both rates are a tenth.
      kl_scale: multiplies both KLs; public code has other scales (docs/methods/distillation.md).

    Raises:
      ValueError: a setting outside of the above.
    """
    check_weights("b_mtard", heat_rate=heat_rate)
    return _method("b_mtard", inner, rate, rate_drops, kl_scale, heat_rate=heat_rate)


def updated_weight(clean_weight, adv_ratio, clean_ratio, rate):
    """`w_n - rate (w_n - r_n / (r_a + r_n))`."""
    return clean_weight - rate * (clean_weight - clean_ratio / (adv_ratio + clean_ratio))


def _method(
    name: str, inner: InnerAttack, rate: float, rate_drops: Sequence[float], kl_scale: float, heat_rate: float | None
) -> Method:
    """MTARD, with temperatures where they have a rate."""
    check_weights(name, kl_scale=kl_scale)
    check_fractions(name, rate=rate)
    if any(not 0 < drop <= 1 for drop in rate_drops):
        raise ValueError(f"{name}.rate_drops are {tuple(rate_drops)}; they are fractions of the phase, in (0, 1].")

    def loss(learner: Learner, batch: Batch, adv_images):
        state = learner.method_state
        adv_logits, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        robust, natural = teacher_logits(learner, adv_images), teacher_logits(learner, batch.images, CLEAN_TEACHER)
        if heat_rate is not None:
            robust, natural = robust / state["heat"][0], natural / state["heat"][1]
        pairs = ((robust, adv_logits), (natural, clean_logits))
        slow = _slowed(learner, rate_drops)
        state = _weighed(learner, state, [objectives.kl_divergence(*pair) for pair in pairs], rate * slow)
        if heat_rate is not None:
            state |= {"heat": _heated(learner, state["heat"], (robust, natural), heat_rate * slow)}
        adv_loss, clean_loss = scaled_losses(batch, kl_scale, *pairs)
        metrics = {"adv_loss": adv_loss, "clean_loss": clean_loss, "clean_weight": state["clean_weight"]}
        value = (1 - state["clean_weight"]) * adv_loss + state["clean_weight"] * clean_loss
        return value, Outcome(learner.batch_stats, state, adv_logits, metrics)

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, jax.Array]:
        """`first` is negative until the first step has seen its losses."""
        state = {"clean_weight": jnp.float32(0.5), "first": jnp.full(2, -1.0, jnp.float32)}
        return state if heat_rate is None else state | {"heat": jnp.ones(2, jnp.float32)}

    names = (TEACHER, CLEAN_TEACHER)
    method = distilled(name, inner, label_objective(inner), loss, teachers=names)
    # Loss weights and temperatures follow the means of the whole batch.
    return dataclasses.replace(method, initial_state=initial_state, separable=False)


def _slowed(learner: Learner, drops: Sequence[float]) -> jax.Array:
    """A tenth for each drop that lies behind, by the rule of the learning rate's drops."""
    ends = jnp.floor(jnp.asarray(tuple(drops), jnp.float32) * learner.epochs + 1e-3)
    return 0.1 ** jnp.sum(learner.epoch.astype(jnp.float32) > ends, dtype=jnp.float32)


def _weighed(learner: Learner, state: dict[str, jax.Array], distances: list[jax.Array], rate: jax.Array):
    """The state after the weights have followed the two losses, whose unscaled distances are [B]."""
    means = jax.lax.stop_gradient(jnp.stack([jnp.mean(distance) for distance in distances]))
    # Of the whole batch: the state must be the same on all devices.
    losses = jax.lax.pmean(means, learner.axis_name)
    first = jnp.where(state["first"] < 0, losses, state["first"])
    # A loss that began at 0 has nothing to lose; without the floor its ratio would not be a number.
    adv_ratio, clean_ratio = jnp.maximum(losses, 1e-12) / jnp.maximum(first, 1e-12)
    weight = updated_weight(state["clean_weight"], adv_ratio, clean_ratio, rate)
    return state | {"clean_weight": weight, "first": first}


def _heated(learner: Learner, heat: jax.Array, logits: tuple[jax.Array, jax.Array], rate: jax.Array) -> jax.Array:
    """Temperatures (of the robust, of the natural teacher) after the more entropic one's has fallen."""

    def entropy(tempered: jax.Array) -> jax.Array:
        log = jax.nn.log_softmax(tempered)
        return jax.lax.pmean(-jnp.mean(jnp.exp(log) * log), learner.axis_name)

    robust, natural = (entropy(tempered) for tempered in logits)
    direction = jnp.sign(robust - natural)
    return jnp.clip(heat - rate * jnp.stack([direction, -direction]), COLDEST, HOTTEST)
