"""DeepFool: steps onto the nearest linearised boundary until the prediction changes (Moosavi-Dezfooli et al. 2016).

At a point x, with `f_j = z_j(x) - z_y(x)` and `w_j` its gradient, the step goes to the class that linearly is nearest,

    j* = argmin_{j != y} |f_j| / |w_j|_2,    x <- clip(x + (1 + overshoot) |f_j*| w_j* / |w_j*|_2^2),

as in torchattacks 3.5.1: all classes, no radius, and the bounds are met by clipping. One evaluation gives one w_j, so
a step takes K - 1 of them. The published code does not look at its last point; it is judged like any other here. A
class whose gradient is zero has no boundary that could be stepped on; where none has, the search ends.

The candidate is the last point, misclassified or not.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltrobust.attacks import objectives
from ltrobust.attacks.search import Answer, Problem, Search
from ltrobust.threat import Threat


class State(NamedTuple):
    """Of one image's search.

    `rival` counts the classes seen at the current point; `distance`, `move` and `aim` are those of the nearest boundary
    among them. `target` is the class whose gradient is wanted, at the end the one that the last step aimed at.
    """

    point: jax.Array
    move: jax.Array
    candidate: jax.Array
    distance: jax.Array
    aim: jax.Array
    rival: jax.Array
    iteration: jax.Array
    target: jax.Array
    claimed: jax.Array
    finished: jax.Array


def settings(*, steps: int = 50, overshoot: float = 0.02) -> dict[str, Any]:
    """Traced settings of `DEEPFOOL`; the radius is infinite.

    Args:
      steps: at most so many, each K - 1 evaluations.
      overshoot: by which share a step goes beyond the linearised boundary.

    Raises:
      ValueError: no steps, or a negative overshoot.
    """
    if steps < 1 or overshoot < 0:
        raise ValueError(
            f"DeepFool has steps {steps} and overshoot {overshoot}; they must be at least 1 and at least 0."
        )
    return {"radius": jnp.float32(jnp.inf), "steps": jnp.int32(steps), "overshoot": jnp.float32(overshoot)}


def start(problem: Problem, settings: Any, threat: Threat) -> State:
    """The image itself, first other class."""
    del settings, threat
    zero, false = jnp.int32(0), jnp.array(False)
    return State(
        point=problem.image,
        move=jnp.zeros_like(problem.image),
        candidate=problem.image,
        distance=jnp.float32(jnp.inf),
        aim=jnp.int32(-1),
        rival=zero,
        iteration=zero,
        target=_other_class(zero, problem.label),
        claimed=false,
        finished=false,
    )


def advance(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """Ends at a misclassified point; else compares one more boundary, and after the last one makes the step."""
    wrong = jnp.argmax(answer.logits) != problem.label
    squared = jnp.sum(answer.gradient**2)
    # A class without a gradient has no boundary in the linearised network.
    distance = jnp.where(squared > 0, jnp.abs(answer.value) / jnp.sqrt(squared), jnp.inf)
    nearer = ~wrong & (distance < state.distance)
    distance = jnp.where(nearer, distance, state.distance)
    move = jnp.where(nearer, jnp.abs(answer.value) * answer.gradient / squared, state.move)
    aim = jnp.where(nearer, state.target, state.aim)
    # The step is made when all K - 1 boundaries have been compared, one evaluation each.
    complete = ~wrong & (state.rival + 1 == len(answer.logits) - 1)
    stepped = jnp.clip(state.point + (1 + settings["overshoot"]) * move, threat.lower, threat.upper)
    point = jnp.where(complete & jnp.isfinite(distance), stepped, state.point)
    iteration = state.iteration + complete.astype(jnp.int32)
    finished = wrong | (complete & ((iteration >= settings["steps"]) | jnp.isinf(distance)))
    rival = jnp.where(complete, 0, state.rival + 1)
    return State(
        point=point,
        move=jnp.where(complete, jnp.zeros_like(move), move),
        candidate=point,
        distance=jnp.where(complete, jnp.inf, distance),
        aim=aim,
        rival=rival,
        iteration=iteration,
        target=jnp.where(finished, aim, _other_class(rival, problem.label)),
        claimed=wrong,
        finished=finished,
    )


def objective(problem: Problem, state: State, settings: Any, logits: jax.Array) -> jax.Array:
    """`z_t - z_y`, [B]."""
    del settings
    return objectives.difference(logits, problem.label, state.target)


def _other_class(rival: jax.Array, label: jax.Array) -> jax.Array:
    """The class at position `rival` of those that are not the label, in ascending order."""
    return rival + (rival >= label).astype(jnp.int32)


def _point(state: State) -> jax.Array:
    """Where judgement and gradient are wanted."""
    return state.point


DEEPFOOL = Search(start=start, point=_point, advance=advance, objective=objective)
