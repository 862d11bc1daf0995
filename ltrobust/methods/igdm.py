"""Indirect gradient matching (Lee, Cho and Kim, ICLR 2025): its term, and the wrapper that adds it to a method.

    L_igdm = KL( softmax sg[z_t(x+d) - z_t(x-d)] || softmax[z(x+d) - z(x-d)] )        d = x' - x

To first order the differences are 2 J d, so the student learns how the teacher's logits answer to a perturbation.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.methods.contract import Batch, Learner, Method
from ltrobust.methods.declarations import declares
from ltrobust.methods.settings import check_choices
from ltrobust.methods.teacher import TEACHER
from ltrobust.models import BatchNormMode
from ltrobust.threat import Threat

MINUS_MODES = ("train", "batch_frozen")


def indirect_gradient_matching(teacher_difference: jax.Array, difference: jax.Array) -> jax.Array:
    """`KL(softmax sg[z_t(x+d) - z_t(x-d)] || softmax(z(x+d) - z(x-d)))` per example.

    IGDM (Lee, Cho and Kim, ICLR 2025). Both differences are [B, C]; a constant added to a network's logits leaves the
    term unchanged. Returns [B].
    """
    return objectives.kl_divergence(jax.lax.stop_gradient(teacher_difference), difference)


def igdm_term(
    learner: Learner,
    batch: Batch,
    adv_images: jax.Array,
    adv_logits: jax.Array,
    *,
    threat: Threat,
    clean_forward: bool,
    minus_bn: BatchNormMode,
    clip_minus: bool,
) -> tuple[jax.Array, dict[str, jax.Array], Learner]:
    """The term's mean over the batch, with the passes that it needs beyond the one on x'.

    Args:
      learner: after the pass that gave `adv_logits`, which is differentiated too.
      clean_forward: whether x passes in train mode first, for its statistics only.
      minus_bn: BatchNorm mode of the x - d pass.
      clip_minus: whether x - d is cut to the threat's pixel bounds.

    Returns:
      The term; what is recorded of it, the term itself and `teacher_peak`, the batch mean of the largest entry of
      softmax(z_t(x+d) - z_t(x-d)), near 1 for a teacher that is not robust; the learner after its passes.
    """
    teacher = learner.teachers[TEACHER]
    minus = 2 * batch.images - adv_images
    minus = jnp.clip(minus, threat.lower, threat.upper) if clip_minus else minus
    if clean_forward:
        _, learner = learner.forward(batch.images, bn="train")
    minus_logits, learner = learner.forward(minus, bn=minus_bn)
    teacher_difference = teacher.logits(adv_images) - teacher.logits(minus)
    term = batch.mean(indirect_gradient_matching(teacher_difference, adv_logits - minus_logits))
    peak = jnp.mean(jnp.max(jax.nn.softmax(teacher_difference), axis=-1))
    return term, {"igdm_loss": term, "teacher_peak": peak}, learner


@declares(needs=("passes", "plain_outputs"), sets=("matches_gradients",))
def igdm(
    method: Method,
    *,
    alpha: float = 10.0,
    ramp_epochs: int = 0,
    minus_bn: BatchNormMode = "train",
    clip_minus: bool = False,
) -> Method:
    """`L_method + alpha * (epoch / E) * L_igdm`, with the method's own attack and the teacher named `teacher`.

    After the method's passes come, in train mode: x where the method has none of its own (statistics only), then x - d.
    `alpha = 0` is the method itself.

    Args:
      alpha: weight of the term, at least 0.
      ramp_epochs: E, over which the weight rises; 0 for the length of the phase (the paper's), 200 or 300 for the
        released scripts' whatever it is.
      minus_bn: BatchNorm mode of the x - d pass, `train` or `batch_frozen`.
      clip_minus: whether x - d is cut to the pixel bounds; the authors' code does not.

    Raises:
      ValueError: a setting outside of the above.
    """
    if not alpha >= 0 or ramp_epochs < 0:
        raise ValueError(f"igdm.alpha is {alpha} and igdm.ramp_epochs is {ramp_epochs}; both must be at least 0.")
    check_choices("igdm", minus_bn=(minus_bn, MINUS_MODES))
    if alpha == 0:
        return method
    clean_forward = "clean" not in (method.passes or ())

    def loss(learner: Learner, batch: Batch, adv):
        value, outcome = method.loss(learner, batch, adv)
        term, metrics, learner = igdm_term(
            dataclasses.replace(learner, batch_stats=outcome.batch_stats),
            batch,
            method.adv_images(adv),
            outcome.adv_logits,
            threat=method.inner.threat,
            clean_forward=clean_forward,
            minus_bn=minus_bn,
            clip_minus=clip_minus,
        )
        ramp = learner.epoch.astype(jnp.float32) / ramp_epochs if ramp_epochs else learner.progress
        outcome = dataclasses.replace(outcome, batch_stats=learner.batch_stats, metrics=outcome.metrics | metrics)
        return value + alpha * ramp * term, outcome

    added = ("clean",) * clean_forward + ("minus",) * (minus_bn == "train")
    return dataclasses.replace(
        method,
        loss=loss,
        matches_gradients=True,
        teachers=method.teachers if TEACHER in method.teachers else (*method.teachers, TEACHER),
        passes=(*(method.passes or ()), *added),
    )
