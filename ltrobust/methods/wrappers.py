"""Wrappers around any method: adversarial weight perturbation (AWP) and class-wise radii (RobustLT)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.methods.contract import Learner, Method
from ltrobust.methods.declarations import declares
from ltrobust.methods.settings import check_choices, check_fractions, check_weights
from ltrobust.threat import pixels

DIRECTIONS = ("gradient", "optimizer")


@declares(sets=("perturb_weights",))
def awp(method: Method, *, gamma: float = 0.005, warmup_epochs: int = 0, direction: str = "gradient") -> Method:
    """Adversarial weight perturbation (Wu, Xia and Wang, NeurIPS 2020).

    The gradient is taken, and the optimiser applied, at `w + v`, and v taken back afterwards. For every array w of more
    than one dimension `v = gamma (||w|| / (||g|| + 1e-20)) g`, Frobenius norms; all others stay. g is the gradient of
    the method's whole loss at x', whose running statistics are discarded. x' belongs to the weights before.

    Args:
      gamma: length of the perturbation v relative to the weights w, at least 0.
      warmup_epochs: first epochs without a perturbation; 9 for the 10 of released TRADES-AWP, which begins at its 10th.
      direction: `gradient`, or `optimizer`: g is what the optimiser would add to w for the negative gradient, momentum
        and weight decay included (RobustLT's variant).

    Raises:
      ValueError: a negative setting, or unknown direction.
    """
    check_weights("awp", gamma=gamma, warmup_epochs=warmup_epochs)
    check_choices("awp", direction=(direction, DIRECTIONS))

    def perturb(learner: Learner, gradients, update):
        if direction == "optimizer":
            gradients = update(jax.tree.map(jnp.negative, gradients))
        length = jnp.where(learner.epoch > warmup_epochs, gamma, 0.0)

        def perturbation(weight: jax.Array, ascent: jax.Array) -> jax.Array:
            if weight.ndim < 2:
                return jnp.zeros_like(weight)
            return length * jnp.linalg.norm(weight) / (jnp.linalg.norm(ascent) + 1e-20) * ascent

        return jax.tree.map(perturbation, learner.params, gradients)

    return dataclasses.replace(method, perturb_weights=perturb)


@declares(sets=("radii",))
def robust_lt(method: Method, *, spread: float = 0.3, ramp: float = 0.8) -> Method:
    """Radii that grow with a class's rarity and with the epoch ("Taming the Long Tail", arXiv 2605.13395).

    `eps_c(e) = min((e - 1) / (ramp E), 1) eps [(1 - spread) + spread s_c / sum_k (n_k / N) s_k]` with
    `s_c = sqrt(log(n_max / n_c))`: after the ramp the mean over training images is eps. Steps keep their ratio to the
    radius. In epoch 1 the radius is 0, if there is a ramp.

    Args:
      spread: of the radii over the classes; 0 for equal radii, 1 for a radius of 0 of the most frequent class.
      ramp: fraction of the phase over which radii grow, 0 for none. Published for Tiny-ImageNet: 0.2 (PGD-AT, AWP), 0.4
        (RoBal, REAT), 0.6 (AT-BSL), 0.8 (TAET).

    Raises:
      ValueError: a setting outside [0, 1], or, from `check`, equal class counts.
    """
    check_fractions("robust_lt", spread=spread, ramp=ramp)

    def radii(learner: Learner, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        grown = (
            jnp.minimum((learner.epoch - 1).astype(jnp.float32) / (ramp * learner.epochs), 1.0)
            if ramp
            else jnp.float32(1)
        )
        factor = grown * relative_radii(learner.class_counts, spread=spread)[labels]
        return factor * method.inner.threat.epsilon, factor * pixels(method.inner.step_size)

    def check(class_counts: np.ndarray) -> None:
        method.check(class_counts)
        if np.min(class_counts) == np.max(class_counts):
            raise ValueError(
                f"robust_lt divides by the spread of class counts, and all {len(class_counts)} classes have "
                f"{class_counts[0]} images; leave it out, or train on unequal counts."
            )

    return dataclasses.replace(method, radii=radii, check=check)


def relative_radii(class_counts: jax.Array, *, spread: float) -> jax.Array:
    """`(1 - spread) + spread s_c / sum_k (n_k / N) s_k`, [C]; the mean over training images is 1 (RobustLT)."""
    rarity = jnp.sqrt(jnp.log(jnp.max(class_counts) / class_counts))
    mean = jnp.sum(class_counts * rarity) / jnp.sum(class_counts)
    return (1 - spread) + spread * rarity / mean
