"""Adversarial training that takes no notice of class counts: PGD-AT, TRADES, MART, FAT."""

import dataclasses

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball, objectives
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Objective, Outcome, attack_on
from ltrobust.methods.settings import check_variant, check_weights


def label_objective(inner: InnerAttack) -> Objective:
    """`CE(z(x'), y)` on plain logits, BatchNorm in the attack's mode."""

    def objective(learner: Learner, batch: Batch):
        def ascended(images: jax.Array):
            logits, _ = learner.forward(images, bn=inner.bn)
            return objectives.cross_entropy(logits, batch.labels), logits

        return ascended

    return objective


def attack_cross_entropy(inner: InnerAttack):
    """Builds the inner maximisation of `CE(z(x'), y)` with the PGD settings `inner`, for `Method.attack`."""
    return attack_on(inner, label_objective(inner))


def pgd_at(inner: InnerAttack) -> Method:
    """`L = CE(z(x'), y)`, x' from PGD on CE (Madry et al., ICLR 2018).

    One train-mode pass, on x'. Radius 0 is standard training.
    """

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        value = batch.mean(objectives.cross_entropy(adv_logits, batch.labels))
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, {})

    attack = attack_cross_entropy(inner)
    passes = ("adv",)
    return Method("pgd_at", attack, loss, inner, passes=passes, weighted=True, separable=True)


def attack_divergence(inner: InnerAttack):
    """The inner maximisation of `KL(p(x) || p(x'))`, p(x) constant, BatchNorm in the attack's mode.

    Raises:
      ValueError: a start at which the KL has no gradient.
    """
    if inner.start == "none":
        raise ValueError("TRADES cannot start its attack at the image: its KL has no gradient there; use 'gauss'.")

    def attack(learner: Learner, batch: Batch):
        clean_logits, _ = learner.forward(batch.images, bn=inner.bn)  # outside of the objective: a constant
        return inner(
            lambda images: objectives.kl_divergence(clean_logits, learner.forward(images, bn=inner.bn)[0]),
            batch,
        )

    return attack


def trades(inner: InnerAttack, *, beta: float = 6.0, variant: str = "as_described") -> Method:
    """`L = CE(z(x), y) + beta KL(p(x) || p(x'))`, x' from PGD on that KL (Zhang et al., ICML 2019).

    In the attack p(x) is constant; in the loss both branches are differentiated. Train-mode passes: x, x'
    (`as_described`), or x, x', x with the third as the KL's target (`as_released`).

    Args:
      beta: weight of the KL.
      variant: `as_described`: train-mode passes x, x'; `as_released`: x, x', x.

    Raises:
      ValueError: negative beta, unknown variant, or a start at which the KL has no gradient.
    """
    check_weights("trades", beta=beta)
    check_variant("trades", variant)
    attack = attack_divergence(inner)

    def loss(learner: Learner, batch: Batch, adv_images):
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        target_logits = clean_logits
        if variant == "as_released":
            target_logits, learner = learner.forward(batch.images, bn="train")
        clean_loss = batch.mean(objectives.cross_entropy(clean_logits, batch.labels))
        robust_loss = batch.mean(batch.scaled(objectives.kl_divergence(target_logits, adv_logits)))
        metrics = {"clean_loss": clean_loss, "robust_loss": robust_loss}
        outcome = Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)
        return clean_loss + beta * robust_loss, outcome

    return Method(
        name="trades",
        attack=attack,
        loss=loss,
        inner=inner,
        passes=("clean", "adv", "clean") if variant == "as_released" else ("clean", "adv"),
        weighted=True,
        separable=True,
        regularization=beta,
    )


def boosted_cross_entropy(logits: jax.Array, labels: jax.Array, *, variant: str = "as_described") -> jax.Array:
    """`-log p_y - log(1 - max_{j != y} p_j)` per example, [B, C] and [B] -> [B] (MART).

    `as_described` stays in logarithms. `as_released` takes `1.0001 + 1e-12` for the second 1.
    """
    if variant == "as_released":
        strongest = jnp.max(jnp.where(_chosen(logits, labels), 0.0, jax.nn.softmax(logits)), axis=-1)
        against_rival = jnp.log(1.0001 - strongest + 1e-12)
    else:
        rival = jnp.argmax(jnp.where(_chosen(logits, labels), -jnp.inf, logits), axis=-1)
        others = jnp.where(_chosen(logits, rival), -jnp.inf, logits)
        against_rival = jax.nn.logsumexp(others, axis=-1) - jax.nn.logsumexp(logits, axis=-1)
    return objectives.cross_entropy(logits, labels) - against_rival


def _chosen(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Whether a logit is that of its row's class, [B, C]."""
    return jax.nn.one_hot(classes, logits.shape[-1], dtype=bool)


def mart(inner: InnerAttack, *, beta: float = 5.0, variant: str = "as_described") -> Method:
    """`L = BCE(z(x'), y) + beta mean_i[ KL_i(p(x) || p(x')) (1 - p(x)_y) ]`, x' from PGD on CE.

    Wang et al., ICLR 2020. BCE is `boosted_cross_entropy`. Nothing is detached: gradients flow through p(x) as target
    and as weight. Train-mode passes: x, x'. `as_released` adds the public code's guards against zeros: 1.0001 in BCE,
    `p(x') + 1e-12` in the KL, 1.0000001 in the weight.

    Args:
      beta: weight of the weighted KL.
      variant: `as_described`, or `as_released`: with the public code's guards against zeros.

    Raises:
      ValueError: negative beta or unknown variant.
    """
    check_weights("mart", beta=beta)
    check_variant("mart", variant)

    def weighted_divergence(clean_logits: jax.Array, adv_logits: jax.Array, labels: jax.Array) -> jax.Array:
        clean = jax.nn.softmax(clean_logits)
        doubt = 1 - jnp.take_along_axis(clean, labels[:, None], axis=-1)[:, 0]
        if variant == "as_described":
            return doubt * objectives.kl_divergence(clean_logits, adv_logits)
        log_ratio = jax.nn.log_softmax(clean_logits) - jnp.log(jax.nn.softmax(adv_logits) + 1e-12)
        return (doubt + 1e-7) * jnp.sum(clean * log_ratio, axis=-1)

    def loss(learner: Learner, batch: Batch, adv_images):
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        boosted_loss = jnp.mean(boosted_cross_entropy(adv_logits, batch.labels, variant=variant))
        robust_loss = jnp.mean(weighted_divergence(clean_logits, adv_logits, batch.labels))
        metrics = {"boosted_loss": boosted_loss, "robust_loss": robust_loss}
        outcome = Outcome(learner.batch_stats, learner.method_state, adv_logits, metrics)
        return boosted_loss + beta * robust_loss, outcome

    attack = attack_cross_entropy(inner)
    return Method(
        name="mart",
        attack=attack,
        loss=loss,
        inner=inner,
        passes=("clean", "adv"),
        separable=True,
    )


def fat(inner: InnerAttack, *, patience: int = 3, variant: str = "as_described") -> Method:
    """`L = CE(z(x'), y)`, x' from PGD on CE that makes at most `patience` steps from misclassified iterates.

    Zhang et al. (ICML 2020), in the form that is a base of CFA. An image whose iterate is misclassified after that many
    such steps stays there; steps from iterates that are classified correctly are not counted. One train-mode pass,
    on x'.

    Args:
      patience: steps of the attack from misclassified iterates (tau); 0 stops at the first misclassified iterate, as
        many as the attack has steps is PGD-AT.
      variant: `as_described`, or `as_released` by CFA: an image that has made so many such steps stays for good.

    Raises:
      ValueError: negative patience, or an unknown variant.
    """
    check_variant("fat", variant)
    if patience < 0:
        raise ValueError(f"fat.patience is {patience}; it must be at least 0.")
    objective = label_objective(inner)

    def attack(learner: Learner, batch: Batch) -> jax.Array:
        ascended = objective(learner, batch)

        def total(points: jax.Array) -> tuple[jax.Array, jax.Array]:
            values, logits = ascended(points)
            return jnp.sum(values), jnp.argmax(logits, axis=-1) != batch.labels

        def step(_, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            points, made = carry
            gradient, wrong = jax.grad(total, has_aux=True)(points)
            stays = (wrong | (variant == "as_released")) & (made >= patience)
            step_size = ball.per_example(jnp.where(stays, 0.0, batch.step_size), points)
            moved = points + step_size * ball.direction(gradient, threat.norm)
            counted = made + (wrong & ~stays).astype(jnp.int32)
            return ball.project(moved, batch.images, batch.radius, threat), counted

        threat = inner.threat
        start = ball.random_start(batch.images, batch.keys, batch.radius, start=inner.start, threat=threat)
        if not inner.steps:
            return ball.project(start, batch.images, batch.radius, threat)
        return jax.lax.fori_loop(0, inner.steps, step, (start, jnp.zeros(len(start), jnp.int32)))[0]

    return dataclasses.replace(pgd_at(inner), name="fat", attack=attack, objective=None)
