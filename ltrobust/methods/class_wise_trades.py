"""TRADES with a weight or a radius for each class: DAFA from training images, WAT and FRL from the validation part."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import attack_divergence
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.settings import check_fractions, check_positive, check_variant, check_weights
from ltrobust.threat import pixels


def dafa(
    inner: InnerAttack,
    *,
    beta: float = 6.0,
    warmup_fraction: float = 70 / 110,
    scale: float = 1.0,
    floor: float = 0.1,
    variant: str = "as_described",
) -> Method:
    """`L = mean_i W_{y_i} CE_i(z(x), y) + beta KL(p(x) || p(x'))`, radius and step times W_y (Lee et al., ICLR 2024).

    W = 1 during the warm-up, which is TRADES. In its last epoch `P_ij`, the mean of p(x')_j over class i's training
    images, train-mode, is collected; `class_distances` W of it hold from then on. Train-mode passes: x', x. State: the
    sums of p(x') per class and the images seen.

    Args:
      beta: weight of the KL.
      warmup_fraction: length of the warm-up with TRADES, a fraction of the phase (rounded down, at least one epoch).
      scale: of what a class's weight moves (l of the weights); 1.5 on CIFAR-100.
      floor: least weight of a class.
      variant: `as_released` lowers both classes' weights where P_ii = P_jj.

    Raises:
      ValueError: a setting out of range, unknown variant, or a start at which the KL has no gradient.
    """
    check_weights("dafa", beta=beta, scale=scale)
    check_fractions("dafa", warmup_fraction=warmup_fraction, floor=floor)
    check_variant("dafa", variant)

    def last_of_warmup(learner: Learner) -> jax.Array:
        return jnp.maximum(learner.last_epoch_of(warmup_fraction), 1)

    def weights(learner: Learner) -> jax.Array:
        state = learner.method_state
        result = class_distances(state["answers"], state["seen"], scale=scale, floor=floor, variant=variant)
        return jnp.where(learner.epoch > last_of_warmup(learner), result, 1.0)

    def radii(learner: Learner, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = weights(learner)[labels]
        return factor * inner.threat.epsilon, factor * pixels(inner.step_size)

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        clean_loss = jnp.mean(weights(learner)[batch.labels] * objectives.cross_entropy(clean_logits, batch.labels))
        robust_loss = jnp.mean(objectives.kl_divergence(clean_logits, adv_logits))
        metrics = {"clean_loss": clean_loss, "robust_loss": robust_loss}
        of_class = jax.nn.one_hot(batch.labels, len(learner.class_counts), dtype=jnp.float32)
        answers = jax.lax.stop_gradient(jax.nn.softmax(adv_logits))
        # Accelerators would round the factors of a matrix product to ten bits.
        added = {"answers": jnp.matmul(of_class.T, answers, precision="highest"), "seen": jnp.sum(of_class, axis=0)}
        added = jax.lax.psum(added, learner.axis_name)
        counts = learner.epoch == last_of_warmup(learner)
        state = jax.tree.map(lambda old, new: old + jnp.where(counts, new, 0), learner.method_state, added)
        return clean_loss + beta * robust_loss, Outcome(learner.batch_stats, state, adv_logits, metrics)

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, jax.Array]:
        del params
        zeros = jnp.zeros(class_counts.shape, jnp.float32)
        return {"answers": jnp.zeros((len(zeros), len(zeros)), jnp.float32), "seen": zeros}

    return Method(
        name="dafa",
        attack=attack_divergence(inner),
        loss=loss,
        inner=inner,
        passes=("adv", "clean"),
        separable=True,
        initial_state=initial_state,
        radii=radii,
    )


def class_distances(
    answers: jax.Array, seen: jax.Array, *, scale: float = 1.0, floor: float = 0.0, variant: str = "as_described"
) -> jax.Array:
    """`W_i = 1 + l sum_{j != i} [P_ij P_jj if P_ii < P_jj, -P_ji P_ii if P_ii > P_jj]`, at least `floor`, [C] (DAFA).

    What one class of a pair gains the other loses. Pairs with a class that was not seen are left out.

    Args:
      answers: sums of p(x') over each class's images, [C, C].
      seen: number of them, [C]; P is the quotient.
      scale: l.
      floor: least weight.
      variant: with `as_released`, `>=` for `>`.
    """
    shares = answers / jnp.maximum(seen, 1)[:, None]
    own = jnp.diagonal(shares)
    gains = scale * shares * own[None, :]
    pairs = (seen[:, None] > 0) & (seen[None, :] > 0) & ~jnp.eye(len(seen), dtype=bool)
    above = own[:, None] >= own[None, :] if variant == "as_released" else own[:, None] > own[None, :]
    gained = jnp.where(pairs & (own[:, None] < own[None, :]), gains, 0)
    lost = jnp.where(pairs & above, gains.T, 0)
    return jnp.maximum(1 + jnp.sum(gained - lost, axis=1), floor)


def wat(inner: InnerAttack, *, beta: float = 6.0, rate: float = 0.1, normalized: bool = False) -> Method:
    """`L = mean_i w_{y_i} l_i + w_{C+1} mean_i l_i`, `l_i = CE_i(z(x), y) + beta KL_i(p(x) || p(x'))`.

    B. Li and W. Liu (AAAI 2023): hedging over the C class losses and their mean. After an epoch, their means on the
    validation part, eval mode, are added to S [C + 1], and `w = C softmax(rate S)`; before, w = 1. Train-mode
    passes: x, x'. State: S and w.

    Args:
      beta: weight of the KL.
      rate: at which weights follow the sums of the validation losses (eta); 0 keeps all weights at `C / (C + 1)`.
      normalized: divides L by `mean_c w_c + w_{C+1}`, which is about 2.

    Raises:
      ValueError: a negative setting, or a start at which the KL has no gradient.
    """
    check_weights("wat", beta=beta, rate=rate)
    attack = attack_divergence(inner)

    def per_example(clean_logits: jax.Array, adv_logits: jax.Array, labels: jax.Array) -> jax.Array:
        divergence = objectives.kl_divergence(clean_logits, adv_logits)
        return objectives.cross_entropy(clean_logits, labels) + beta * divergence

    def loss(learner: Learner, batch: Batch, adv_images):
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        weights = learner.method_state["weights"]
        of_image = weights[:-1][batch.labels] + weights[-1]
        of_image /= jnp.mean(weights[:-1]) + weights[-1] if normalized else 1.0
        value = jnp.mean(of_image * per_example(clean_logits, adv_logits, batch.labels))
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, {})

    def observe(learner: Learner, batch: Batch) -> dict[str, jax.Array]:
        clean_logits, _ = learner.forward(batch.images, bn="eval")
        adv_logits, _ = learner.forward(attack(learner, batch), bn="eval")
        return {"loss": per_example(clean_logits, adv_logits, batch.labels)}

    def end_epoch(learner: Learner, observed: Mapping[str, Any]) -> dict[str, jax.Array]:
        mean = np.nanmean(observed["loss"])
        losses = np.append(np.nan_to_num(observed["loss"], nan=mean), mean)  # unknown classes count as the mean
        sums = learner.method_state["sums"] + jnp.asarray(losses, jnp.float32)
        return {"sums": sums, "weights": (len(losses) - 1) * jax.nn.softmax(rate * sums)}

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, jax.Array]:
        del params
        zeros = jnp.zeros(len(class_counts) + 1, jnp.float32)
        return {"sums": zeros, "weights": zeros + 1}

    return Method(
        name="wat",
        attack=attack,
        loss=loss,
        inner=inner,
        passes=("clean", "adv"),
        separable=True,
        initial_state=initial_state,
        observe=observe,
        end_epoch=end_epoch,
    )


def frl(
    inner: InnerAttack,
    *,
    beta: float = 1.5,
    slack: float = 0.1,
    rate: float = 0.05,
    halve_every: int = 40,
    limit: float = 0.5,
    remargin: bool = False,
    margin_rate: float = 0.2,
    variant: str = "as_described",
) -> Method:
    """`L = sum_i a_{y_i} CE_i(z(x), y) / sum_i a_{y_i} + beta sum_i b_{y_i} KL_i(p(x) || p(x')) / sum_i b_{y_i}`.

    Xu et al. (ICML 2021). a and b are `class_shares` of multipliers phi that grow with how far a class's clean error,
    and its clean less its robust accuracy, on the validation part exceed the mean over classes and the slack. With
    `remargin` radii are `clip(exp(2 psi_c), 0.98, 3) eps` and steps a quarter of the largest one. Sums are over the
    whole batch. Train-mode passes: x, x', x, the third for the KL's target. State: phi and psi, 0 at first.

    The defaults are FRL's without remargin; with it, slack is 0.07.

    Args:
      beta: weight of the KL.
      slack: what a class's error may lie above the mean of classes (tau).
      rate: of the multipliers phi of the clean error; twice that for the other.
      halve_every: epochs after which the rate halves.
      limit: bound on the sum of each phi, below 1, so that no share is negative.
      remargin: whether radii change too (psi moves).
      margin_rate: of the radii's exponents psi.
      variant: with `as_released` the rate halves one update earlier, before the epoch instead of after it.

    Raises:
      ValueError: a setting out of range, unknown variant, or a start at which the KL has no gradient.
    """
    check_weights("frl", beta=beta, slack=slack, rate=rate, margin_rate=margin_rate)
    check_positive("frl", halve_every=halve_every)
    check_variant("frl", variant)
    if not 0 <= limit < 1:
        raise ValueError(f"frl.limit is {limit}; it must be at least 0 and below 1.")

    def radii(learner: Learner, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        factors = jnp.clip(jnp.exp(2 * learner.method_state["margin"]), 0.98, 3.0)
        radius = factors[labels] * inner.threat.epsilon
        return radius, jnp.full_like(radius, jnp.max(factors) * inner.threat.epsilon / 4)

    def weighted_mean(learner: Learner, multipliers: jax.Array, labels: jax.Array, values: jax.Array) -> jax.Array:
        """This device's part of the whole batch's weighted mean, times the number of devices."""
        of_image = class_shares(multipliers)[labels]
        total = jax.lax.pmean(jnp.sum(of_image), learner.axis_name)
        return jnp.sum(of_image * values) / total

    def loss(learner: Learner, batch: Batch, adv_images):
        state, labels = learner.method_state, batch.labels
        clean_logits, learner = learner.forward(batch.images, bn="train")
        adv_logits, learner = learner.forward(adv_images, bn="train")
        target_logits, learner = learner.forward(batch.images, bn="train")
        clean_losses = objectives.cross_entropy(clean_logits, labels)
        clean_loss = weighted_mean(learner, state["clean"], labels, clean_losses)
        divergence = objectives.kl_divergence(target_logits, adv_logits)
        robust_loss = weighted_mean(learner, state["boundary"], labels, divergence)
        metrics = {"clean_loss": clean_loss, "robust_loss": robust_loss}
        return clean_loss + beta * robust_loss, Outcome(learner.batch_stats, state, adv_logits, metrics)

    def end_epoch(learner: Learner, observed: Mapping[str, Any]) -> dict[str, jax.Array]:
        state, clean, robust = learner.method_state, np.asarray(observed["clean"]), np.asarray(observed["robust"])
        now = rate * 0.5 ** ((int(learner.epoch) + (variant == "as_released")) // halve_every)

        def excess(error: np.ndarray) -> jax.Array:
            return jnp.asarray(np.nan_to_num(error - np.nanmean(error) - slack, nan=0.0), jnp.float32)

        boundary = excess(clean - robust)
        return {
            "clean": limited(state["clean"] + now * excess(1 - clean), limit),
            "boundary": limited(state["boundary"] + 2 * now * boundary, limit),
            "margin": state["margin"] + (margin_rate * boundary if remargin else 0.0),
        }

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, jax.Array]:
        del params
        return {name: jnp.zeros(class_counts.shape, jnp.float32) for name in ("clean", "boundary", "margin")}

    return Method(
        name="frl",
        attack=attack_divergence(inner),
        loss=loss,
        inner=inner,
        passes=("clean", "adv", "clean"),
        initial_state=initial_state,
        radii=radii if remargin else None,
        end_epoch=end_epoch,
    )


def class_shares(multipliers: jax.Array) -> jax.Array:
    """`1/C + phi_c - mean phi`, [C]; they sum to 1 (FRL)."""
    return 1 / len(multipliers) + multipliers - jnp.mean(multipliers)


def limited(multipliers: jax.Array, limit: float) -> jax.Array:
    """At least 0, and scaled to the sum `limit` where they exceed it."""
    positive = jnp.maximum(multipliers, 0)
    return positive * jnp.minimum(1.0, limit / jnp.maximum(jnp.sum(positive), 1e-30))
