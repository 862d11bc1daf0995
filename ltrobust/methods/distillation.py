"""Adversarial distillation from one frozen teacher: ARD, RSLAD, AdaAD, and what the other forms share with them.

Teachers run in eval mode and behind a stopped gradient in the loss; AdaAD's attack alone follows their input gradient.
`kl_scale` multiplies every KL between teacher and student. It carries over what public code divides by: 0.1 is the mean
over 10 classes besides the mean over images, 1 / C that over C classes. The weights that papers give to further terms,
IGDM's above all, belong to the scale of their code.
"""

import jax

from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import label_objective
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Objective, Outcome, attack_on
from ltrobust.methods.settings import check_choices, check_fractions, check_positive, check_weights
from ltrobust.methods.teacher import TEACHER

INNER_OBJECTIVES = ("teacher_kl", "ce")
ADAAD_PASSES = ("clean_adv", "adv_clean")


def teacher_logits(learner: Learner, images: jax.Array, name: str = TEACHER) -> jax.Array:
    """A teacher's logits [B, C] as a loss may use them: constants."""
    return jax.lax.stop_gradient(learner.teachers[name].logits(images))


def teacher_objective(inner: InnerAttack) -> Objective:
    """`KL(p_t(x') || p(x'))` at the same moving input, differentiated through both networks (Huang et al. 2023)."""

    def objective(learner: Learner, batch: Batch):
        def ascended(images: jax.Array):
            logits, _ = learner.forward(images, bn=inner.bn)
            return objectives.kl_divergence(learner.teachers[TEACHER].logits(images), logits), logits

        return ascended

    return objective


def clean_target_objective(inner: InnerAttack) -> Objective:
    """`KL(p_t(x) || p(x'))` with the teacher's answer on the clean image, a constant (Zi et al. 2021)."""

    def objective(learner: Learner, batch: Batch):
        target = teacher_logits(learner, batch.images)

        def ascended(images: jax.Array):
            logits, _ = learner.forward(images, bn=inner.bn)
            return objectives.kl_divergence(target, logits), logits

        return ascended

    return objective


def ard(inner: InnerAttack, *, teacher_weight: float = 1.0, temperature: float = 1.0, kl_scale: float = 1.0) -> Method:
    """`L = w T^2 KL(softmax(z_t(x)/T) || softmax(z(x')/T)) + (1 - w) CE(z(x), y)`, x' from PGD on CE.

    Goldblum et al., AAAI 2020. The teacher sees the clean image. Train-mode passes: x', x. The authors' code is
    reached by settings: T = 30, `kl_scale` 1 / C, start `uniform_raw`, and `attack.bn` `batch_frozen` for an attack in
    train mode (theirs also updates the running statistics).

    Args:
      teacher_weight: w of the KL; the rest is the cross-entropy on clean images.
      temperature: T of the KL.
      kl_scale: multiplies the KL; public code has other scales (docs/methods/distillation.md).

    Raises:
      ValueError: a weight outside [0, 1], a temperature that is not positive, or a negative scale.
    """
    check_weights("ard", kl_scale=kl_scale)
    check_positive("ard", temperature=temperature)
    check_fractions("ard", teacher_weight=teacher_weight)

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        distance = objectives.kl_divergence(teacher_logits(learner, batch.images), adv_logits, temperature)
        kl_loss = kl_scale * temperature**2 * batch.mean(distance)
        label_loss = batch.mean(objectives.cross_entropy(clean_logits, batch.labels))
        metrics = {"kl_loss": kl_loss, "label_loss": label_loss}
        value = teacher_weight * kl_loss + (1 - teacher_weight) * label_loss
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)

    return distilled("ard", inner, label_objective(inner), loss)


def rslad(inner: InnerAttack, *, adv_weight: float = 5 / 6, kl_scale: float = 0.1) -> Method:
    """`L = w KL(p_t(x) || p(x')) + (1 - w) KL(p_t(x) || p(x))`, x' from PGD on KL(p_t(x) || p(.)).

    Zi et al., ICCV 2021. The teacher's answer on the clean image is the only label, in the attack too. Train-mode
    passes: x', x.

    Args:
      adv_weight: w of the KL on adversarial images; the rest is on clean ones.
      kl_scale: multiplies both KLs; public code has other scales (docs/methods/distillation.md).

    Raises:
      ValueError: a weight outside [0, 1], or a negative scale.
    """
    check_weights("rslad", kl_scale=kl_scale)
    check_fractions("rslad", adv_weight=adv_weight)

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        target = teacher_logits(learner, batch.images)
        adv_loss, clean_loss = scaled_losses(batch, kl_scale, (target, adv_logits), (target, clean_logits))
        metrics = {"adv_loss": adv_loss, "clean_loss": clean_loss}
        value = adv_weight * adv_loss + (1 - adv_weight) * clean_loss
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)

    return distilled("rslad", inner, clean_target_objective(inner), loss)


def adaad(
    inner: InnerAttack,
    *,
    adv_weight: float = 1.0,
    inner_objective: str = "teacher_kl",
    passes: str = "clean_adv",
    kl_scale: float = 1.0,
) -> Method:
    """`L = w KL(p_t(x') || p(x')) + (1 - w) KL(p_t(x) || p(x))`, x' from PGD on KL(p_t(.) || p(.)) through both.

    Huang et al., CVPR 2023. The attack looks for the points where student and teacher disagree; `inner_objective` `ce`
    is the cheap form, CE on the student alone. Train-mode passes: x, x', or x', x with `passes` `adv_clean`, the order
    in which IGDM's paper adds x - d.

    Args:
      adv_weight: w of the KL on adversarial images; the rest is on clean ones.
      inner_objective: of the attack: `teacher_kl` (through both networks) or `ce` (the cheap form).
      passes: order of the train-mode passes: `clean_adv` or `adv_clean`.
      kl_scale: multiplies both KLs; public code has other scales (docs/methods/distillation.md).

    Raises:
      ValueError: a weight outside [0, 1], a negative scale, unknown passes or inner objective.
    """
    check_weights("adaad", kl_scale=kl_scale)
    check_fractions("adaad", adv_weight=adv_weight)
    check_choices("adaad", inner_objective=(inner_objective, INNER_OBJECTIVES), passes=(passes, ADAAD_PASSES))

    def loss(learner: Learner, batch: Batch, adv_images):
        if passes == "adv_clean":
            adv_logits, learner = learner.forward(adv_images, bn="train")
            clean_logits, learner = learner.forward(batch.images, bn="train")
        else:
            clean_logits, learner = learner.forward(batch.images, bn="train")
            adv_logits, learner = learner.forward(adv_images, bn="train")
        on_adv = (teacher_logits(learner, adv_images), adv_logits)
        on_clean = (teacher_logits(learner, batch.images), clean_logits)
        adv_loss, clean_loss = scaled_losses(batch, kl_scale, on_adv, on_clean)
        metrics = {"adv_loss": adv_loss, "clean_loss": clean_loss}
        value = adv_weight * adv_loss + (1 - adv_weight) * clean_loss
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)

    objective = teacher_objective(inner) if inner_objective == "teacher_kl" else label_objective(inner)
    order = ("clean", "adv") if passes == "clean_adv" else ("adv", "clean")
    return distilled("adaad", inner, objective, loss, passes=order)


def scaled_losses(batch: Batch, scale: float, *pairs: tuple[jax.Array, jax.Array]) -> list[jax.Array]:
    """The scaled mean KL of each (target logits, logits)."""
    return [scale * batch.mean(objectives.kl_divergence(target, logits)) for target, logits in pairs]


def distilled(
    name: str,
    inner: InnerAttack,
    objective: Objective,
    loss,
    *,
    teachers: tuple[str, ...] = (TEACHER,),
    passes: tuple[str, ...] = ("adv", "clean"),
) -> Method:
    """A method whose loss is a weighted mean over examples and whose attack is PGD on an objective."""
    attack = attack_on(inner, objective)
    return Method(
        name, attack, loss, inner, teachers, passes=passes, objective=objective, weighted=True, separable=True
    )
