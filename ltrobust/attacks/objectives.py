"""Objectives of attacks: one number per example, always ascended.

Every function maps logits [B, C] (and labels [B] or target logits [B, C]) to float32 [B].
"""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`-log softmax(z)_y`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def margin(logits: jax.Array, labels: jax.Array, kappa: jax.typing.ArrayLike = 50.0) -> jax.Array:
    """`-max(z_y - max_{j != y} z_j + kappa, 0)` (Carlini and Wagner 2017, the loss behind "CW-Linf")."""
    return -jnp.maximum(true_margin(logits, labels) + kappa, 0.0)


def true_margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`z_y - max_{j != y} z_j`: positive where the prediction is right."""
    chosen = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return _at(logits, labels) - jnp.max(jnp.where(chosen, -jnp.inf, logits), axis=-1)


def tempered_difference(logits: jax.Array, labels: jax.Array, scale: jax.typing.ArrayLike = 5.0) -> jax.Array:
    """`logsumexp_{j != y}(s z_j) - s z_y`: what Temperature-PGD ascends (Tian et al., KDD 2021), with s = 1/T.

    Its gradient has the sign of that of `CE(s z, y)`, whose factor `1 - p_y` underflows in float32 beyond a scaled
    margin of about 90; this one does not. Large s gives the margin, small s the mean over rivals.
    """
    chosen = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    scaled = jnp.asarray(scale) * logits
    return jax.nn.logsumexp(jnp.where(chosen, -jnp.inf, scaled), axis=-1) - _at(scaled, labels)


def dlr(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`-(z_y - max_{j != y} z_j) / (z_(1) - z_(3) + 1e-12)` (Croce and Hein, ICML 2020); needs three classes.

    Shifting or scaling all logits does not change it.
    """
    # The constant is the published one; it matters only where three logits are equal.
    ordered = jax.lax.top_k(logits, 3)[0]
    return -true_margin(logits, labels) / (ordered[:, 0] - ordered[:, 2] + 1e-12)


def targeted_dlr(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """`-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)` (Croce and Hein, ICML 2020); needs four classes."""
    ordered = jax.lax.top_k(logits, 4)[0]
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    return difference(logits, labels, targets) / (spread + 1e-12)


def difference(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """`z_t - z_y`."""
    return _at(logits, targets) - _at(logits, labels)


def balanced_softmax(logits: jax.Array, labels: jax.Array, class_counts: jax.Array, tau: float = 1.0) -> jax.Array:
    """`-log softmax(z + tau log n)_y`, with n the training counts [C] (Ren et al., NeurIPS 2020, with `tau = 1`)."""
    return cross_entropy(logits + tau * jnp.log(class_counts.astype(logits.dtype)), labels)


def kl_divergence(target_logits: jax.Array, logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """`KL(softmax(t / T) || softmax(z / T))`, summed over classes; differentiable in both arguments."""
    target = jax.nn.log_softmax(target_logits / temperature)
    model = jax.nn.log_softmax(logits / temperature)
    return optax.losses.kl_divergence_with_log_targets(model, target)


def _at(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Each row's logit of its class, [B]."""
    return jnp.take_along_axis(logits, classes[:, None], axis=-1)[:, 0]
