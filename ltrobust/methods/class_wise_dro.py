"""Adversarial training against the worst distribution over classes near the uniform one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import objectives
from ltrobust.methods.adversarial import attack_cross_entropy
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.long_tailed import class_means
from ltrobust.methods.settings import check_choices, check_weights

# Above this many classes a batch's class means are of very few images, and the average over steps is longer.
FEW_CLASSES, MANY_CLASSES = 10, 100
BASES = ("pgd_at", "trades")


def chi2_class_dro(inner: InnerAttack, *, rho: float = 0.2, average: float = -1.0) -> Method:
    """`L = mean_i (p_{y_i} / pi_{y_i}) CE_i(z(x'), y)`, p from `worst_distribution`, x' from PGD on CE.

    After CODAT (arXiv 2501.04527), whose formulas are derived here. pi = n / N, so that the expectation is
    `sum_c p_c L_c`; p is constant in the gradient. One train-mode pass, on x'. State: each class's average loss over
    the whole batches that held it, starting at the first, and whether there was one; other classes get p = 0.

    Args:
      rho: radius of the ball of class distributions; 0: the uniform one, the mean of the class losses.
      average: what of the average class losses is kept at a step, below 1; below 0: 0.9 for up to 10 classes, 0.99
        for more. 0: p from the batch's class means L_c alone, over the classes that it holds, and `L = sum_c p_c L_c`.

    Raises:
      ValueError: negative rho, an average of 1 or more, or, from `check`, an average of 0 with 100 classes or more.
    """
    check_weights("chi2_class_dro", rho=rho)
    if not average < 1:
        raise ValueError(
            f"chi2_class_dro.average is {average}; it must be below 1 (below 0: by the number of classes)."
        )

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        losses = objectives.cross_entropy(adv_logits, batch.labels)
        means, present = class_means(losses, batch.labels, adv_logits.shape[-1], learner.axis_name)
        if average == 0:
            shares = worst_distribution(jax.lax.stop_gradient(means), present, rho=rho)
            return jnp.sum(shares * means), Outcome(learner.batch_stats, learner.method_state, adv_logits, {})
        state = _averaged(learner.method_state, jax.lax.stop_gradient(means), present, average)
        shares = worst_distribution(state["losses"], state["known"], rho=rho)
        ratio = shares * jnp.sum(learner.class_counts) / learner.class_counts
        value = jnp.mean(ratio[batch.labels] * losses)
        return value, Outcome(learner.batch_stats, state, adv_logits, {})

    def initial_state(params: Any, class_counts: jax.Array) -> dict[str, jax.Array]:
        del params
        if average == 0:
            return {}
        zeros = jnp.zeros(class_counts.shape, jnp.float32)
        return {"losses": zeros, "known": zeros > 0}

    def check(class_counts: np.ndarray) -> None:
        if average == 0 and len(class_counts) >= MANY_CLASSES:
            raise ValueError(
                f"chi2_class_dro.average is 0 with {len(class_counts)} classes: a batch holds too few images of each "
                "for its worst distribution; give an average, such as 0.99."
            )

    return Method(
        name="chi2_class_dro",
        attack=attack_cross_entropy(inner),
        loss=loss,
        inner=inner,
        passes=("adv",),
        initial_state=initial_state,
        check=check,
    )


def worst_distribution(losses: jax.Array, counted: jax.Array, *, rho: float) -> jax.Array:
    """`argmax_p sum_c p_c L_c` with `p >= 0`, `sum_c p_c = 1`, `C sum_c (p_c - 1/C)^2 <= rho`, float [C].

    Exact, by sorting: on its support, the k largest losses, the solution is `1/k + t_k (L_c - m_k)` with
    `t_k = sqrt(((1 + rho) / C - 1/k) / V_k)`, m_k the mean and V_k the sum of squared deviations there; k is the
    largest number for which the root exists and no share is negative. A common 1e-12 under the root keeps equal losses
    at equal shares.

    Args:
      losses: L, [C].
      counted: booleans [C]; the others get 0 and are left out of C.
      rho: radius; `number of classes - 1` and more puts everything on the largest loss.
    """
    number = jnp.maximum(jnp.sum(counted), 1).astype(losses.dtype)
    centred = jnp.where(counted, losses - jnp.sum(jnp.where(counted, losses, 0)) / number, 0)
    order = jnp.argsort(jnp.where(counted, -centred, jnp.inf))
    ranked = centred[order]
    sizes = jnp.arange(1, len(losses) + 1, dtype=losses.dtype)
    within = jnp.tril(jnp.ones((len(losses), len(losses)), bool))  # [k, i]: whether i is among the k largest
    means = jnp.sum(jnp.where(within, ranked, 0), axis=1) / sizes
    deviations = jnp.where(within, ranked - means[:, None], 0)
    excess = (1 + rho) / number - 1 / sizes
    slopes = jnp.sqrt(jnp.maximum(excess, 0) / (jnp.sum(deviations**2, axis=1) + 1e-12))
    shares = jnp.where(within, 1 / sizes[:, None] + slopes[:, None] * deviations, 0)
    # What is 0 in theory, such as the excess of rho = 0, may be a little below.
    rounding = 8 * jnp.finfo(losses.dtype).eps
    possible = (sizes <= number) & (excess >= -rounding) & (jnp.diagonal(shares) >= -rounding)
    chosen = jnp.maximum(shares[jnp.max(jnp.where(possible, jnp.arange(len(losses)), 0))], 0)
    return jnp.where(counted, jnp.zeros_like(losses).at[order].set(chosen / jnp.sum(chosen)), 0)


def faal(
    inner: InnerAttack, *, base: str = "pgd_at", radius: float = 0.5, beta: float = 6.0, count_factor: bool = True
) -> Method:
    """`L = C mean_i p_{y_i} l_i`, p from `entropic_distribution` of the batch's margins by class (FAAL).

    Zhang et al., CVPR 2024. `m_c` is the mean of `max_{j != y} p(x')_j - p(x')_y`, train-mode, over the whole batch's
    images of class c, -1 for a class that the batch lacks; p follows `k_c m_c`, k_c the number of those images. l is
    CE(z(x'), y), or TRADES's `CE(z(x), y) + beta KL(p(x) || p(x'))`; x' from PGD on CE. p is constant in the gradient.
    Train-mode passes: x', x.

    Args:
      base: the loss whose classes are weighted: pgd_at, trades.
      radius: of the class distribution from the uniform one, in nats (r); 0 is the base itself.
      beta: weight of the KL, with base trades.
      count_factor: whether p follows `k_c m_c`, as a sum over images does, or `m_c`. With it, an absent class counts
        more than one that is classified well.

    Raises:
      ValueError: a negative setting or unknown base.
    """
    check_weights("faal", radius=radius, beta=beta)
    check_choices("faal", base=(base, BASES))

    def shares(learner: Learner, adv_logits: jax.Array, labels: jax.Array) -> jax.Array:
        answers = jax.nn.softmax(jax.lax.stop_gradient(adv_logits))
        chosen = jax.nn.one_hot(labels, answers.shape[-1], dtype=bool)
        rival = jnp.max(jnp.where(chosen, 0.0, answers), axis=-1)
        own = jnp.sum(jnp.where(chosen, answers, 0.0), axis=-1)
        means, present = class_means(rival - own, labels, answers.shape[-1], learner.axis_name)
        margins = jnp.where(present, means, -1.0)
        if count_factor:
            margins *= jax.lax.psum(jnp.sum(chosen, axis=0, dtype=margins.dtype), learner.axis_name)
        return entropic_distribution(margins, radius=radius)

    def loss(learner: Learner, batch: Batch, adv_images):
        adv_logits, learner = learner.forward(adv_images, bn="train")
        clean_logits, learner = learner.forward(batch.images, bn="train")
        if base == "pgd_at":
            losses = objectives.cross_entropy(adv_logits, batch.labels)
        else:
            divergence = objectives.kl_divergence(clean_logits, adv_logits)
            losses = objectives.cross_entropy(clean_logits, batch.labels) + beta * divergence
        of_class = shares(learner, adv_logits, batch.labels) * adv_logits.shape[-1]
        value = batch.mean(of_class[batch.labels] * losses)
        return value, Outcome(learner.batch_stats, learner.method_state, adv_logits, {})

    attack = attack_cross_entropy(inner)
    return Method(name="faal", attack=attack, loss=loss, inner=inner, passes=("adv", "clean"), weighted=True)


def entropic_distribution(values: jax.Array, *, radius: float) -> jax.Array:
    """`argmax_p sum_c p_c a_c` over distributions with `KL(U || p) <= radius`, U uniform, float [C] (FAAL).

    `p_c` is proportional to `1 / (nu - a_c)`; `log(nu - max a)` is found by bisection in [-40, 40].

    Args:
      values: a, [C].
      radius: in nats, at least 0.
    """
    gaps = jnp.max(values) - values

    def heights(log_excess: jax.Array) -> jax.Array:
        """`log(1 / p_c)` up to a constant, 0 for the largest p."""
        return jnp.log1p(gaps * jnp.exp(-log_excess))

    def halved(_, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        middle = (ends[0] + ends[1]) / 2
        height = heights(middle)
        # In this form rounding errors are small against small heights, and radius 0 is U.
        divergence = jnp.log1p(jnp.mean(jnp.expm1(-height))) + jnp.mean(height)
        too_far = divergence > radius
        return jnp.where(too_far, middle, ends[0]), jnp.where(too_far, ends[1], middle)

    ends = jnp.asarray(-40, values.dtype), jnp.asarray(40, values.dtype)
    return jax.nn.softmax(-heights(jax.lax.fori_loop(0, 60, halved, ends)[1]))


def _averaged(
    state: dict[str, jax.Array], means: jax.Array, present: jax.Array, average: float
) -> dict[str, jax.Array]:
    """The state after a batch's class means, [C]; a class starts at its first one."""
    kept = average if average >= 0 else 0.9 if len(means) <= FEW_CLASSES else 0.99
    moved = jnp.where(state["known"], kept * state["losses"] + (1 - kept) * means, means)
    return {"losses": jnp.where(present, moved, state["losses"]), "known": state["known"] | present}
