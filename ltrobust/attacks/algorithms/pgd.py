"""Projected gradient ascent: `pgd` on any per-example objective, for training, and `search` for evaluation.

The two do the same steps; the second takes its loss from a list, and all its settings but the start are traced, so
that FGSM, PGD-20, PGD-100, CW-Linf, LSA, Temperature-PGD and MIM at any radius and logit scale are one program.
`pgd_with_tally` is `pgd` that also counts something over its iterates.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball, objectives
from ltrobust.attacks.search import Answer, Problem, Search
from ltrobust.threat import Threat

# The traced setting `loss` is a position in this list, and so is the branch of `_objective`.
LOSSES = ("ce", "margin", "tempered")


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
    settings = {"threat": threat, "steps": steps, "step_size": step_size, "radius": radius, "start": start}
    return _ascend(lambda points: (objective(points), ()), (), images, keys, **settings)[0]


def pgd_with_tally(
    objective: Callable[[jax.Array], tuple[jax.Array, jax.Array]], images: jax.Array, keys: jax.Array, **settings: Any
) -> tuple[jax.Array, jax.Array]:
    """As `pgd`, with its settings, for an objective that returns values [B] and booleans or counts [B].

    Returns:
      The last iterate, and the counts' sum over x_0 .. x_{K-1}, the iterates from which a step is made, int32 [B].
    """
    return _ascend(objective, jnp.zeros(len(images), jnp.int32), images, keys, **settings)


def _ascend(
    objective: Callable[[jax.Array], tuple[jax.Array, Any]],
    zeros: Any,
    images: jax.Array,
    keys: jax.Array,
    *,
    threat: Threat,
    steps: int,
    step_size: jax.typing.ArrayLike,
    radius: jax.typing.ArrayLike | None = None,
    start: str = "uniform",
) -> tuple[jax.Array, Any]:
    """Last iterate, and the objective's second result summed over the other iterates, starting at `zeros`."""
    ball.check_images(images, threat)
    if steps < 0:
        raise ValueError(f"PGD steps is {steps}; it must be at least 0.")
    radius = threat.epsilon if radius is None else radius
    step_size = ball.per_example(step_size, images)

    def total(points: jax.Array) -> tuple[jax.Array, Any]:
        values, tally = objective(points)
        # A sum, not a mean: the gradient of an image must not depend on the number of images.
        return jnp.sum(values), tally

    def step(_, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        points, sums = carry
        gradient, tally = jax.grad(total, has_aux=True)(points)
        moved = points + step_size * ball.direction(gradient, threat.norm)
        sums = jax.tree.map(lambda sum, new: sum + new.astype(sum.dtype), sums, tally)
        return ball.project(moved, images, radius, threat), sums

    first = ball.random_start(images, keys, radius, start=start, threat=threat)
    if not steps:
        return jax.lax.stop_gradient((ball.project(first, images, radius, threat), zeros))
    # The outer loss takes the adversarial images as constants; the gradient does not pass through the attack.
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, (first, zeros)))


class State(NamedTuple):
    """Of one image's search; the candidate is the last iterate, once there is one."""

    point: jax.Array
    velocity: jax.Array
    candidate: jax.Array
    iteration: jax.Array
    target: jax.Array
    claimed: jax.Array
    finished: jax.Array


def settings(
    *,
    loss: str,
    radius: float,
    steps: int,
    step_size: float,
    num_classes: int,
    scale: Any = 1.0,
    kappa: float = 50.0,
    decay: float = 0.0,
) -> dict[str, Any]:
    """Traced settings of a PGD search; lengths in pixel units.

    Args:
      loss: `ce` (cross-entropy), `margin` (CW-Linf, with `kappa`), `tempered` (Temperature-PGD); of `scale * z`.
      radius: of the ball.
      steps: at least 1; the last iterate counts.
      step_size: of a step.
      num_classes: K.
      scale: of the logits, one number or one for each true class.
      kappa: of the margin loss.
      decay: of the momentum, 0 for none (MIM, Dong et al. 2018: the gradient enters over its mean absolute value).

    Raises:
      ValueError: unknown loss, fewer than one step, or scales that are neither one nor K.
    """
    if loss not in LOSSES:
        raise ValueError(f"PGD loss is {loss!r}; known losses: {', '.join(LOSSES)}.")
    if steps < 1:
        raise ValueError(f"PGD steps is {steps}; an attack makes at least 1.")
    scale = jnp.asarray(scale, jnp.float32)
    if scale.shape not in ((), (1,), (num_classes,)):
        raise ValueError(
            f"PGD scale has shape {list(scale.shape)}; give one number, or {num_classes}, one for each class."
        )
    return {
        "radius": jnp.float32(radius),
        "loss": jnp.int32(LOSSES.index(loss)),
        "steps": jnp.int32(steps),
        "step_size": jnp.float32(step_size),
        "scale": jnp.broadcast_to(scale, (num_classes,)),
        "kappa": jnp.float32(kappa),
        "decay": jnp.float32(decay),
    }


# Cached, because the driver keeps one compiled program per `Search` object.
@functools.cache
def search(start: str) -> Search:
    """PGD as a `Search` whose start is one of `ball.STARTS`."""

    def begin(problem: Problem, settings: Any, threat: Threat) -> State:
        image, radius = problem.image[None], settings["radius"]
        point = ball.random_start(image, problem.key[None], radius, start=start, threat=threat)[0]
        false, zero = jnp.array(False), jnp.int32(0)
        return State(point, jnp.zeros_like(point), problem.image, zero, jnp.int32(-1), false, false)

    return Search(start=begin, point=_point, advance=_advance, objective=_objective)


def _point(state: State) -> jax.Array:
    """Point at which the gradient is needed."""
    return state.point


def _advance(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """`x <- project(x + a * direction(v))` with the gradient or its accumulated mean as v."""
    normalised = answer.gradient / jnp.maximum(jnp.mean(jnp.abs(answer.gradient)), 1e-20)
    # `decay` is traced, so both directions are computed and one is chosen: MIM and PGD are one program. MIM divides by
    # the mean absolute value as published; the floor is for gradients that vanish.
    momentum = settings["decay"] * state.velocity + normalised
    velocity = jnp.where(settings["decay"] > 0, momentum, answer.gradient)
    moved = state.point + settings["step_size"] * ball.direction(velocity[None], threat.norm)[0]
    point = ball.project(moved[None], problem.image[None], settings["radius"], threat)[0]
    finished = state.iteration + 1 >= settings["steps"]
    # Judged by its last iterate, as in the published code, even if an earlier one was misclassified.
    candidate = jnp.where(finished, point, state.candidate)
    return State(point, velocity, candidate, state.iteration + 1, state.target, state.claimed, finished)


def _objective(problem: Problem, state: State, settings: Any, logits: jax.Array) -> jax.Array:
    """The loss that `settings` name, [B]."""
    scale = settings["scale"][problem.label]
    scaled = scale[:, None] * logits
    # The index is traced: attacks with different losses share one compiled program.
    return jax.lax.switch(
        settings["loss"],
        [
            lambda: objectives.cross_entropy(scaled, problem.label),
            lambda: objectives.margin(scaled, problem.label, settings["kappa"]),
            lambda: objectives.tempered_difference(logits, problem.label, scale[:, None]),
        ],
    )
