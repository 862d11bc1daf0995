"""FAB-T: the nearest misclassified point, by steps onto the linearised boundary (Croce and Hein, ICML 2020).

An image is attacked towards one class after another, in descending order of its own logits. Each step projects the
current point and the image itself on the plane where the linearised network gives the target the true class's logit,
goes a little beyond both, and takes a mean of the two that leans towards the current point. A misclassified point is
remembered if it is nearer than any before, and pulled back towards the image. The best point does not influence the
path: an image whose nearest point so far lies within the radius may rest at once.

One evaluation both judges a point and supplies the gradient for the next step; a point that was pulled back, or the
image at the start of a run, costs one evaluation for its gradient alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ltrobust.attacks import ball, objectives
from ltrobust.attacks.algorithms.apgd import target_order
from ltrobust.attacks.search import Answer, Problem, Search
from ltrobust.threat import NORMS, Threat

_SHORTEST = 1e-8  # floor of a projection's length, so that a share of two zeros is defined
_EVERYTHING = 1e30  # multiplier at which every coordinate goes to its bound
_PASSES = 100  # of Newton's method; about 5 are used


class State(NamedTuple):
    """Of one image's search. `best_norm` (pixel units, infinite if none) is that of `best`, over all targets so far.

    `fresh`: `point` is the result of a step and waits to be judged. `iteration` counts steps in the current run.
    `target` is that of the current run, `candidate_target` that of the run in which `best` was found.
    """

    point: jax.Array
    best: jax.Array
    candidate: jax.Array
    best_norm: jax.Array
    fresh: jax.Array
    iteration: jax.Array
    run: jax.Array
    order: jax.Array
    target: jax.Array
    candidate_target: jax.Array
    claimed: jax.Array
    finished: jax.Array


def settings(
    *,
    radius: float,
    num_classes: int,
    norm: str = "linf",
    steps: int = 100,
    runs: int | None = None,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    stop_at_radius: bool = True,
) -> dict[str, Any]:
    """Traced settings of `FAB`.

    Args:
      radius: pixel units; a nearest point farther away is not a success.
      num_classes: of the network.
      norm: in which nearness is measured, that of the threat.
      steps: per target.
      runs: number of targets; 9, or as many as there are other classes.
      alpha_max: largest share of the image's own projection in a step.
      eta: how far a step goes, 1 being onto the plane.
      beta: what remains of the distance to the image when a misclassified point is pulled back.
      stop_at_radius: claim a point within the radius at once. False: only when the search is over, with the nearest.

    Raises:
      ValueError: unknown norm; no steps or runs; more targets than other classes; alpha_max or beta outside [0, 1];
        eta below 1.
    """
    if norm not in NORMS:
        raise ValueError(f"FAB norm is {norm!r}; known norms: {', '.join(NORMS)}.")
    runs = min(9, num_classes - 1) if runs is None else runs
    if steps < 1 or not 1 <= runs <= num_classes - 1:
        raise ValueError(
            f"FAB has steps {steps} and runs {runs}; both must be at least 1, and {num_classes} classes allow "
            f"{num_classes - 1} targets."
        )
    if not (0 <= alpha_max <= 1 and 0 <= beta <= 1 and eta >= 1):
        raise ValueError(
            f"FAB has alpha_max {alpha_max}, beta {beta}, eta {eta}; the first two must lie in [0, 1] and eta must be "
            "at least 1."
        )
    return {
        "radius": jnp.float32(radius),
        "steps": jnp.int32(steps),
        "runs": jnp.int32(runs),
        "alpha_max": jnp.float32(alpha_max),
        "eta": jnp.float32(eta),
        "beta": jnp.float32(beta),
        "stop_at_radius": jnp.array(stop_at_radius),
    }


def start(problem: Problem, settings: Any, threat: Threat) -> State:
    """The image itself, first target."""
    del settings, threat
    order = target_order(problem.logits, problem.label)
    zero = jnp.int32(0)
    return State(
        point=problem.image,
        best=problem.image,
        candidate=problem.image,
        best_norm=jnp.float32(jnp.inf),
        fresh=jnp.array(False),
        iteration=zero,
        run=zero,
        order=order,
        target=order[0],
        candidate_target=jnp.int32(-1),
        claimed=jnp.array(False),
        finished=jnp.array(False),
    )


def advance(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """Judges a fresh point; then pulls it back if it is misclassified, else makes the next step."""
    wrong = state.fresh & (jnp.argmax(answer.logits) != problem.label)
    state, within = _remember_nearest(problem, state, settings, threat, wrong)
    ended = state.iteration >= settings["steps"]
    last = ended & (state.run + 1 >= settings["runs"])
    run = state.run + ended.astype(jnp.int32)
    pulled = problem.image + settings["beta"] * (state.point - problem.image)
    point = jnp.where(wrong, pulled, _step(problem, state, settings, threat, answer))
    return state._replace(
        point=jnp.where(ended, problem.image, point),
        # A point that was pulled back, and the image at the start of a run, need a gradient but no judgement.
        fresh=~wrong & ~ended,
        iteration=jnp.where(ended, 0, state.iteration + (~wrong).astype(jnp.int32)),
        run=run,
        target=state.order[jnp.minimum(run, len(state.order) - 1)],
        claimed=state.claimed | (within & (settings["stop_at_radius"] | last)),
        finished=last,
    )


def restart(problem: Problem, state: State, settings: Any, threat: Threat) -> State:
    """The target of run `state.run`. Where claims end a search (`stop_at_radius`), targets are independent."""
    del problem, settings, threat
    return state._replace(target=state.order[jnp.minimum(state.run, len(state.order) - 1)])


def objective(problem: Problem, state: State, settings: Any, logits: jax.Array) -> jax.Array:
    """`z_t - z_y`, [B]: 0 on the boundary that is sought."""
    del settings
    return objectives.difference(logits, problem.label, state.target)


def hyperplane_step(point: jax.Array, weights: jax.Array, residual: jax.Array, threat: Threat) -> jax.Array:
    """The shortest change that brings `point` onto a plane without leaving the pixel bounds.

    The plane is `<w, u> = <w, point> - r`. Every coordinate moves against `sign(r) w_i`, by at most its distance q_i
    to the bound on that side (0 where w_i = 0):

        linf: |d_i| = min(m, q_i),        l2: |d_i| = min(m |w_i|, q_i),        with  f(m) = sum_i |w_i| |d_i| = |r|.

    f is concave, increasing and piecewise linear, so Newton's method from m = 0 never oversteps, and has the solution
    once no further coordinate reaches its bound. Where the bounds cut the plane off, every coordinate goes to its own.

    Args:
      point: [H,W,C] within the bounds.
      weights: w, [H,W,C].
      residual: r, scalar; positive and negative values move in opposite directions.
      threat: its norm and bounds.

    Returns:
      The change d, [H,W,C].
    """
    # In units of the steepest weight nothing over- or underflows, however small the gradient.
    steepest = jnp.maximum(jnp.max(jnp.abs(weights)), jnp.finfo(weights.dtype).tiny)
    gain, goal = jnp.abs(weights) / steepest, jnp.abs(residual) / steepest
    rising = (weights > 0) ^ (residual >= 0)
    reach = jnp.where(rising, threat.upper - point, point - threat.lower)
    reach = jnp.where(gain > 0, reach, 0.0)
    # Multiplier m moves a coordinate by m for linf and by m |w_i| for l2.
    rate = jnp.ones_like(gain) if threat.norm == "linf" else gain

    def improve(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        passes, _, multiplier = carry
        bound = multiplier * rate >= reach
        spent = jnp.sum(jnp.where(bound, gain * reach, 0.0))
        slope = jnp.sum(jnp.where(bound, 0.0, gain * rate))
        # Where every coordinate is at its bound there is no slope left, and each stays at its own bound.
        solution = jnp.where(slope > 0, (goal - spent) / slope, _EVERYTHING)
        return passes + 1, multiplier, jnp.clip(solution, multiplier, _EVERYTHING)

    def rises(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        passes, previous, multiplier = carry
        # The multiplier only rises, so the loop ends when rounding lets it rise no further.
        return (multiplier > previous) & (passes < _PASSES)

    multiplier = jax.lax.while_loop(rises, improve, (jnp.int32(0), jnp.float32(-1), jnp.float32(0)))[2]
    length = jnp.minimum(multiplier * rate, reach)
    return jnp.where(rising, length, -length)


def _remember_nearest(
    problem: Problem, state: State, settings: Any, threat: Threat, wrong: jax.Array
) -> tuple[State, jax.Array]:
    """Keeps the nearest misclassified point, and says whether it lies within the radius."""
    radius = settings["radius"]
    # A nearest point whose claim was rejected must not stand in the way of others.
    rejected = settings["stop_at_radius"] & ~state.claimed & (state.best_norm <= radius)
    known = jnp.where(rejected, jnp.inf, state.best_norm)
    norm = ball.norms((state.point - problem.image)[None], threat.norm)[0]
    nearer = wrong & (norm < known)
    best, best_norm = jnp.where(nearer, state.point, state.best), jnp.where(nearer, norm, known)
    within = best_norm <= radius
    # The nearest misclassified point may lie outside of the ball. Then the image itself is judged, and counts as
    # robust.
    candidate = jnp.where(within, best, problem.image)
    target = jnp.where(nearer, state.target, state.candidate_target)
    return state._replace(best=best, best_norm=best_norm, candidate=candidate, candidate_target=target), within


def _step(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> jax.Array:
    """A mean of the overshot projections of the current point and of the image."""
    weights = answer.gradient
    # The linearised difference of logits at the image, from value and gradient at the current point.
    at_image = answer.value + jnp.sum(weights * (problem.image - state.point))
    points, residuals = jnp.stack([state.point, problem.image]), jnp.stack([answer.value, at_image])
    moves = jax.vmap(lambda point, residual: hyperplane_step(point, weights, residual, threat))(points, residuals)
    here, there = jnp.maximum(ball.norms(moves, threat.norm), _SHORTEST)
    # The nearer the current point is to the plane, the less the mean leans back to the image.
    share = jnp.minimum(here / (here + there), settings["alpha_max"])
    from_here, from_image = points + settings["eta"] * moves
    return jnp.clip((1 - share) * from_here + share * from_image, threat.lower, threat.upper)


def _point(state: State) -> jax.Array:
    """Where judgement and gradient are wanted."""
    return state.point


FAB = Search(start=start, point=_point, advance=advance, objective=objective, restart=restart, forgets=True)
