"""Square: random search over squares, without gradients (Andriushchenko et al., ECCV 2020).

The search keeps the point with the smallest margin `M = z_y - max_{j != y} z_j`, changes it inside a random square, and
keeps the change if the margin fell. Squares shrink on a fixed schedule. `linf` moves a square by twice the radius, one
sign per channel, and cuts to ball and bounds; `l2` (Algorithm 3, with the details of the AutoAttack code) takes length
from a second window and spends it, with what the ball still allows, on a pair of bumps of opposite sign in the first.

An image's search ends when the network's prediction is wrong; it continues at a margin of exactly 0 if the true class
wins the tie. Query 0 is the start, every further query a proposal; each has a separate random key.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball
from ltrobust.attacks.search import Answer, Problem, Search
from ltrobust.threat import NORMS, Threat

# Last proposal at which the share of changed pixels is p_init, p_init/2, p_init/4, ...; of 10,000 where rescaled.
_LAST = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# Avoids 0 / 0 for a change that is zero.
_TINY = 1e-12


class State(NamedTuple):
    """Of one image's search; `query` counts evaluations made, and `margin` is that of `best`."""

    point: jax.Array
    best: jax.Array
    candidate: jax.Array
    margin: jax.Array
    query: jax.Array
    target: jax.Array
    claimed: jax.Array
    finished: jax.Array


def settings(
    *,
    radius: float,
    image_shape: tuple[int, ...],
    norm: str = "linf",
    queries: int = 5000,
    p_init: float = 0.8,
    rescale: bool = False,
) -> dict[str, Any]:
    """Traced settings of `SQUARE`.

    Args:
      radius: pixel units.
      image_shape: (height, width, channels).
      norm: that of the threat; `l2` squares are odd and at least 3 wide, if the image is large enough.
      queries: proposals; one evaluation more is spent on the start.
      p_init: share of the image that the first squares cover.
      rescale: squeeze the schedule for 10,000 proposals into `queries` (the torchattacks default, `aa_ta10`). False:
        the schedule for 10,000 proposals, cut off (AutoAttack).

    Raises:
      ValueError: unknown norm, no queries, p_init outside (0, 1], or a shape that is not of an image.
    """
    if norm not in NORMS:
        raise ValueError(f"Square norm is {norm!r}; known norms: {', '.join(NORMS)}.")
    if queries < 1 or not 0 < p_init <= 1:
        raise ValueError(f"Square has queries {queries} and p_init {p_init}; they need at least 1, and (0, 1].")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"Square image_shape is {image_shape}; give (height, width, channels), each at least 1.")
    last = np.array(_LAST)
    if rescale:
        # torchattacks rounds the rescaled proposal down, so the last proposal of each share is found the same way.
        scaled = [int(proposal / queries * 10_000) for proposal in range(queries)]
        last = np.searchsorted(scaled, last, side="right") - 1
    shares = p_init / 2.0 ** np.arange(len(_LAST) + 1)
    return {
        "radius": jnp.float32(radius),
        "queries": jnp.int32(queries),
        "last": jnp.asarray(last, jnp.int32),
        "sides": jnp.asarray([_side(share, image_shape, norm) for share in shares.tolist()], jnp.int32),
    }


def side_at(settings: Any, proposal: jax.Array) -> jax.Array:
    """Side of the square of proposal 0, 1, ..., in pixels, int32."""
    return settings["sides"][jnp.sum(proposal > settings["last"])]


def start(problem: Problem, settings: Any, threat: Threat) -> State:
    """Stripes of the full radius for `linf`, tiles of bumps for `l2`."""
    first = _stripes if threat.norm == "linf" else _tiles
    point = first(problem, settings["radius"], threat)
    return State(
        point=point,
        best=point,
        candidate=problem.image,
        margin=jnp.float32(jnp.inf),
        query=jnp.int32(0),
        target=jnp.int32(-1),
        claimed=jnp.array(False),
        finished=jnp.array(False),
    )


def advance(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """Keeps the point or not, and proposes the next."""
    margin = _margin(answer.logits, problem.label)
    wrong = jnp.argmax(answer.logits) != problem.label
    # As published, a misclassified point is kept even if an earlier one had a lower margin.
    kept = (state.query == 0) | (margin < state.margin) | (margin <= 0)
    best = jnp.where(kept, state.point, state.best)
    propose = _propose_linf if threat.norm == "linf" else _propose_l2
    return State(
        point=propose(problem, best, side_at(settings, state.query), state.query, settings["radius"], threat),
        best=best,
        candidate=jnp.where(wrong, state.point, state.candidate),
        margin=jnp.where(kept, margin, state.margin),
        query=state.query + 1,
        target=state.target,
        claimed=state.claimed | wrong,
        finished=state.query >= settings["queries"],
    )


def advance_guesses(problem: Problem, state: State, settings: Any, threat: Threat, answer: Answer) -> State:
    """As `advance` for `linf`, for the proposals [G] that follow one another if none of them is kept.

    Up to the first one that is kept they are what `advance` would have asked for, one by one; the rest is dropped.
    """
    guesses = len(answer.logits)
    queries = state.query + jnp.arange(guesses)
    margins = jax.vmap(_margin, in_axes=(0, None))(answer.logits, problem.label)
    asked = queries <= settings["queries"]
    kept = asked & ((queries == 0) | (margins < state.margin) | (margins <= 0))
    wrong = asked & (jnp.argmax(answer.logits, axis=-1) != problem.label)
    first = jnp.argmax(kept | wrong)
    kept, wrong, point = kept[first], wrong[first], state.point[first]
    best = jnp.where(kept, point, state.best)
    query = jnp.where(kept | wrong, queries[first], jnp.minimum(queries[-1], settings["queries"])) + 1

    def proposal(number: jax.Array) -> jax.Array:
        return _propose_linf(problem, best, side_at(settings, number), number, settings["radius"], threat)

    return State(
        point=jax.vmap(proposal)(query - 1 + jnp.arange(guesses)),
        best=best,
        candidate=jnp.where(wrong, point, state.candidate),
        margin=jnp.where(kept, margins[first], state.margin),
        query=query,
        target=state.target,
        claimed=state.claimed | wrong,
        finished=query > settings["queries"],
    )


# Cached, because the driver keeps one compiled program per `Search` object.
@functools.cache
def search(guesses: int) -> Search:
    """Square with so many proposals at a time; for `linf` the outcome is the same, bit for bit."""
    if guesses == 1:
        return LINF

    def begin(problem: Problem, settings: Any, threat: Threat) -> State:
        state = start(problem, settings, threat)
        # All but the first are dropped, because the start is always kept.
        return state._replace(point=jnp.broadcast_to(state.point, (guesses, *state.point.shape)))

    return Search(start=begin, point=_point, advance=advance_guesses, guesses=guesses)


def bumps(side: jax.Array, row: jax.Array, column: jax.Array, upright: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """A square with a positive and a negative bump side by side, of Euclidean length 1, float32 `shape`.

    The bump of a rectangle with rows a and columns b >= a is, at distance t (largest of the two coordinates') from its
    centre (a // 2, b // 2), the sum of `1 / k^2` over k = t + 1 .. b // 2 + 1. The positive one fills the first side //
    2 rows of the square; where not `upright`, its columns.
    """
    rows = jnp.arange(shape[0])[:, None] - row
    columns = jnp.arange(shape[1])[None, :] - column
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    along, across = jnp.where(upright, rows, columns), jnp.where(upright, columns, rows)
    half = side // 2
    positive = along < half
    centre = jnp.where(positive, half // 2, half + (side - half) // 2)
    distance = jnp.maximum(jnp.abs(along - centre), jnp.abs(across - half))
    # Sums of 1/k^2 up to each k, so that the height at a distance is the difference of two entries.
    layers = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, max(shape) + 2) ** 2)])
    table = jnp.asarray(layers, jnp.float32)
    height = table[half + 1] - table[jnp.clip(distance, 0, half + 1)]
    pair = [_unit(jnp.where(inside & part, height, 0.0)) for part in (positive, ~positive)]
    return _unit(pair[0] - pair[1])


def _side(share: float, image_shape: tuple[int, ...], norm: str) -> int:
    """Side of a square that covers this share of the image."""
    height, width, _ = image_shape
    side, largest = round((share * height * width) ** 0.5), min(height, width)
    if norm == "linf":
        return min(max(side, 1), largest)
    side = max(side, 3)
    return min(side + (side % 2 == 0), largest)


def _stripes(problem: Problem, radius: jax.Array, threat: Threat) -> jax.Array:
    """One sign per column and channel, along the whole height."""
    _, width, channels = problem.image.shape
    signs = _signs(jax.random.uniform(jax.random.fold_in(problem.key, 0), (1, width, channels)))
    return jnp.clip(problem.image + radius * signs, threat.lower, threat.upper)


def _tiles(problem: Problem, radius: jax.Array, threat: Threat) -> jax.Array:
    """As many tiles as fit, each a fifth of the image wide: bumps, one orientation per tile, one sign per channel."""
    height, width, channels = problem.image.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    draw = jax.random.uniform(jax.random.fold_in(problem.key, 0), (down, across, 1, 1, 1 + channels))
    zero = jnp.int32(0)
    upright = bumps(jnp.int32(side), zero, zero, jnp.array(True), (side, side))
    tiles = jnp.where(draw[..., 0] < 0.5, upright, upright.T)[..., None] * _signs(draw[..., 1:])
    delta = tiles.transpose(0, 2, 1, 3, 4).reshape(down * side, across * side, channels)
    room = (height - down * side, width - across * side)
    # What no tile covers is left unchanged, half of it on each side.
    delta = jnp.pad(delta, [(room[0] // 2, room[0] - room[0] // 2), (room[1] // 2, room[1] - room[1] // 2), (0, 0)])
    return jnp.clip(problem.image + radius * _unit(delta), threat.lower, threat.upper)


def _propose_linf(
    problem: Problem, best: jax.Array, side: jax.Array, query: jax.Array, radius: jax.Array, threat: Threat
) -> jax.Array:
    """The best point, moved by twice the radius inside a square."""
    height, width, channels = best.shape
    # Key 0 is the start's, key q is that of proposal q. One vector holds all draws of a proposal.
    draw = jax.random.uniform(jax.random.fold_in(problem.key, query + 1), (2 + channels,))
    # One sign per channel for the whole square, as published for linf.
    square = _square(_corner(draw[0], height, side), _corner(draw[1], width, side), side, (height, width))
    moved = best + jnp.where(square, 2 * radius * _signs(draw[2:]), 0.0)
    return ball.project(moved[None], problem.image[None], radius, threat)[0]


def _propose_l2(
    problem: Problem, best: jax.Array, side: jax.Array, query: jax.Array, radius: jax.Array, threat: Threat
) -> jax.Array:
    """The best point, whose change is erased in one window and renewed in another, then scaled to the radius."""
    height, width, channels = best.shape
    draw = jax.random.uniform(jax.random.fold_in(problem.key, query + 1), (5 + channels,))
    row, column = _corner(draw[0], height, side), _corner(draw[1], width, side)
    renewed = _square(row, column, side, (height, width))
    erased = _square(_corner(draw[2], height, side), _corner(draw[3], width, side), side, (height, width))
    delta = best - problem.image
    unspent = jnp.maximum(radius**2 - jnp.sum(delta**2), 0.0)
    windows = jnp.sum(jnp.where(renewed | erased, delta, 0.0) ** 2, axis=(0, 1))
    # What the ball still allows is shared by the channels; what both windows held is spent again in the first.
    available = jnp.sqrt(unspent / channels + windows)
    fresh = bumps(side, row, column, draw[4] < 0.5, (height, width))[..., None] * _signs(draw[5:])
    fresh = fresh + _unit(jnp.where(renewed, delta, 0.0), axis=(0, 1))
    fresh = _unit(fresh, axis=(0, 1)) * available
    # The windows may overlap; what is in both is renewed.
    delta = jnp.where(renewed, fresh, jnp.where(erased, 0.0, delta))
    return jnp.clip(problem.image + radius * _unit(delta), threat.lower, threat.upper)


def _margin(logits: jax.Array, label: jax.Array) -> jax.Array:
    """`z_y - max_{j != y} z_j` of one image."""
    true = jnp.arange(len(logits)) == label
    return jnp.max(jnp.where(true, logits, -jnp.inf)) - jnp.max(jnp.where(true, -jnp.inf, logits))


def _corner(draw: jax.Array, size: int, side: jax.Array) -> jax.Array:
    """First row or column of a square; as published, the last admissible one is never drawn."""
    return jnp.floor(draw * (size - side).astype(jnp.float32)).astype(jnp.int32)


def _square(row: jax.Array, column: jax.Array, side: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Where the square is, bool [H,W,1]: a comparison, because moving slices are slow for many images at once."""
    rows, columns = jnp.arange(shape[0])[:, None, None] - row, jnp.arange(shape[1])[None, :, None] - column
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _signs(draw: jax.Array) -> jax.Array:
    """-1 or 1 from draws in [0, 1)."""
    return jnp.where(draw < 0.5, -1.0, 1.0)


def _unit(delta: jax.Array, axis: tuple[int, ...] | None = None) -> jax.Array:
    """Scaled to Euclidean length 1 over `axis` (all); zero stays zero."""
    return delta / (jnp.sqrt(jnp.sum(delta**2, axis=axis, keepdims=True)) + _TINY)


def _point(state: State) -> jax.Array:
    """Where the logits are wanted."""
    return state.point


SQUARE = Search(start=start, point=_point, advance=advance)
# Of `linf` alone, whose proposals sum nothing: sums over another number of proposals have other last bits.
LINF = dataclasses.replace(SQUARE, wider=search)
