"""Carlini and Wagner's L2 attack as torchattacks 3.5.1 runs it: no radius, one constant, Adam (IEEE S&P 2017).

With `x' = (tanh w + 1) / 2`, stretched to the pixel bounds, Adam descends on w

    |x' - x|_2^2 + c max(f(z(x')), -kappa),    f(z) = max_j [j = y] z_j - max_j [j != y] z_j.

Three properties of the published code change numbers and are kept. The masks multiply, so that a "largest other logit"
below 0, or a true logit below 0, is read as 0. A pixel that lies on a bound has w = +-inf and never moves. Every tenth
of the steps the search ends if the cost went up; the published code looks at the summed cost of a batch, here a batch
is one image, hence the `/b1` in the protocol's name.

The candidate is the nearest misclassified iterate, the image itself if there was none.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltrobust.attacks.search import Answer, Problem, Search
from ltrobust.threat import Threat

_DECAY_MEAN, _DECAY_SQUARE, _FLOOR = 0.9, 0.999, 1e-8  # Adam's, as PyTorch has them by default


class State(NamedTuple):
    """Of one image's search; `nearest` is the squared distance of the candidate, infinite while there is none.

    `mean` and `square` are Adam's running means of the gradient and of its square.
    """

    point: jax.Array
    weight: jax.Array
    mean: jax.Array
    square: jax.Array
    candidate: jax.Array
    nearest: jax.Array
    checked_cost: jax.Array
    iteration: jax.Array
    target: jax.Array
    claimed: jax.Array
    finished: jax.Array


def settings(*, c: float = 10.0, kappa: float = 0.0, rate: float = 0.01, steps: int = 100) -> dict[str, Any]:
    """Traced settings of `CW_L2`; the radius is infinite.

    Args:
      c: weight of misclassification against squared distance in pixel units.
      kappa: how far, in logits, a point is pushed beyond the boundary.
      rate: Adam's learning rate, in units of w.
      steps: iterations, each one evaluation.

    Raises:
      ValueError: c or rate not positive, kappa negative, or no steps.
    """
    if not (c > 0 and rate > 0 and kappa >= 0 and steps >= 1):
        raise ValueError(
            f"CW-L2 has c {c}, rate {rate}, kappa {kappa}, steps {steps}; c and rate must be positive, kappa at least "
            "0 and steps at least 1."
        )
    return {
        "radius": jnp.float32(jnp.inf),
        "c": jnp.float32(c),
        "kappa": jnp.float32(kappa),
        "rate": jnp.float32(rate),
        "steps": jnp.int32(steps),
    }


def start(problem: Problem, settings: Any, threat: Threat) -> State:
    """The image itself, up to the rounding of tanh and its inverse."""
    del settings
    middle, half = (threat.upper + threat.lower) / 2, (threat.upper - threat.lower) / 2
    relative = jnp.clip((problem.image - middle) / half, -1.0, 1.0)
    # The inverse of tanh. It is infinite for a pixel on a bound, which therefore never moves, as published.
    weight = 0.5 * jnp.log((1 + relative) / (1 - relative))
    infinite, false = jnp.float32(jnp.inf), jnp.array(False)
    return State(
        point=_inside(weight, threat),
        weight=weight,
        mean=jnp.zeros_like(weight),
        square=jnp.zeros_like(weight),
        candidate=problem.image,
        nearest=infinite,
        checked_cost=infinite,
        iteration=jnp.int32(0),
        target=jnp.int32(-1),
        claimed=false,
        finished=false,
    )


def advance(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """Judges the point, makes one step of Adam, and now and then looks whether the cost still falls."""
    change = state.point - problem.image
    squared = jnp.sum(change**2)
    nearer = (jnp.argmax(answer.logits) != problem.label) & (squared < state.nearest)
    nearest = jnp.where(nearer, squared, state.nearest)
    slope = (threat.upper - threat.lower) / 2 * (1 - jnp.tanh(state.weight) ** 2)
    # The engine ascends, so `objective` is minus the paper's term; hence the minus signs here and in the cost. The
    # slope is that of tanh: 0 for a pixel on a bound.
    gradient = (2 * change - settings["c"] * answer.gradient) * slope
    mean = _DECAY_MEAN * state.mean + (1 - _DECAY_MEAN) * gradient
    square = _DECAY_SQUARE * state.square + (1 - _DECAY_SQUARE) * gradient**2
    count = (state.iteration + 1).astype(jnp.float32)
    unbiased_mean, unbiased_square = mean / (1 - _DECAY_MEAN**count), square / (1 - _DECAY_SQUARE**count)
    weight = state.weight - settings["rate"] * unbiased_mean / (jnp.sqrt(unbiased_square) + _FLOOR)
    cost = squared - settings["c"] * answer.value
    due = state.iteration % jnp.maximum(settings["steps"] // 10, 1) == 0
    finished = (due & (cost > state.checked_cost)) | (state.iteration + 1 >= settings["steps"])
    return State(
        point=_inside(weight, threat),
        weight=weight,
        mean=mean,
        square=square,
        candidate=jnp.where(nearer, state.point, state.candidate),
        nearest=nearest,
        checked_cost=jnp.where(due, cost, state.checked_cost),
        iteration=state.iteration + 1,
        target=state.target,
        # Not before the end: a nearer point may follow.
        claimed=finished & jnp.isfinite(nearest),
        finished=finished,
    )


def objective(problem: Problem, state: State, settings: Any, logits: jax.Array) -> jax.Array:
    """`-max(f, -kappa)`, [B], with the published code's masks."""
    del state
    chosen = jax.nn.one_hot(problem.label, logits.shape[-1])
    margin = jnp.max(chosen * logits, axis=-1) - jnp.max((1 - chosen) * logits, axis=-1)
    # At equality PyTorch's clamp lets the gradient through, jnp.maximum would halve it.
    return -jnp.where(margin >= -settings["kappa"], margin, -settings["kappa"])


def _inside(weight: jax.Array, threat: Threat) -> jax.Array:
    """The point of a weight, cut to the bounds against rounding."""
    point = threat.lower + (threat.upper - threat.lower) / 2 * (jnp.tanh(weight) + 1)
    return jnp.clip(point, threat.lower, threat.upper)


def _point(state: State) -> jax.Array:
    """Where judgement and gradient are wanted."""
    return state.point


CW_L2 = Search(start=start, point=_point, advance=advance, objective=objective)
