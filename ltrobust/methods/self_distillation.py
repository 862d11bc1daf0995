"""The student of long-tailed adversarial training with self-distillation (Cho, Lee and Kim, ICLR 2025).

    L = label_weight * BSL(z(x'), y)
      + alpha * T^2 * KL( softmax(z_t(x')/T) || softmax(z(x')/T) )
      + beta * ramp * KL( softmax[z_t(x+d) - z_t(x-d)] || softmax[z(x+d) - z(x-d)] )        d = x' - x

with z_t the frozen teacher, trained adversarially on a class-balanced subset (any method, see the `teacher` phase). The
form of the distillation term, the weights and the inner objective are this project's reading, stated in
`docs/methods/self_distillation.md`; every alternative of the ablations is a setting below.
"""

import functools

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import attack_cross_entropy
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome, attack_on
from ltrobust.methods.distillation import teacher_objective
from ltrobust.methods.igdm import MINUS_MODES, igdm_term
from ltrobust.methods.settings import check_choices, check_positive, check_weights
from ltrobust.methods.teacher import TEACHER
from ltrobust.models import BatchNormMode

LABEL_LOSSES = ("bsl", "ce")
TEACHER_INPUTS = ("adv", "clean")
INNER_OBJECTIVES = ("ce", "bsl", "teacher_kl")
RAMPS = ("linear", "none")


def self_distillation(
    inner: InnerAttack,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    label_weight: float = 1.0,
    label_loss: str = "bsl",
    temperature: float = 1.0,
    teacher_input: str = "adv",
    inner_objective: str = "ce",
    ramp: str = "linear",
    clean_forward: bool = True,
    minus_bn: BatchNormMode = "train",
    clip_minus: bool = False,
) -> Method:
    """The student's method; with `alpha = beta = 0` it is AT-BSL and needs no teacher.

    Train-mode passes in order: x'; then, only if beta > 0, x (statistics only, if `clean_forward`) and x - d. log n
    enters the label loss only (and the attack only where `inner_objective` is `bsl`).

    Args:
      alpha: weight of the logit KL, at least 0.
      beta: weight of indirect gradient matching (IGDM), at least 0.
      label_weight: weight of the label loss, at least 0.
      label_loss: `bsl` (balanced softmax) or `ce`.
      temperature: T > 0 of the logit KL.
      teacher_input: what the teacher sees in the logit KL: `adv` (x') or `clean` (x, as in ARD).
      inner_objective: of the attack: `ce`, `bsl`, or `teacher_kl`: KL(p_t(x') || p(x')) differentiated through both
        networks.
      ramp: of beta: `linear` (epoch / epochs) or `none` (1).
      clean_forward: whether a pass on x updates the running statistics, if beta > 0.
      minus_bn: BatchNorm mode of the x - d pass, `train` or `batch_frozen`.
      clip_minus: whether x - d is cut to the pixel bounds (the authors' IGDM code does not).

    Raises:
      ValueError: a setting outside of the above.
    """
    check_weights("self_distillation", alpha=alpha, beta=beta, label_weight=label_weight)
    check_positive("self_distillation", temperature=temperature)
    check_choices(
        "self_distillation",
        label_loss=(label_loss, LABEL_LOSSES),
        teacher_input=(teacher_input, TEACHER_INPUTS),
        inner_objective=(inner_objective, INNER_OBJECTIVES),
        ramp=(ramp, RAMPS),
        minus_bn=(minus_bn, MINUS_MODES),
    )
    needs_teacher = alpha > 0 or beta > 0 or inner_objective == "teacher_kl"

    def label_term(learner: Learner, logits: jax.Array, labels: jax.Array) -> jax.Array:
        if label_loss == "ce":
            return objectives.cross_entropy(logits, labels)
        return objectives.balanced_softmax(logits, labels, learner.class_counts)

    matching = functools.partial(
        igdm_term, threat=inner.threat, clean_forward=clean_forward, minus_bn=minus_bn, clip_minus=clip_minus
    )

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        label_value = batch.mean(label_term(learner, adv_logits, batch.labels))
        total, logit_value = label_weight * label_value, jnp.float32(0)
        if alpha > 0:
            teacher_images = adv_images if teacher_input == "adv" else batch.images
            teacher_logits = jax.lax.stop_gradient(learner.teachers[TEACHER].logits(teacher_images))
            logit_value = batch.mean(objectives.kl_divergence(teacher_logits, adv_logits, temperature))
            total += alpha * temperature**2 * logit_value
        metrics = {"label_loss": label_value, "logit_loss": logit_value}
        if beta > 0:
            term, recorded, learner = matching(learner, batch, adv_images, adv_logits)
            total += beta * (learner.progress if ramp == "linear" else 1.0) * term
            metrics |= recorded
        return total, Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)

    return Method(
        name="self_distillation",
        attack=_attack(inner, inner_objective),
        loss=loss,
        inner=inner,
        teachers=(TEACHER,) if needs_teacher else (),
        passes=("adv", *((("clean",) * clean_forward + ("minus",) * (minus_bn == "train")) if beta > 0 else ())),
        weighted=True,
        separable=True,
        matches_gradients=beta > 0,
    )


def _attack(inner: InnerAttack, inner_objective: str):
    """The inner maximisation, BatchNorm in the attack's mode."""
    if inner_objective == "ce":
        return attack_cross_entropy(inner)
    if inner_objective == "teacher_kl":
        return attack_on(inner, teacher_objective(inner))

    def attack(learner: Learner, batch: Batch):
        def objective(images: jax.Array) -> jax.Array:
            logits, _ = learner.forward(images, bn=inner.bn)
            return objectives.balanced_softmax(logits, batch.labels, learner.class_counts)

        return inner(objective, batch)

    return attack
