"""Distillation that trusts the teacher as far as it knows the answer: IAD-I, IAD-II, AdaIAD.

The guide weight of an example is `A = (p_t(x')_y)^power`, a constant: how much of its true class a teacher still sees
in the adversarial image. What the teacher does not know, `1 - A`, the student takes from its own answer on the clean
image, `p(x)`, which is differentiated.
"""

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import label_objective
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.distillation import (
    distilled,
    teacher_logits,
    teacher_objective,
)
from ltrobust.methods.settings import check_positive, check_variant, check_weights
from ltrobust.methods.teacher import CLEAN_TEACHER, TEACHER


def guide_weight(teacher_adv_logits: jax.Array, labels: jax.Array, power: float) -> jax.Array:
    """`(p_t(x')_y)^power`, [B] in (0, 1]."""
    return jnp.exp(-power * objectives.cross_entropy(teacher_adv_logits, labels))


def iad(
    inner: InnerAttack,
    *,
    own_from: int = 60,
    guide_power: float = 0.1,
    kl_scale: float = 1.0,
    variant: str = "as_described",
) -> Method:
    """`L = KL(p_t(x) || p(x')) + mean_i (1 - A_i) KL_i(p(x) || p(x'))`, x' from PGD on CE.

    IAD-I (Zhu et al., ICLR 2022). The second term begins after `own_from` epochs; until then, and for A = 1, this is
    ARD. Train-mode passes: x', x (`as_described`), or x', x', x and, with the second term, x once more (`as_released`:
    the same values, further updates of the running statistics).

    Args:
      own_from: epochs before the student's own answer counts.
      guide_power: of the teacher's probability of the true class, in A.
      kl_scale: multiplies both KLs; public code has other scales (docs/methods/distillation.md).
      variant: `as_described`: train-mode passes x', x; `as_released`: x', x', x and late x again.

    Raises:
      ValueError: negative `own_from`, power or scale, or an unknown variant.
    """
    _check("iad", own_from, guide_power, kl_scale)
    check_variant("iad", variant)

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        if variant == "as_released":
            _, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        if variant == "as_released":
            _, learner = learner.forward_if(learner.epoch > own_from, batch.images)
        guide = guide_weight(teacher_logits(learner, adv_images), batch.labels, guide_power)
        distance = objectives.kl_divergence(teacher_logits(learner, batch.images), adv_logits)
        own = _own_term(learner, own_from, guide, clean_logits, adv_logits)
        return _outcome(learner, batch, adv_logits, kl_scale, distance, own, guide)

    passes = ("adv", "adv", "clean") if variant == "as_released" else ("adv", "clean")
    return distilled("iad", inner, label_objective(inner), loss, passes=passes)


def iad2(
    inner: InnerAttack,
    *,
    own_from: int = 40,
    guide_power: float = 0.1,
    kl_scale: float = 1.0,
    variant: str = "as_described",
) -> Method:
    """IAD-II (Zhu et al., ICLR 2022), with a second, naturally trained teacher p_n. x' from PGD on CE.

        L = 1/4 CE(z(x'), y) + 1/2 mean_i [A_i KL_i(p_t(x') || p(x')) + (1 - A_i) KL_i(p(x) || p(x'))]
          + 1/4 KL(p_n(x') || p(x'))

    For the first `own_from` epochs A = 1. Train-mode passes: x', x; `as_released`: x' alone in these epochs.

    Args:
      own_from: epochs before the student's own answer counts.
      guide_power: of the teacher's probability of the true class, in A.
      kl_scale: multiplies the KLs; public code has other scales (docs/methods/distillation.md).
      variant: `as_described`: train-mode passes x', x; `as_released`: early x' alone.

    Raises:
      ValueError: negative `own_from`, power or scale, or an unknown variant.
    """
    _check("iad2", own_from, guide_power, kl_scale)
    check_variant("iad2", variant)

    def loss(learner: Learner, batch: Batch, adv_images):
        late = learner.epoch > own_from
        adv_logits, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward_if(late | (variant == "as_described"), batch.images)
        robust = teacher_logits(learner, adv_images)
        guide = jnp.where(late, guide_weight(robust, batch.labels, guide_power), 1.0)
        distance = guide * objectives.kl_divergence(robust, adv_logits) / 2
        natural = teacher_logits(learner, adv_images, CLEAN_TEACHER)
        distance += objectives.kl_divergence(natural, adv_logits) / 4
        own = (1 - guide) * objectives.kl_divergence(clean_logits, adv_logits) / 2
        value, outcome = _outcome(learner, batch, adv_logits, kl_scale, distance, own, guide)
        return value + batch.mean(objectives.cross_entropy(adv_logits, batch.labels)) / 4, outcome

    names = (TEACHER, CLEAN_TEACHER)
    return distilled("iad2", inner, label_objective(inner), loss, teachers=names)


def adaiad(
    inner: InnerAttack,
    *,
    own_from: int = 60,
    guide_power: float = 0.1,
    temperature: float = 30.0,
    kl_scale: float = 1.0,
    variant: str = "as_described",
) -> Method:
    """`L = T^2 KL_T(p_t(x') || p(x')) + mean_i (1 - A_i) KL_i(p(x) || p(x'))`, x' from AdaAD's attack.

    Huang et al., CVPR 2023. The temperature is on the first term only; the second begins after `own_from` epochs.
    Train-mode passes: x, x' (`as_described`), or x, x', x and, with the second term, x once more (`as_released`: the
    same values, further updates of the running statistics).

    Args:
      own_from: epochs before the student's own answer counts.
      guide_power: of the teacher's probability of the true class, in A.
      temperature: T of the teacher's KL.
      kl_scale: multiplies both KLs; public code has other scales (docs/methods/distillation.md).
      variant: `as_described`: train-mode passes x, x'; `as_released`: x, x', x and late x again.

    Raises:
      ValueError: negative `own_from`, power or scale, a temperature that is not positive, or an unknown variant.
    """
    _check("adaiad", own_from, guide_power, kl_scale, temperature=temperature)
    check_variant("adaiad", variant)

    def loss(learner: Learner, batch: Batch, adv_images):
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        if variant == "as_released":
            _, learner = learner.forward(batch.images, bn="train")
            _, learner = learner.forward_if(learner.epoch > own_from, batch.images)
        robust = teacher_logits(learner, adv_images)
        guide = guide_weight(robust, batch.labels, guide_power)
        distance = temperature**2 * objectives.kl_divergence(robust, adv_logits, temperature)
        own = _own_term(learner, own_from, guide, clean_logits, adv_logits)
        return _outcome(learner, batch, adv_logits, kl_scale, distance, own, guide)

    passes = ("clean", "adv", "clean") if variant == "as_released" else ("clean", "adv")
    return distilled("adaiad", inner, teacher_objective(inner), loss, passes=passes)


def _own_term(learner: Learner, own_from: int, guide: jax.Array, clean_logits: jax.Array, adv_logits: jax.Array):
    """`(1 - A) KL(p(x) || p(x'))` per example, 0 for the first `own_from` epochs."""
    own = (1 - guide) * objectives.kl_divergence(clean_logits, adv_logits)
    return jnp.where(learner.epoch > own_from, own, 0.0)


def _outcome(learner: Learner, batch: Batch, adv_logits: jax.Array, scale: float, distance, own, guide):
    """The scaled sum of the teacher's and the student's own term, each [B], and what is recorded of them."""
    teacher_loss, own_loss = scale * batch.mean(distance), scale * batch.mean(own)
    metrics = {"teacher_loss": teacher_loss, "own_loss": own_loss, "guide": jnp.mean(guide)}
    return teacher_loss + own_loss, Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)


def _check(name: str, own_from: int, guide_power: float, kl_scale: float, *, temperature: float = 1.0) -> None:
    """Refuses what cannot be an epoch, a power, a scale or a temperature."""
    check_weights(name, kl_scale=kl_scale)
    check_positive(name, temperature=temperature)
    if own_from < 0 or not guide_power >= 0:
        raise ValueError(
            f"{name}.own_from is {own_from} and {name}.guide_power is {guide_power}; both must be at least 0."
        )
