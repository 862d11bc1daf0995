"""Auto-PGD: signed-gradient ascent with momentum whose step size halves itself (Croce and Hein, ICML 2020).

Settings, made by `settings`: radius, loss (position in `LOSSES`), steps N, runs, and the lengths of the windows between
checks of progress. A run starts at a random point; a targeted attack makes one run per target, the classes other than
the true one in descending order of the image's own logits. An image's search is over when it is misclassified, as any
class, or its last run ends.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball, objectives
from ltrobust.attacks.search import Answer, Problem, Search
from ltrobust.threat import Threat

# The traced setting `loss` is a position in this list, and so is the branch of `objective`.
LOSSES = ("ce", "dlr", "targeted_dlr", "difference")
_TARGETED = ("targeted_dlr", "difference")
_DECAY = 0.75  # share of the step in a move; the rest repeats the previous move
_RISING = 0.75  # a window in which the loss rose less often than this halves the step


class State(NamedTuple):
    """Of one image's search; `iteration` counts evaluations in the current run, 0 at its random start.

    `target` is that of the current run, `candidate_target` that of the run in which `candidate` was found.
    """

    point: jax.Array
    previous: jax.Array
    best: jax.Array
    best_gradient: jax.Array
    candidate: jax.Array
    best_loss: jax.Array
    last_loss: jax.Array
    checked_loss: jax.Array
    step: jax.Array
    iteration: jax.Array
    window: jax.Array
    waited: jax.Array
    rises: jax.Array
    reduced: jax.Array
    run: jax.Array
    order: jax.Array
    target: jax.Array
    candidate_target: jax.Array
    claimed: jax.Array
    finished: jax.Array
    ended: jax.Array


def settings(*, loss: str, radius: float, num_classes: int, steps: int = 100, runs: int = 1) -> dict[str, Any]:
    """Traced settings of `APGD`. `radius` in pixel units; for a targeted loss `runs` is the number of targets.

    A window is 22 % of the steps at first, then shorter by 3 % each time, at least 6 %.

    Raises:
      ValueError: unknown loss; a loss that needs more classes; more targets than other classes; no steps or runs.
    """
    if loss not in LOSSES:
        raise ValueError(f"APGD loss is {loss!r}; known losses: {', '.join(LOSSES)}.")
    needed = {"ce": 2, "dlr": 3, "targeted_dlr": 4, "difference": 2}[loss]
    if num_classes < needed:
        raise ValueError(f"APGD loss {loss!r} needs at least {needed} classes, there are {num_classes}.")
    if steps < 1 or runs < 1 or (loss in _TARGETED and runs > num_classes - 1):
        raise ValueError(
            f"APGD has steps {steps} and runs {runs}; both must be at least 1, and {num_classes} classes allow "
            f"{num_classes - 1} targets."
        )
    return {
        "radius": jnp.float32(radius),
        "loss": jnp.int32(LOSSES.index(loss)),
        "steps": jnp.int32(steps),
        "runs": jnp.int32(runs),
        # Lengths of windows as published, rounded down.
        "window": jnp.int32(max(int(0.22 * steps), 1)),
        "shortest": jnp.int32(max(int(0.06 * steps), 1)),
        "shrink": jnp.int32(max(int(0.03 * steps), 1)),
    }


def start(problem: Problem, settings: Any, threat: Threat) -> State:
    """The first run's random start."""
    order = target_order(problem.logits, problem.label)
    state = _start_run(problem, settings, threat, jnp.int32(0), order)
    return state._replace(candidate=problem.image)


def advance(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """One iteration: what the answer changes, a check of progress if one is due, and the next point."""
    first = state.iteration == 0
    wrong = jnp.argmax(answer.logits) != problem.label
    state = _remember_best(state, answer)
    state = state._replace(
        # Any misclassified iterate counts, not only the one of the highest loss.
        candidate=jnp.where(wrong, state.point, state.candidate),
        candidate_target=jnp.where(wrong, state.target, state.candidate_target),
        claimed=state.claimed | wrong,
        checked_loss=jnp.where(first, answer.value, state.checked_loss),
        rises=state.rises + (~first & (answer.value > state.last_loss)).astype(jnp.int32),
        # The first comparison of a run is with 0, as in the published code.
        last_loss=jnp.where(first, 0.0, answer.value),
        waited=state.waited + (~first).astype(jnp.int32),
    )
    state, gradient = _check_progress(state, settings, answer.gradient)
    moved = _move(problem, state, settings, threat, gradient, first)
    ended = state.iteration >= settings["steps"]
    last = state.run + 1 >= settings["runs"]
    run = state.run + (ended & ~last).astype(jnp.int32)
    return moved._replace(
        iteration=state.iteration + 1,
        run=run,
        target=_target(settings, state.order, run),
        finished=ended & last,
        ended=ended & ~last,
    )


def restart(problem: Problem, state: State, settings: Any, threat: Threat) -> State:
    """Run `state.run`, from another random start."""
    fresh = _start_run(problem, settings, threat, state.run, state.order)
    return fresh._replace(candidate=state.candidate, candidate_target=state.candidate_target, claimed=state.claimed)


def objective(problem: Problem, state: State, settings: Any, logits: jax.Array) -> jax.Array:
    """The loss that `settings` name, [B]."""
    labels, targets = problem.label, state.target
    # Branches that the number of classes rules out are never chosen (`settings` refuses them) but must have a shape.
    fallback = objectives.difference
    dlr = objectives.dlr if logits.shape[-1] >= 3 else lambda z, y: fallback(z, y, targets)
    targeted = objectives.targeted_dlr if logits.shape[-1] >= 4 else fallback
    return jax.lax.switch(
        settings["loss"],
        [
            lambda: objectives.cross_entropy(logits, labels),
            lambda: dlr(logits, labels),
            lambda: targeted(logits, labels, targets),
            lambda: objectives.difference(logits, labels, targets),
        ],
    )


def target_order(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Classes other than the label by descending logit, exact ties with the higher class number first; int32 [K-1]."""
    classes = logits.shape[-1]
    others = jnp.where(jnp.arange(classes) == label, -jnp.inf, logits)
    # A stable ascending sort of the reversed list of negatives puts the higher number first among equals.
    descending = classes - 1 - jnp.argsort(-others[::-1], stable=True)
    return descending[:-1].astype(jnp.int32)


def _start_run(problem: Problem, settings: Any, threat: Threat, run: jax.Array, order: jax.Array) -> State:
    """The state before the first evaluation of a run."""
    point = _random_point(problem, settings["radius"], threat, run)
    unknown = jnp.float32(-jnp.inf)
    zero = jnp.int32(0)
    return State(
        point=point,
        previous=point,
        best=point,
        best_gradient=jnp.zeros_like(point),
        candidate=point,
        best_loss=unknown,
        last_loss=jnp.float32(0),
        checked_loss=unknown,
        # As published: the first step may cross the whole ball.
        step=2 * settings["radius"],
        iteration=zero,
        window=settings["window"],
        waited=zero,
        rises=zero,
        # As published: the first window is checked for oscillation only.
        reduced=jnp.array(True),
        run=run,
        order=order,
        target=_target(settings, order, run),
        candidate_target=jnp.int32(-1),
        claimed=jnp.array(False),
        finished=jnp.array(False),
        ended=jnp.array(False),
    )


def _target(settings: Any, order: jax.Array, run: jax.Array) -> jax.Array:
    """The class that a run aims at, -1 for none."""
    targeted = jnp.isin(settings["loss"], jnp.array([LOSSES.index(loss) for loss in _TARGETED]))
    return jnp.where(targeted, order[jnp.minimum(run, len(order) - 1)], -1)


def _random_point(problem: Problem, radius: jax.Array, threat: Threat, run: jax.Array) -> jax.Array:
    """A point at distance `radius` in a random direction, cut to the bounds."""
    # One key per run: the start towards a target does not depend on how the runs before it went.
    key, shape = jax.random.fold_in(problem.key, run), problem.image.shape
    if threat.norm == "linf":
        draw = jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)
        # On the surface of the ball, as published; the constant avoids 0 / 0.
        draw = draw / (jnp.max(jnp.abs(draw)) + 1e-12)
    else:
        draw = jax.random.normal(key, shape)
        draw = draw / (jnp.sqrt(jnp.sum(draw**2)) + 1e-12)
    return jnp.clip(problem.image + radius * draw, threat.lower, threat.upper)


def _remember_best(state: State, answer: Answer) -> State:
    """Keeps the point with the highest loss so far, the earliest among equals."""
    better = answer.value > state.best_loss
    return state._replace(
        best=jnp.where(better, state.point, state.best),
        best_gradient=jnp.where(better, answer.gradient, state.best_gradient),
        best_loss=jnp.where(better, answer.value, state.best_loss),
    )


def _check_progress(state: State, settings: Any, gradient: jax.Array) -> tuple[State, jax.Array]:
    """At the end of a window: without enough progress the step is halved and the search returns to its best point."""
    # Branches are written as choices, because under `vmap` both sides of a condition are computed anyway.
    due = state.waited == state.window
    oscillates = state.rises.astype(jnp.float32) <= _RISING * state.window.astype(jnp.float32)
    stalls = ~state.reduced & (state.checked_loss >= state.best_loss)
    reduce = due & (oscillates | stalls)
    zero = jnp.int32(0)
    state = state._replace(
        step=jnp.where(reduce, state.step / 2, state.step),
        point=jnp.where(reduce, state.best, state.point),
        reduced=jnp.where(due, reduce, state.reduced),
        checked_loss=jnp.where(due, state.best_loss, state.checked_loss),
        window=jnp.where(due, jnp.maximum(state.window - settings["shrink"], settings["shortest"]), state.window),
        waited=jnp.where(due, zero, state.waited),
        rises=jnp.where(due, zero, state.rises),
    )
    return state, jnp.where(reduce, state.best_gradient, gradient)


def _move(
    problem: Problem, state: State, settings: Any, threat: Threat, gradient: jax.Array, first: jax.Array
) -> State:
    """A step along the gradient, mixed with the previous move (not in a run's first)."""

    def inside(point: jax.Array) -> jax.Array:
        return ball.project(point[None], problem.image[None], settings["radius"], threat)[0]

    share = jnp.where(first, 1.0, _DECAY)
    stepped = inside(state.point + state.step * ball.direction(gradient[None], threat.norm)[0])
    last_move = state.point - state.previous
    point = inside(state.point + share * (stepped - state.point) + (1 - share) * last_move)
    return state._replace(previous=state.point, point=point)


def _point(state: State) -> jax.Array:
    """Where the gradient is wanted."""
    return state.point


APGD = Search(start=start, point=_point, advance=advance, objective=objective, restart=restart)
