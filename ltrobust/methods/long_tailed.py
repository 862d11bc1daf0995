"""Adversarial training that reads the class counts, or the class means of a batch: AT-BSL, RoBal, TAET."""

import dataclasses

import jax
import jax.numpy as jnp

from ltrobust import models
from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import attack_cross_entropy
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.settings import check_fractions, check_positive, check_variant, check_weights


def at_bsl(inner: InnerAttack, *, tau: float = 1.0) -> Method:
    """`L = CE(z(x') + tau log n, y)`, x' from PGD on CE of the plain logits (Yue et al., CVPR 2024, with `tau = 1`).

    `log n` enters this loss only: neither the attack nor the test sees it. One train-mode pass, on x'.

    Args:
      tau: of the log counts; above 1 the network predicts rare classes more often.

    Raises:
      ValueError: a negative tau.
    """
    check_weights("at_bsl", tau=tau)

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        value = batch.mean(objectives.balanced_softmax(adv_logits, batch.labels, learner.class_counts, tau))
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, {})

    attack = attack_cross_entropy(inner)
    passes = ("adv",)
    return Method("at_bsl", attack, loss, inner, passes=passes, weighted=True, separable=True)


@dataclasses.dataclass(frozen=True)
class ScaledAndShifted:
    """RoBal's rule at test time, `scale z - tau log(n / N)`; equal settings make equal rules."""

    scale: float
    tau: float

    def __call__(self, outputs: jax.Array, class_counts: jax.Array) -> jax.Array:
        """Logits [B, C] from cosines [B, C] and training counts [C]."""
        return self.scale * outputs - self.tau * _log_prior(class_counts)


def class_margins(class_counts: jax.Array, *, margin: float, scale: float, tau_m: float) -> jax.Array:
    """`m_c = m + (tau_m / s) log(n_c / n_min)`, [C] (RoBal)."""
    return margin + tau_m / scale * jnp.log(class_counts / jnp.min(class_counts))


def robal(
    inner: InnerAttack,
    *,
    margin: float = 0.1,
    scale: float = 10.0,
    tau_b: float = 1.2,
    tau_m: float = 0.0,
    beta: float = 6.0,
    floor: float = 1 / 32,
    test_scale: float = 10.0,
    tau_p: float = 0.1,
    variant: str = "as_described",
) -> Method:
    """`L = CE(u, y) + beta KL(p(x) || p(x'))` on cosines z (Wu et al., CVPR 2021); defaults: RoBal-N on CIFAR-10.

    `u_c = s (z_c - m_y 1[c = y]) + tau_b log(n_c / N)` at x', with `class_margins` m; the KL takes the cosines as
    logits and detaches nothing. x' from PGD on CE of the cosines. At test time `test_scale z - tau_p log(n_c / N)`.
    Train-mode passes: x, x'. `as_released`: x', x, x, x', the first two for the running statistics alone.

    Args:
      margin: m.
      scale: s of the label loss.
      tau_b: weight of `log(n_c / N)` in the label loss.
      tau_m: weight of `log(n_c / n_min)` in the margins.
      beta: weight of the KL.
      floor: added to the length of each class's weights.
      test_scale: of the cosines at test time; at 1 gradients of the cross-entropy are weak.
      tau_p: weight of `log(n_c / N)`, subtracted at test time; 0: nothing.
      variant: `as_described`: train-mode passes x, x'; `as_released`: x', x, x, x'.

    Raises:
      ValueError: a scale that is not positive, a negative setting, or unknown variant.
    """
    check_positive("robal", scale=scale, test_scale=test_scale)
    check_weights("robal", margin=margin, tau_b=tau_b, tau_m=tau_m, beta=beta, floor=floor, tau_p=tau_p)
    check_variant("robal", variant)

    def adjusted(cosines: jax.Array, labels: jax.Array, class_counts: jax.Array) -> jax.Array:
        margins = class_margins(class_counts, margin=margin, scale=scale, tau_m=tau_m)
        chosen = jax.nn.one_hot(labels, cosines.shape[-1])
        return scale * (cosines - margins * chosen) + tau_b * _log_prior(class_counts)

    def loss(learner: Learner, batch: Batch, adv_images):
        if variant == "as_released":
            _, learner = learner.forward(adv_images, bn="train")
            _, learner = learner.forward(batch.images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        adjusted_logits = adjusted(adv_logits, batch.labels, learner.class_counts)
        label_loss = jnp.mean(objectives.cross_entropy(adjusted_logits, batch.labels))
        robust_loss = jnp.mean(objectives.kl_divergence(clean_logits, adv_logits))
        metrics = {"label_loss": label_loss, "robust_loss": robust_loss}
        outcome = Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)
        return label_loss + beta * robust_loss, outcome

    return Method(
        name="robal",
        attack=attack_cross_entropy(inner),
        loss=loss,
        inner=inner,
        passes=("adv", "clean", "clean", "adv") if variant == "as_released" else ("clean", "adv"),
        separable=True,
        head=models.Head("cosine", floor=floor),
        test_logits=ScaledAndShifted(test_scale, tau_p),
    )


def taet(
    inner: InnerAttack,
    *,
    clean_fraction: float = 0.4,
    mean_weight: float = 0.1,
    variance_weight: float = 0.1,
    share_weight: float = 0.1,
    variant: str = "as_described",
) -> Method:
    """Clean cross-entropy, then `equalization` of the classes' adversarial losses (Wang et al., CVPR 2025).

    Stage 1, the first `clean_fraction` of the epochs (rounded down): CE(z(x), y), no attack. Stage 2: L_c is the mean
    of CE(z(x'), y) over the whole batch's images of class c, x' from PGD on CE; absent classes are left out. Train-mode
    passes: x in stage 1, x' in stage 2. `as_released`: one more pass on x, for the running statistics alone, before the
    others and before the attack, which reads them; absent classes count as L_c = 0.

    Args:
      clean_fraction: length of stage 1, clean training, a fraction of the phase; 40 of 100 epochs are published.
      mean_weight: of the mean of the class losses (a_1 of `equalization`).
      variance_weight: of their variance (a_2).
      share_weight: of the sum of their squared shares (a_3).
      variant: `as_described`, or `as_released`: absent classes count as loss 0, and a pass on x comes first.

    Raises:
      ValueError: a fraction outside [0, 1], a negative weight, or unknown variant.
    """
    check_fractions("taet", clean_fraction=clean_fraction)
    check_weights("taet", mean_weight=mean_weight, variance_weight=variance_weight, share_weight=share_weight)
    check_variant("taet", variant)
    attack_images = attack_cross_entropy(inner)
    weights = (mean_weight, variance_weight, share_weight)

    def clean_stage(learner: Learner) -> jax.Array:
        return learner.epoch <= learner.last_epoch_of(clean_fraction)

    def attack(learner: Learner, batch: Batch):
        if variant == "as_released":
            _, learner = learner.forward(batch.images, bn="train")
        return jax.lax.cond(clean_stage(learner), lambda: batch.images, lambda: attack_images(learner, batch))

    def loss(learner: Learner, batch: Batch, adv_images):
        clean = clean_stage(learner)
        if variant == "as_released":
            _, learner = learner.forward(batch.images, bn="train")
        # In stage 1 the attack has returned the clean images.
        logits, learner = learner.forward(adv_images, bn="train")
        losses = objectives.cross_entropy(logits, batch.labels)
        class_losses, present = class_means(losses, batch.labels, logits.shape[-1], learner.axis_name)
        if variant == "as_released":
            present = jnp.ones_like(present)
        equalized = equalization(class_losses, present, weights)
        value = jnp.where(clean, jnp.mean(losses), equalized)
        return value, Outcome(learner.batch_stats, learner.method_state, logits, {})

    return Method(name="taet", attack=attack, loss=loss, inner=inner)


def class_means(values: jax.Array, labels: jax.Array, num_classes: int, axis_name: str) -> tuple[jax.Array, jax.Array]:
    """Means [C] of values [B] over each class's images in the whole batch, and which classes are there, [C].

    Both are the same on every device. A class without images has mean 0.
    """
    chosen = jax.nn.one_hot(labels, num_classes, dtype=values.dtype)
    local = jnp.sum(values[:, None] * chosen, axis=0), jnp.sum(chosen, axis=0)
    # Sums before the quotient: a mean of the devices' means would weigh devices, not images.
    totals, counts = jax.lax.psum(local, axis_name)
    return totals / jnp.maximum(counts, 1), counts > 0


def equalization(class_losses: jax.Array, counted: jax.Array, weights: tuple[float, float, float]) -> jax.Array:
    """`a_1 mean_c L_c + a_2 mean_c (L_c - mean L)^2 + a_3 sum_c (L_c / (sum_k L_k + 1e-10))^2` (TAET).

    All over the classes that are counted, [C] of booleans; the others' losses must be 0.
    """
    mean_weight, variance_weight, share_weight = weights
    number = jnp.maximum(jnp.sum(counted), 1).astype(class_losses.dtype)
    mean = jnp.sum(class_losses) / number
    variance = jnp.sum(jnp.where(counted, (class_losses - mean) ** 2, 0)) / number
    shares = class_losses / (jnp.sum(class_losses) + 1e-10)
    return mean_weight * mean + variance_weight * variance + share_weight * jnp.sum(shares**2)


def _log_prior(class_counts: jax.Array) -> jax.Array:
    """`log(n / N)`, [C]."""
    return jnp.log(class_counts / jnp.sum(class_counts))
