"""Projected gradient ascent on any per-example objective, in one compiled loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball
from ltrobust.threat import Threat


def pgd(
    objective: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    keys: jax.Array,
    *,
    threat: Threat,
    steps: int,
    step_size: jax.typing.ArrayLike,
    radius: jax.typing.ArrayLike | None = None,
    start: str = "uniform",
) -> jax.Array:
    """The last iterate of `x <- project(x + a * direction(grad objective(x)))`.

    The direction is the sign of the gradient for linf (sign(0) = 0) and the gradient over its length for l2
    (Madry et al., ICLR 2018). Gradients are those of the sum over examples, so no example influences another as
    long as `objective` treats them separately (BatchNorm in eval mode).

    Args:
      objective: images [B,H,W,C] -> [B], ascended.
      images: float32 [B,H,W,C] within the threat's bounds.
      keys: [B] typed keys, for the random start.
      threat: norm and bounds, and the radius where `radius` is not given.
      steps: number of steps, at least 0.
      step_size: scalar or [B], pixel units.
      radius: scalar or [B], pixel units.
      start: see `ball.random_start`.

    Returns:
      Images in ball and bounds (to a few float32 ulp), behind `stop_gradient`. `steps=0` gives the projected start.

    Raises:
      ValueError: images of the wrong type, shape or range; negative steps; unknown start.
    """
    ball.check_images(images, threat)
    if steps < 0:
        raise ValueError(f"PGD steps is {steps}; it must be at least 0.")
    radius = threat.epsilon if radius is None else radius
    step_size = ball.per_example(step_size, images)
    gradient = jax.grad(lambda points: jnp.sum(objective(points)))

    def step(_, points: jax.Array) -> jax.Array:
        moved = points + step_size * _direction(gradient(points), threat.norm)
        return ball.project(moved, images, radius, threat)

    first = ball.random_start(images, keys, radius, start=start, threat=threat)
    last = jax.lax.fori_loop(0, steps, step, first) if steps else ball.project(first, images, radius, threat)
    return jax.lax.stop_gradient(last)


def _direction(gradient: jax.Array, norm: str) -> jax.Array:
    """Steepest ascent direction of unit length in the norm; zero where the gradient is."""
    if norm == "linf":
        return jnp.sign(gradient)
    length = ball.norms(gradient, "l2").reshape(-1, 1, 1, 1)
    return gradient / jnp.maximum(length, 1e-12)
