"""What the attacker wants: one number per example, always ascended.

Every function maps logits [B, C] (and labels [B] or target logits [B, C]) to float32 [B].
"""

import jax
import jax.numpy as jnp
import optax

# Below any ordinary logit, as in the peers' code; never mask by multiplying with 0.
_MASKED = -1e4


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`-log softmax(z)_y`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def scaled_cross_entropy(logits: jax.Array, labels: jax.Array, scale: float = 10.0) -> jax.Array:
    """`-log softmax(scale * z)_y`; scale 10 is the LSA of the AT-BSL evaluation."""
    return cross_entropy(scale * logits, labels)


def margin(logits: jax.Array, labels: jax.Array, kappa: float = 50.0) -> jax.Array:
    """`-max(z_y - max_{j != y} z_j + kappa, 0)` (Carlini and Wagner 2017, the loss behind "CW-Linf")."""
    return -jnp.maximum(true_margin(logits, labels) + kappa, 0.0)


def true_margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """`z_y - max_{j != y} z_j`: positive where the prediction is right."""
    chosen = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    true = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return true - jnp.max(jnp.where(chosen, _MASKED, logits), axis=-1)


def balanced_softmax(logits: jax.Array, labels: jax.Array, class_counts: jax.Array) -> jax.Array:
    """`-log softmax(z + log n)_y` (Ren et al., NeurIPS 2020), with n the training counts [C]."""
    return cross_entropy(logits + jnp.log(class_counts.astype(logits.dtype)), labels)


def kl_divergence(target_logits: jax.Array, logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """`KL(softmax(t / T) || softmax(z / T))`, summed over classes; differentiable in both arguments."""
    target = jax.nn.log_softmax(target_logits / temperature)
    model = jax.nn.log_softmax(logits / temperature)
    return optax.losses.kl_divergence_with_log_targets(model, target)
