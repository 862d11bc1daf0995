"""Agreement of two networks under small changes of an image: input gradients side by side, and linearity.

The measures of IGDM (Lee, Cho and Kim, ICLR 2025). Its gradient distance depends on a scalar that the paper does not
state, so distances are compared between students here, not with the paper; cosines do not depend on it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.analysis import intervals
from ltrobust.analysis.intervals import Estimate
from ltrobust.attacks import objectives

Logits = Callable[[jax.Array], jax.Array]


class PerImage(NamedTuple):
    """Of every image, float32 [N]: distance and cosine of the input gradients, and the linearity of each network."""

    distance: Any
    cosine: Any
    student_remainder: Any
    teacher_remainder: Any


@dataclasses.dataclass(frozen=True)
class Agreement:
    """The measures of every image, and their means."""

    per_image: PerImage

    def means(self) -> dict[str, Estimate]:
        """Mean of each measure over images with the 95 % interval of a normal mean."""
        return {name: mean_of(values) for name, values in self.per_image._asdict().items()}


def mean_of(values: np.ndarray) -> Estimate:
    """Mean of [N] with `-+ z s / sqrt(N)`; not a number for fewer than two, where there is no s."""
    values = np.asarray(values, np.float64)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return intervals.normal(float(values.mean()), error)


def agreement(
    student: Logits,
    teacher: Logits,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epsilon: float,
    batch_size: int = 128,
    seed: int = 0,
) -> Agreement:
    """Measures two networks on given images, in float32 with the highest matmul precision.

    With g = grad_x CE(z(x), y) of the student and g_t of the teacher, and u uniform in [-epsilon, epsilon],

        distance  = || g - g_t ||_2,    cosine = <g, g_t> / (||g|| ||g_t||)
        remainder = || z(x+u) - z(x) - J(x) u ||_2 / || z(x+u) ||_2        of each network

    An image's measures do not depend on the batch. A gradient of length 0 has cosine 0.

    Args:
      student, teacher: images float32 [B,H,W,C] in [0,1] -> logits [B,K]; what a `jax.tree_util.Partial` holds, such
        as weights, stays out of the compiled program.
      images: float32 [N,H,W,C].
      labels: integers [N].
      epsilon: largest change of a pixel for the remainder, in pixel units.
      batch_size: images per compiled call.
      seed: of u.

    Raises:
      ValueError: no images, another number of labels, or a batch size below 1.
    """
    if len(images) == 0 or len(images) != len(labels) or batch_size < 1:
        raise ValueError(
            f"{len(images)} images, {len(labels)} labels and batch size {batch_size}: needed are at least one image, a "
            "label for each, and a batch size of at least 1."
        )

    networks = tuple(
        network if isinstance(network, jax.tree_util.Partial) else jax.tree_util.Partial(network)
        for network in (student, teacher)
    )

    @jax.jit
    def measure(networks: tuple[Logits, Logits], images: jax.Array, labels: jax.Array, ids: jax.Array) -> PerImage:
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(seed), row))(ids)
        draw = lambda key: jax.random.uniform(key, images.shape[1:], jnp.float32, -epsilon, epsilon)  # noqa: E731
        return PerImage(
            *_compare(*(_slope(network, images, labels) for network in networks)),
            *(remainder(network, images, jax.vmap(draw)(keys)) for network in networks),
        )

    parts = []
    # The remainder is a small difference of large numbers; fewer bits would show rounding instead of curvature.
    with jax.default_matmul_precision("highest"):
        for first in range(0, len(images), batch_size):
            # The last batch is filled up by its last image, so that one program serves all.
            rows = np.minimum(np.arange(first, first + min(batch_size, len(images))), len(images) - 1)
            given = (jnp.asarray(images[rows], jnp.float32), jnp.asarray(labels[rows], jnp.int32), jnp.asarray(rows))
            parts.append([np.asarray(values)[: len(images) - first] for values in measure(networks, *given)])
    return Agreement(PerImage(*(np.concatenate(columns) for columns in zip(*parts, strict=True))))


def remainder(network: Logits, images: jax.Array, change: jax.Array) -> jax.Array:
    """`|| z(x+u) - z(x) - J u || / || z(x+u) ||` of each image, [B].

    J u comes from two reverse passes, which networks with a custom reverse rule have too.
    """
    logits, pull = jax.vjp(network, images)
    # The pullback is linear in the cotangent, so its own pullback is J u.
    _, push = jax.vjp(lambda cotangent: pull(cotangent)[0], jnp.zeros_like(logits))
    moved = network(images + change)
    return _length(moved - logits - push(change)[0]) / jnp.maximum(_length(moved), 1e-30)


def _slope(network: Logits, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The input gradient of the cross-entropy as a direction [B,D] and its factor [B], `1 - p_y`.

    The loss is softplus(v) with v = logsumexp_{j != y} z_j - z_y, so its gradient is sigmoid(v) grad v. In float32 the
    gradient itself loses its direction, and then its length, on images of which a network is sure.
    """

    def total(images: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = objectives.tempered_difference(network(images), labels, 1.0)
        return jnp.sum(values), values

    direction, values = jax.grad(total, has_aux=True)(images)
    return direction.reshape(len(images), -1), jax.nn.sigmoid(values)


def _compare(first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Distances and cosines of two gradients given as directions and factors."""
    units = [direction / jnp.maximum(_length(direction)[:, None], 1e-30) for direction, _ in (first, second)]
    gradients = [direction * factor[:, None] for direction, factor in (first, second)]
    return _length(gradients[0] - gradients[1]), jnp.sum(units[0] * units[1], axis=-1)


def _length(rows: Any) -> jax.Array:
    """Euclidean length of each row, without underflow of its squares."""
    largest = jnp.maximum(jnp.max(jnp.abs(rows), axis=-1, keepdims=True), 1e-30)
    return largest[:, 0] * jnp.sqrt(jnp.sum((rows / largest) ** 2, axis=-1))
