"""Attacks as state machines that request one evaluation of the network at a time, for many images side by side.

A `Search` is written for one image: its start, the point at which it needs the network next, and its reaction to the
answer. `work` runs many searches in the slots of one batch, called lanes, in one compiled loop. When a search ends, the
driver (`evaluation/drive.py`) gives its lane the next image. So the batch stays full while the number of survivors
shrinks, and no image's path depends on its neighbours. `run` is the simple driver: one batch, until all are done.
"""

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball
from ltrobust.threat import Threat

LogitsFn = Callable[[jax.Array], jax.Array]


class Problem(NamedTuple):
    """Inputs of an attack on one image; with a leading axis B, on a batch.

    Attributes:
      image: float32 [H,W,C] within the threat's bounds.
      label: int32, the true class.
      logits: float32 [K], of the image itself.
      key: typed key; all draws of the search are addressed from it.
    """

    image: jax.Array
    label: jax.Array
    logits: jax.Array
    key: jax.Array


class Answer(NamedTuple):
    """The network's answer at a search's point: logits [K], objective [], and its gradient [H,W,C] (or None)."""

    logits: jax.Array
    value: jax.Array
    gradient: Any


@dataclasses.dataclass(frozen=True)
class Search:
    """One attack, for one image.

    The state is a NamedTuple that has at least these fields:
      candidate: float32 [H,W,C], in ball and bounds: the adversarial image to be judged. The image itself where none
        has been found.
      claimed: bool, the search believes that `candidate` is misclassified. The lane then rests, until the claim is
        verified; if the exact network rejects it, `claimed` is cleared and the search continues.
      finished: bool, the search needs no more evaluations.
      target: int32, the class aimed at, -1 for none.
      candidate_target: int32, the class aimed at when `candidate` was found; absent where that is always `target`.
      ended: bool, a run is over and `restart` is to begin the next one; absent where `advance` does that itself.

    Settings are a dict of traced scalars or arrays, the same for every image, so that another radius, number of steps
    or scale costs no compilation. `radius` (pixel units) is always among them.

    Attributes:
      start: `(problem, settings, threat) -> state`; sees no network. None in a search that continues lanes
        which another one has started.
      point: `state -> image` at which the network is wanted next.
      advance: `(problem, state, settings, threat, answer) -> state`.
      objective: `(problem, state, settings, logits) -> [B]`, ascended; the one function that is written for a batch.
        None where the attack uses no gradient.
      restart: `(problem, state, settings, threat) -> state`, the start of run `state.run`, for searches of several runs
        (`settings["runs"]`). The state then has `run`, int32, which `advance` counts up when a run ends. It is apart
        from `advance` because its random draws cost as much as a small network, and are rarely wanted. Runs must be
        independent, because the driver may make them side by side, and run 0 begins as `start` does.
      forgets: whether a new run drops a candidate that was rejected in an earlier one.
      guesses: G, how many points `point` returns, [G,H,W,C], if more than one; `answer.logits` is then [G,K]. They are
        the points that a search with one point at a time would ask for one after another, if none of them changed what
        follows. `state.query` counts those that it would have asked for. Only without an objective.
      wider: `guesses -> Search` of the same outcome, where lanes without an image can be used for guesses.
    """

    start: Callable[[Problem, Any, Threat], Any] | None
    point: Callable[[Any], jax.Array]
    advance: Callable[[Problem, Any, Any, Threat, Answer], Any]
    objective: Callable[[Problem, Any, Any, jax.Array], jax.Array] | None = None
    restart: Callable[[Problem, Any, Any, Threat], Any] | None = None
    forgets: bool = False
    guesses: int = 1
    wider: Callable[[int], "Search"] | None = None


class Lanes(NamedTuple):
    """B searches side by side. `occupied` is False where a lane has no image; `evaluations` counts network passes."""

    problem: Problem
    state: Any
    evaluations: jax.Array
    non_finite: jax.Array
    occupied: jax.Array


def begin(
    search: Search,
    problem: Problem,
    settings: Any,
    threat: Threat,
    occupied: jax.Array,
    first: jax.Array | None = None,
) -> Lanes:
    """Lanes before their first evaluation, at the start of run `first` [B] (default: 0)."""
    start, restart = search.start, search.restart
    assert start is not None, "a search without a start begins no lanes"
    state = jax.vmap(lambda one: start(one, settings, threat))(problem)
    if first is not None and restart is not None:
        # At run 0 this is the start itself. Not a choice between the two, so that one of them is compiled.
        state = jax.vmap(lambda one, old: restart(one, old, settings, threat))(problem, state._replace(run=first))
    zeros = jnp.zeros(occupied.shape, jnp.int32)
    return Lanes(problem, state, zeros, jnp.zeros(occupied.shape, bool), occupied)


def running(
    lanes: Lanes, rest_on_claims: jax.Array | bool = True, until: jax.Array | np.ndarray | None = None
) -> jax.Array:
    """Which lanes need another evaluation, bool [B]; in a search of several runs only those before run `until` [B]."""
    # A lane that claims success rests: the exact network checks the claim before more is spent on the image.
    active = lanes.occupied & ~lanes.state.finished & ~(lanes.state.claimed & rest_on_claims)
    if until is None or "run" not in lanes.state._fields:
        return active
    return active & (lanes.state.run < until)


def work(
    search: Search,
    logits_fn: LogitsFn,
    lanes: Lanes,
    settings: Any,
    threat: Threat,
    *,
    evaluations: jax.Array | int,
    min_resting: jax.Array | int = 1 << 30,
    rest_on_claims: jax.Array | bool = True,
    until: jax.Array | None = None,
) -> Lanes:
    """Makes up to `evaluations` network passes over all lanes; stops early when `min_resting` lanes rest or none runs.

    For a search of several runs `until` [B] is the run before which a lane ends. A gradient that is not finite counts
    as 0, and `non_finite` records it.
    """
    advance = jax.vmap(search.advance, in_axes=(0, 0, None, None, 0))

    def wanted(carry: tuple[jax.Array, Lanes]) -> jax.Array:
        done, lanes = carry
        active = running(lanes, rest_on_claims, until)
        # A resting lane costs as much as a running one, so the caller may ask to stop early and refill the free lanes.
        resting = jnp.sum(lanes.occupied & ~active)
        return (done < evaluations) & jnp.any(active) & (resting < min_resting)

    def step(carry: tuple[jax.Array, Lanes]) -> tuple[jax.Array, Lanes]:
        done, lanes = carry
        active = running(lanes, rest_on_claims, until)
        answer, non_finite = _ask(search, logits_fn, lanes, settings)
        state = advance(lanes.problem, lanes.state, settings, threat, answer)
        spent = 1 if search.guesses == 1 else state.query - lanes.state.query
        # Every lane is computed in every pass. One that rests keeps its state, so an image's path does not depend on
        # its neighbours.
        state = jax.tree.map(lambda new, old: _choose(active, new, old), state, lanes.state)
        state = _restart(search, lanes.problem, state, settings, threat)
        return done + 1, lanes._replace(
            state=state,
            evaluations=lanes.evaluations + spent * active.astype(jnp.int32),
            non_finite=lanes.non_finite | (non_finite & active),
        )

    return jax.lax.while_loop(wanted, step, (jnp.int32(0), lanes))[1]


def run(
    search: Search,
    logits_fn: LogitsFn,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray,
    keys: jax.Array,
    *,
    settings: Any,
    threat: Threat,
    rest_on_claims: bool = True,
    prepare: Callable[[Any], Any] = lambda state: state,
) -> Lanes:
    """One batch from its start until every search is over; compiled. The images found are `lanes.state.candidate`.

    Args:
      search: the attack.
      logits_fn: images [B,H,W,C] -> logits [B,K].
      images: float32 [B,H,W,C] within the bounds.
      labels: integers [B].
      keys: typed keys [B].
      settings: of the attack, see its file.
      threat: norm and bounds; the radius is in `settings`.
      rest_on_claims: False: searches continue to their last iteration, as in the published code.
      prepare: changes the states before the first evaluation, such as to put recorded starts in place of drawn ones.

    Raises:
      ValueError: images of the wrong type, shape or range.
    """
    ball.check_images(images, threat)

    # Settings are arguments, and not constants of the program, as in evaluation: a compiler that knows their values
    # computes in other roundings.
    @jax.jit
    def whole(images: jax.Array, labels: jax.Array, keys: jax.Array, settings: Any) -> Lanes:
        settings = jax.lax.optimization_barrier(settings)
        problem = Problem(images, labels.astype(jnp.int32), logits_fn(images), keys)
        lanes = begin(search, problem, settings, threat, jnp.ones(len(labels), bool))
        lanes = lanes._replace(state=prepare(lanes.state))
        return work(search, logits_fn, lanes, settings, threat, evaluations=1 << 30, rest_on_claims=rest_on_claims)

    return whole(images, labels, keys, settings)


def draws(seed: int, name: str) -> jax.Array:
    """The key from which all draws of an attack of that name are addressed: `fold_in(key(seed), crc32(name))`.

    Attacks whose names differ only behind an `@` start alike.
    """
    # A checksum, because Python's `hash` of a string differs between processes. The part behind `@` is left out, so
    # that attacks that differ in one setting can be compared from the same starts.
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.partition("@")[0].encode()))


def keys_of(root: jax.Array, ids: jax.Array | np.ndarray) -> jax.Array:
    """The typed keys [B] of images by their ids, uint32 [B]: an image's draws do not depend on its batch."""
    return jax.vmap(lambda identity: jax.random.fold_in(root, identity))(ids)


def refill(old: Lanes, new: Lanes, replaced: jax.Array) -> Lanes:
    """`old` with the lanes of `new` where `replaced` [B] is True."""
    return jax.tree.map(lambda fresh, kept: _choose(replaced, fresh, kept), new, old)


def _ask(search: Search, logits_fn: LogitsFn, lanes: Lanes, settings: Any) -> tuple[Answer, jax.Array]:
    """The network at every lane's point, and which lanes had a gradient that is not finite."""
    points = jax.vmap(search.point)(lanes.state)
    objective = search.objective
    if objective is None:
        number = len(points)
        if search.guesses > 1:
            logits = logits_fn(points.reshape(-1, *points.shape[2:]))
            logits = logits.reshape(number, search.guesses, -1)
        else:
            logits = logits_fn(points)
        return Answer(logits, jnp.zeros(number), None), jnp.zeros(number, bool)

    def total(points: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = logits_fn(points)
        values = objective(lanes.problem, lanes.state, settings, logits)
        return jnp.sum(values), (logits, values)

    # Of the sum over lanes: each lane gets the gradient of its own value, because the network treats images separately.
    gradient, (logits, values) = jax.grad(total, has_aux=True)(points)
    # A NaN would end the attack on this image, and the network would look more robust than it is. The finite components
    # still point somewhere; the verdict records that there was a gradient that is not finite.
    finite = jnp.isfinite(gradient)
    non_finite = ~jnp.all(finite, axis=(1, 2, 3))
    return Answer(logits, values, jnp.where(finite, gradient, 0.0)), non_finite


def _restart(search: Search, problem: Problem, state: Any, settings: Any, threat: Threat) -> Any:
    """States whose run has ended begin the next one."""
    restart = search.restart
    if restart is None or "ended" not in state._fields:
        return state

    def begun(state: Any) -> Any:
        fresh = jax.vmap(lambda one, old: restart(one, old, settings, threat))(problem, state)
        return jax.tree.map(lambda new, old: _choose(state.ended, new, old), fresh, state)

    # One condition for the whole batch. Under `vmap` a condition per lane would make the draws in every pass.
    return jax.lax.cond(jnp.any(state.ended), begun, lambda state: state, state)


def _choose(chosen: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """`new` where `chosen` [B], else `old`, for a leaf with leading axis B."""
    if jnp.issubdtype(new.dtype, jax.dtypes.prng_key):
        # `jnp.where` does not take typed keys.
        return jax.random.wrap_key_data(
            _choose(chosen, jax.random.key_data(new), jax.random.key_data(old)), impl=jax.random.key_impl(new)
        )
    return jnp.where(chosen.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)
