"""Balls around images: projection, random starts, and how far a point lies outside.

All functions work per example: `radius` is a scalar or [B], in pixel units, and an example's result depends on
nothing but that example and its key.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ltrobust.runtime.names import nearest
from ltrobust.threat import NORMS, Threat

# Grey, RGB, and RGB with transparency.
_CHANNELS = (1, 3, 4)
STARTS = ("none", "gauss", "uniform", "uniform_raw", "one_sided")


def check_shape(shape: tuple[int, ...]) -> None:
    """Refuses shapes that are not [batch, height, width, channel].

    Raises:
      ValueError: another rank, or the channels on axis 1 (as in PyTorch) and no number of channels on the last.
    """
    if len(shape) != 4:
        raise ValueError(f"images must have shape [batch, height, width, channel], got {list(shape)}.")
    # Squares, or sides that are no numbers of channels: [N, 1, 1, 20] may be a row of 20 numbers.
    if shape[3] not in _CHANNELS and shape[1] in _CHANNELS and (shape[2] == shape[3] or shape[2] > max(_CHANNELS)):
        raise ValueError(
            f"images have shape {list(shape)}, channels first; [batch, height, width, channel] is needed. Use "
            "images.transpose(0, 2, 3, 1), and the same inside the network where it takes channels first."
        )


def check_images(images: jax.Array | np.ndarray, threat: Threat = Threat()) -> None:  # noqa: B008 - frozen
    """Refuses what is not a batch of float32 images within the pixel bounds.

    The values can be seen, and are checked, only outside of a traced function.

    Raises:
      ValueError: wrong shape, dtype, range, or values that are not finite.
    """
    check_shape(images.shape)
    # NumPy, because under an outer trace jnp would trace even a concrete array.
    values = None if isinstance(images, Tracer) or images.size == 0 else np.asarray(images)
    if images.dtype != jnp.float32:
        raise ValueError(
            f"images must be float32 [batch, height, width, channel], got {images.dtype} {list(images.shape)}; "
            f"use {_as_float32(images.dtype, values, threat)}."
        )
    if values is None:
        return
    low, high = float(values.min()), float(values.max())
    if not (low >= threat.lower and high <= threat.upper):
        raise ValueError(
            f"images lie in [{low}, {high}]; attacks need finite values in [{threat.lower}, {threat.upper}]. "
            + _within_bounds(low, high)
        )
    # Only black images (0) are legitimately this dark.
    if 0 < high <= np.float32(1 / 255) and (threat.lower, threat.upper) == (0, 1):
        raise ValueError(f"images lie in [{low:.3g}, {high:.3g}]: divided by 255 twice? Pixels in [0,1] are needed.")


def _as_float32(dtype: Any, values: np.ndarray | None, threat: Threat) -> str:
    """The expression that makes float32 images within the bounds of others."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    small = np.max(values.astype(np.float64)) <= threat.upper if values is not None else floating
    if (floating and small) or dtype == jnp.bool_:
        return "images.astype('float32')"
    return "images.astype('float32') / 255"


def _within_bounds(low: float, high: float) -> str:
    """Advice for values outside of the bounds."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "Leave out what is not finite."
    if low < 0:
        return "Give pixels as they are and put the normalisation inside of the network's function."
    return "Divide pixels from 0 to 255 by 255."


def per_example(value: jax.typing.ArrayLike, images: jax.Array) -> jax.Array:
    """A scalar or [B] as float32 [B, 1, 1, 1], ready to meet images."""
    value = jnp.asarray(value, jnp.float32)
    return jnp.broadcast_to(value, images.shape[:1]).reshape(-1, 1, 1, 1)


def norms(delta: jax.Array, norm: str) -> jax.Array:
    """`linf` or `l2` length of each example's change, [B].

    Raises:
      ValueError: unknown norm.
    """
    flat = delta.reshape(delta.shape[0], -1)
    if norm == "linf":
        return jnp.max(jnp.abs(flat), axis=1)
    if norm == "l2":
        return jnp.sqrt(jnp.sum(flat**2, axis=1))
    raise ValueError(f"norm is {norm!r}; known norms: {', '.join(NORMS)}.")


def project(points: jax.Array, images: jax.Array, radius: jax.typing.ArrayLike, threat: Threat) -> jax.Array:
    """The points brought into the ball around `images`, then into the pixel bounds.

    For `linf` this is the exact Euclidean projection on the intersection. For `l2` the change is first scaled to the
    radius; cutting to the bounds afterwards cannot lengthen it, because the images lie within the bounds.
    """
    radius = per_example(radius, images)
    if threat.norm == "linf":
        inside = jnp.clip(points, images - radius, images + radius)
    else:
        delta = points - images
        length = norms(delta, "l2").reshape(-1, 1, 1, 1)
        # The floor avoids 0 / 0 for a point that is the image itself.
        inside = images + delta * jnp.minimum(1.0, radius / jnp.maximum(length, 1e-12))
    return jnp.clip(inside, threat.lower, threat.upper)


def direction(gradient: jax.Array, norm: str) -> jax.Array:
    """Steepest ascent direction [B,H,W,C] of unit length in the norm; zero where the gradient is (sign(0) = 0)."""
    if norm == "linf":
        return jnp.sign(gradient)
    length = norms(gradient, "l2").reshape(-1, 1, 1, 1)
    return gradient / jnp.maximum(length, 1e-12)


def violation(points: jax.Array, images: jax.Array, radius: jax.typing.ArrayLike, threat: Threat) -> jax.Array:
    """How far each point lies outside ball and bounds, [B] in pixel units; a few float32 ulp after `project`."""
    outside_ball = norms(points - images, threat.norm) - jnp.asarray(radius, jnp.float32)
    below = jnp.max(threat.lower - points, axis=(1, 2, 3))
    above = jnp.max(points - threat.upper, axis=(1, 2, 3))
    return jnp.maximum(0.0, jnp.maximum(outside_ball, jnp.maximum(below, above)))


def random_start(
    images: jax.Array, keys: jax.Array, radius: jax.typing.ArrayLike, *, start: str, threat: Threat
) -> jax.Array:
    """Where an attack begins, one key per example.

    `none`: the image. `gauss`: image + 0.001 N(0,1), not clipped. `uniform`: a uniform point of the ball, clipped to
    the bounds; `uniform_raw`: the same, not clipped. `one_sided` (linf): image + radius * U[0,1), not clipped (RoBal's
    released start). Points are not projected: the first step of the attack does that.

    Args:
      images: [B,H,W,C].
      keys: [B] typed keys.
      radius: scalar or [B], pixel units.

    Raises:
      ValueError: unknown start, or `one_sided` in another norm than linf.
    """
    check_start(start, threat)
    if start == "none":
        return images
    shape = images.shape[1:]
    # One key per image: the draws of an image do not depend on the batch it is in.
    if start == "gauss":
        return images + 0.001 * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    draw = {"uniform": _uniform_point, "uniform_raw": _uniform_point, "one_sided": _one_sided_point}[start]
    moved = images + per_example(radius, images) * jax.vmap(lambda key: draw(key, shape, threat.norm))(keys)
    return jnp.clip(moved, threat.lower, threat.upper) if start == "uniform" else moved


def check_start(start: str, threat: Threat) -> None:
    """Refuses what `random_start` does not know."""
    if start not in STARTS:
        raise ValueError(f"attack start is {start!r}; {nearest(start, STARTS)}known starts: {', '.join(STARTS)}.")
    if start == "one_sided" and threat.norm != "linf":
        raise ValueError(f"attack start 'one_sided' is defined for linf only, not for {threat.norm}.")


def _uniform_point(key: jax.Array, shape: tuple[int, ...], norm: str) -> jax.Array:
    """A uniform point of the unit ball."""
    if norm == "linf":
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
    direction_key, length_key = jax.random.split(key)
    direction = jax.random.normal(direction_key, shape)
    # The volume within distance r grows as r^d, so u^(1/d) is uniform in the ball. A plain u would favour its centre.
    length = jax.random.uniform(length_key) ** (1 / direction.size)
    return direction * length / jnp.sqrt(jnp.sum(direction**2))


def _one_sided_point(key: jax.Array, shape: tuple[int, ...], norm: str) -> jax.Array:
    """A uniform point of [0,1)^d."""
    del norm
    return jax.random.uniform(key, shape)
