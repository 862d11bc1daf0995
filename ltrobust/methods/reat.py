"""REAT (Li et al., arXiv 2307.10205): attacks weighted by the last epoch's predictions, and a term on tail features."""

from typing import Any

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome
from ltrobust.methods.settings import check_variant


def reat(inner: InnerAttack, *, variant: str = "as_described") -> Method:
    """`L = BSL(z(x'), y) + tail_term`, x' from PGD on w_y CE with `attack_weights` w.

    The weights come from m, the training images predicted as each class (plain logits at x', train mode) during the
    epoch before; in the first epoch m = n. One train-mode pass, on x'. `as_described`: a class that was never predicted
    counts as predicted once, and the tail term compares pairs. `as_released`: no such floor, and one divergence per
    anchor. The attack's normalisation sum_i w_{y_i} is left out: it changes no direction. Nor do the weights, unless
    the attack runs in `batch_frozen` mode, where images are coupled.

    Args:
      variant: `as_described`: pairwise tail term; `as_released`: one divergence per anchor.

    Raises:
      ValueError: unknown variant.
    """
    check_variant("reat", variant)

    def attack(learner: Learner, batch: Batch):
        predicted = _of_this_epoch(learner)["previous"]
        predicted = jnp.maximum(predicted, 1) if variant == "as_described" else predicted
        weights = attack_weights(learner.class_counts, predicted)[batch.labels]

        def objective(images: jax.Array) -> jax.Array:
            logits, _ = learner.forward(images, bn=inner.bn)
            return weights * objectives.cross_entropy(logits, batch.labels)

        return inner(objective, batch)

    def loss(learner: Learner, batch: Batch, adv_images):
        logits, features, learner = learner.forward_features(adv_images, bn="train")
        label_loss = jnp.mean(objectives.balanced_softmax(logits, batch.labels, learner.class_counts))
        term = tail_term(features, batch.labels, learner.class_counts, learner.axis_name, variant=variant)
        metrics = {"label_loss": label_loss, "tail_loss": term}
        outcome = Outcome(learner.batch_stats, _counted(learner, logits), logits, metrics)
        return label_loss + term, outcome

    return Method(
        name="reat",
        attack=attack,
        loss=loss,
        inner=inner,
        passes=("adv",),
        initial_state=_initial_state,
    )


def attack_weights(class_counts: jax.Array, predicted: jax.Array) -> jax.Array:
    """`w_c = C v_c / sum_k v_k` with `v_c = 1 / (E_c + 1e-5)`, [C].

    `E_c = (1 - b_c^m_c) / (1 - b_c)` with `b_c = (n_c - 1) / n_c`, the effective number of m images drawn from n
    (Cui et al., CVPR 2019).

    Args:
      class_counts: n, [C].
      predicted: m, [C].
    """
    # b = 0 where there is one image: its logarithm may not meet m = 0.
    exponent = jnp.where(predicted > 0, predicted * jnp.log1p(-1 / class_counts), 0.0)
    inverse = 1 / (-jnp.expm1(exponent) * class_counts + 1e-5)
    return inverse * class_counts.shape[0] / jnp.sum(inverse)


def tail_classes(class_counts: jax.Array) -> jax.Array:
    """Whether a class is in the tail: rank above 2 floor(C / 3), counted from 0 and the most frequent class. [C].

    The released code takes the index for the rank, which is the same where counts fall with it.
    """
    rank = jnp.argsort(jnp.argsort(-class_counts, stable=True))
    return rank > 2 * (class_counts.shape[0] // 3)


def tail_term(
    features: jax.Array, labels: jax.Array, class_counts: jax.Array, axis_name: str, *, variant: str
) -> jax.Array:
    """`(1 / #anchors) mean_j sum_i k_ij g_ij (v_{y_i} + v_{y_j})` over anchors i of the tail and all j of the batch.

    `k_ij = KL(softmax sg[h_i] || softmax h_j)` over the F features h; g is -1 for equal labels and +1 otherwise, the
    pair j = i included; `v_c = sqrt(N / n_c)`. `as_released` replaces k_ij by its mean over j, divided by F; the
    pairwise form is inferred. 0 without anchors. With g = +1 tail images are pulled towards those of other classes;
    whether that is meant is not known. Each device computes its own anchors' part times the number of devices: the
    mean over devices is the term.

    Args:
      features: this device's h, [B / devices, F].
      labels: [B / devices].
      class_counts: n, [C].
    """
    anchors = tail_classes(class_counts)[labels].astype(features.dtype)
    others, other_labels = jax.lax.all_gather((jax.nn.log_softmax(features), labels), axis_name, tiled=True)
    target = jax.nn.log_softmax(jax.lax.stop_gradient(features))
    entropy = -jnp.sum(jnp.exp(target) * target, axis=-1)
    # A small difference of large numbers: accelerators would round the product's factors to ten bits.
    crossed = -jnp.matmul(jnp.exp(target), others.T, precision="highest")
    divergence = crossed - entropy[:, None]
    if variant == "as_released":
        divergence = jnp.mean(divergence, axis=1, keepdims=True) / features.shape[-1]
    rarity = jnp.sqrt(jnp.sum(class_counts) / class_counts)
    sign = jnp.where(labels[:, None] == other_labels, -1.0, 1.0)
    pairs = divergence * sign * (rarity[labels][:, None] + rarity[other_labels])
    number = jax.lax.psum(jnp.sum(anchors), axis_name)
    own_part = jnp.sum(anchors * jnp.mean(pairs, axis=1)) / jnp.maximum(number, 1)
    return own_part * jax.lax.axis_size(axis_name)


def _initial_state(params: Any, class_counts: jax.Array) -> dict[str, jax.Array]:
    """Before the first step: every image counts as predicted right."""
    del params
    return {"epoch": jnp.int32(1), "previous": class_counts, "current": jnp.zeros_like(class_counts)}


def _of_this_epoch(learner: Learner) -> dict[str, jax.Array]:
    """The state as the step's epoch sees it: at a new epoch, what was current is now previous."""
    # Not by `end_epoch`, which needs a validation part. The first step of an epoch sees another number in the state.
    state = learner.method_state
    begins = learner.epoch != state["epoch"]
    return {
        "epoch": learner.epoch,
        "previous": jnp.where(begins, state["current"], state["previous"]),
        "current": jnp.where(begins, 0, state["current"]),
    }


def _counted(learner: Learner, logits: jax.Array) -> dict[str, jax.Array]:
    """The state after this batch's predictions, over all devices."""
    state = _of_this_epoch(learner)
    predicted = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=state["current"].dtype)
    return state | {"current": state["current"] + jax.lax.psum(jnp.sum(predicted, axis=0), learner.axis_name)}
