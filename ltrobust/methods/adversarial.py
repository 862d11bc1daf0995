"""Adversarial training on labels: PGD-AT, TRADES, AT-BSL."""

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Objective, Outcome, attack_on

TRADES_PASSES = ("as_described", "as_released")


def label_objective(inner: InnerAttack) -> Objective:
    """`CE(z(x'), y)` on plain logits, BatchNorm in the attack's mode."""

    def objective(learner: Learner, batch: Batch):
        def ascended(images: jax.Array):
            logits, _ = learner.forward(images, bn=inner.bn)
            return objectives.cross_entropy(logits, batch.labels), logits

        return ascended

    return objective


def attack_cross_entropy(inner: InnerAttack):
    """The inner maximisation of `CE(z(x'), y)` on plain logits, BatchNorm in the attack's mode."""
    return attack_on(inner, label_objective(inner))


def pgd_at(inner: InnerAttack) -> Method:
    """`L = CE(z(x'), y)`, x' from PGD on CE (Madry et al., ICLR 2018).

    One train-mode pass, on x'. Radius 0 is standard training.
    """

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        value = jnp.mean(objectives.cross_entropy(adv_logits, batch.labels))
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, {})

    return Method(name="pgd_at", attack=attack_cross_entropy(inner), loss=loss, inner=inner, passes=("adv",))


def at_bsl(inner: InnerAttack) -> Method:
    """`L = CE(z(x') + log n, y)`, x' from PGD on CE of the plain logits (Yue et al., CVPR 2024).

    `log n` enters this loss only: neither the attack nor the test sees it. One train-mode pass, on x'.
    """

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        value = jnp.mean(objectives.balanced_softmax(adv_logits, batch.labels, learner.class_counts))
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, {})

    return Method(name="at_bsl", attack=attack_cross_entropy(inner), loss=loss, inner=inner, passes=("adv",))


def trades(inner: InnerAttack, *, beta: float = 6.0, passes: str = "as_described") -> Method:
    """`L = CE(z(x), y) + beta KL(p(x) || p(x'))`, x' from PGD on that KL (Zhang et al., ICML 2019).

    In the attack p(x) is constant; in the loss both branches are differentiated. Train-mode passes: x, x'
    (`as_described`), or x, x', x with the third as the KL's target (`as_released`).

    Raises:
      ValueError: negative beta, unknown passes, or a start at which the KL has no gradient.
    """
    if beta < 0:
        raise ValueError(f"trades.beta is {beta}; it must be at least 0.")
    if passes not in TRADES_PASSES:
        raise ValueError(f"trades.passes is {passes!r}; known: {', '.join(TRADES_PASSES)}.")
    if inner.start == "none":
        raise ValueError("TRADES cannot start its attack at the image: its KL has no gradient there; use 'gauss'.")

    def attack(learner: Learner, batch: Batch):
        clean_logits, _ = learner.forward(batch.images, bn=inner.bn)
        return inner(
            lambda images: objectives.kl_divergence(clean_logits, learner.forward(images, bn=inner.bn)[0]),
            batch,
        )

    def loss(learner: Learner, batch: Batch, adv_images):
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        target_logits = clean_logits
        if passes == "as_released":
            target_logits, learner = learner.forward(batch.images, bn="train")
        clean_loss = jnp.mean(objectives.cross_entropy(clean_logits, batch.labels))
        robust_loss = jnp.mean(objectives.kl_divergence(target_logits, adv_logits))
        metrics = {"clean_loss": clean_loss, "robust_loss": robust_loss}
        outcome = Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)
        return clean_loss + beta * robust_loss, outcome

    return Method(
        name="trades",
        attack=attack,
        loss=loss,
        inner=inner,
        metrics=("clean_loss", "robust_loss"),
        passes=("clean", "adv", "clean") if passes == "as_released" else ("clean", "adv"),
    )
