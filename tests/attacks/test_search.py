"""Lanes: they rest on claims, continue when told to, count every evaluation, and never touch their neighbours."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import search
from ltrobust.attacks.algorithms import apgd, pgd
from ltrobust.threat import Threat

THREAT = Threat("linf", 8)


class Walk(NamedTuple):
    """A search that adds 1/16 to the image at each evaluation; `run` counts runs that are over."""

    point: jax.Array
    candidate: jax.Array
    iteration: jax.Array
    run: jax.Array
    target: jax.Array
    claimed: jax.Array
    finished: jax.Array
    ended: jax.Array


def start(problem: search.Problem, settings: Any, threat: Threat) -> Walk:
    del settings, threat
    no, none = jnp.array(False), jnp.int32(0)
    return Walk(problem.image, problem.image, none, none, jnp.int32(-1), no, no, no)


def advance(problem, state: Walk, settings, threat: Threat, answer: search.Answer) -> Walk:
    del threat
    wrong = jnp.argmax(answer.logits) != problem.label
    iteration = state.iteration + 1
    over, last = iteration >= settings["steps"], state.run + 1 >= settings["runs"]
    return state._replace(
        point=state.point + 1 / 16,
        candidate=jnp.where(wrong, state.point, state.candidate),
        iteration=iteration,
        run=state.run + over.astype(jnp.int32),
        claimed=state.claimed | wrong,
        finished=over & last,
        ended=over & ~last,
    )


def restart(problem, state: Walk, settings, threat: Threat) -> Walk:
    fresh = start(problem, settings, threat)
    return fresh._replace(run=state.run, claimed=state.claimed, candidate=state.candidate)


WALK = search.Search(start=start, point=lambda state: state.point, advance=advance, restart=restart)


def logits(images: jax.Array) -> jax.Array:
    """Class 1 where the mean pixel exceeds 0.6."""
    mean = jnp.mean(images, axis=(1, 2, 3))
    return jnp.stack([jnp.full_like(mean, 0.6), mean], axis=1)


def begin(levels, occupied=None, steps: int = 100, runs: int = 1):
    """Lanes of constant images, and their settings."""
    images = jnp.asarray(np.array(levels, np.float32))[:, None, None, None] * jnp.ones((1, 2, 2, 1))
    keys = jax.random.split(jax.random.key(0), len(levels))
    settings = {"steps": jnp.int32(steps), "runs": jnp.int32(runs)}
    problem = search.Problem(images, jnp.zeros(len(levels), jnp.int32), logits(images), keys)
    occupied = jnp.ones(len(levels), bool) if occupied is None else jnp.asarray(occupied)
    return search.begin(WALK, problem, settings, THREAT, occupied), settings


@jax.jit
def work(lanes, settings, evaluations, min_resting=1 << 30, rest_on_claims=True):
    return search.work(
        WALK,
        logits,
        lanes,
        settings,
        THREAT,
        evaluations=evaluations,
        min_resting=min_resting,
        rest_on_claims=rest_on_claims,
    )


def same(first, second, rows) -> bool:
    """Whether two lanes' arrays are bit-identical at `rows`; typed keys included."""

    def plain(leaf):
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if typed else leaf)[rows]

    return all(
        np.array_equal(plain(one), plain(other))
        for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


def test_lanes_rest_on_claims_and_go_on_when_they_are_cleared():
    lanes, settings = begin([0.5, 0.625, 0.0])
    lanes = work(lanes, settings, 8)
    # 0.5 + 2/16 is the first above 0.6; 0.625 is it at once; 0 has seen eight points.
    np.testing.assert_array_equal(lanes.evaluations, [3, 1, 8])
    np.testing.assert_array_equal(lanes.state.claimed, [True, True, False])
    np.testing.assert_array_equal(lanes.state.candidate[:, 0, 0, 0], [0.625, 0.625, 0])
    np.testing.assert_array_equal(search.running(lanes), [False, False, True])
    cleared = lanes._replace(state=lanes.state._replace(claimed=jnp.array([True, False, False])))
    np.testing.assert_array_equal(search.running(cleared), [False, True, True])
    later = work(cleared, settings, 1)
    np.testing.assert_array_equal(later.evaluations, [3, 2, 9])
    np.testing.assert_array_equal(later.state.candidate[:, 0, 0, 0], [0.625, 0.6875, 0])
    assert same(cleared, later, np.array([0]))


def test_lanes_that_do_not_rest_on_claims_go_on_to_their_end():
    lanes, settings = begin([0.5, 0.0], steps=5)
    lanes = work(lanes, settings, 100, 1 << 30, False)
    np.testing.assert_array_equal(lanes.evaluations, [5, 5])
    np.testing.assert_array_equal(lanes.state.candidate[:, 0, 0, 0], [0.75, 0])


def test_a_lane_without_an_image_neither_moves_nor_counts():
    lanes, settings = begin([0.0, 0.5, 0.0], occupied=[True, False, True], steps=4)
    later = work(lanes, settings, 100)
    np.testing.assert_array_equal(later.evaluations, [4, 0, 4])
    assert same(lanes, later, np.array([1]))
    empty, settings = begin([0.0, 0.5], occupied=[False, False])
    assert same(empty, work(empty, settings, 100), np.arange(2))


@pytest.mark.parametrize(("evaluations", "min_resting", "done"), [(0, 9, 0), (3, 9, 3), (100, 1, 3), (100, 2, 5)])
def test_work_ends_at_its_budget_or_with_enough_lanes_at_rest(evaluations, min_resting, done):
    lanes, settings = begin([0.5, 0.375, 0.0])
    lanes = work(lanes, settings, evaluations, min_resting)
    assert int(lanes.evaluations.max()) == done


def test_restarts_cost_no_evaluation_and_begin_where_a_run_begins():
    lanes, settings = begin([0.0, 0.3125], steps=3, runs=4)
    lanes = work(lanes, settings, 4)
    np.testing.assert_array_equal(lanes.state.run, [1, 1])
    np.testing.assert_array_equal(lanes.state.iteration, [1, 1])
    np.testing.assert_array_equal(lanes.state.point[:, 0, 0, 0], [0.0625, 0.375])
    lanes = work(lanes, settings, 100)
    np.testing.assert_array_equal(lanes.evaluations, [12, 12])
    np.testing.assert_array_equal(lanes.state.finished, [True, True])


def test_lanes_begin_at_their_first_run_and_rest_before_the_run_where_they_end():
    images = jnp.zeros((3, 2, 2, 1))
    settings = {"steps": jnp.int32(3), "runs": jnp.int32(4)}
    keys = jax.random.split(jax.random.key(0), 3)
    problem = search.Problem(images, jnp.zeros(3, jnp.int32), logits(images), keys)
    lanes = search.begin(WALK, problem, settings, THREAT, jnp.ones(3, bool), jnp.array([0, 1, 3]))
    np.testing.assert_array_equal(lanes.state.run, [0, 1, 3])
    until = jnp.array([1, 3, 4])
    lanes = search.work(WALK, logits, lanes, settings, THREAT, evaluations=100, until=until)
    np.testing.assert_array_equal(lanes.state.run, until)
    np.testing.assert_array_equal(lanes.evaluations, [3, 6, 3])
    np.testing.assert_array_equal(lanes.state.finished, [False, False, True])
    np.testing.assert_array_equal(search.running(lanes, until=until), False)
    np.testing.assert_array_equal(search.running(lanes), [True, True, False])


def test_refilled_lanes_start_afresh_and_the_others_keep_every_bit():
    old, settings = begin([0.0, 0.5, 0.25])
    old = work(old, settings, 2)
    new, _ = begin([0.125, 0.375, 0.5])
    new = new._replace(
        problem=new.problem._replace(key=jax.random.split(jax.random.key(7), 3)),
        occupied=jnp.array([False, True, True]),
    )
    replaced = jnp.array([False, True, False])
    mixed = search.refill(old, new, replaced)
    assert same(mixed, old, np.array([0, 2]))
    assert same(mixed, new, np.array([1]))
    alone, together = work(old, settings, 3), work(mixed, settings, 3)
    assert same(alone, together, np.array([0, 2]))
    assert int(together.evaluations[1]) == 3


def unbreakable(images: jax.Array) -> jax.Array:
    """Five classes; class 0 always wins by far, with some slope."""
    slope = jnp.mean(images, axis=(1, 2, 3))
    return jnp.stack([slope + 50, *(factor * slope for factor in (1.0, 2.0, -1.0, 3.0))], axis=1)


@pytest.mark.parametrize(
    ("attack", "settings", "evaluations"),
    [
        (pgd.search("none"), pgd.settings(loss="ce", radius=0.03, steps=1, step_size=0.03, num_classes=5), 1),
        (pgd.search("uniform"), pgd.settings(loss="ce", radius=0.03, steps=20, step_size=0.01, num_classes=5), 20),
        (apgd.APGD, apgd.settings(loss="ce", radius=0.03, num_classes=5), 101),
        (apgd.APGD, apgd.settings(loss="ce", radius=0.03, num_classes=5, steps=10), 11),
        (apgd.APGD, apgd.settings(loss="ce", radius=0.03, num_classes=5, runs=9), 909),
        (apgd.APGD, apgd.settings(loss="targeted_dlr", radius=0.03, num_classes=5, runs=4), 404),
    ],
)
def test_attacks_take_exactly_their_evaluations(attack, settings, evaluations):
    images, labels = jnp.full((3, 2, 2, 1), 0.5), jnp.zeros(3, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 3)
    lanes = search.run(attack, unbreakable, images, labels, keys, settings=settings, threat=THREAT)
    np.testing.assert_array_equal(lanes.evaluations, evaluations)
    assert bool(lanes.state.finished.all())
    assert not bool(lanes.non_finite.any())


@pytest.mark.parametrize("steps", [1, 2])
def test_a_gradient_that_is_not_finite_counts_as_zero_and_is_remembered(steps):
    def rooted(images):
        # The square root has an infinite slope at 0, and 0 times that slope is NaN.
        root = jnp.sum(jnp.sqrt(images), axis=(1, 2, 3))
        return jnp.stack([root, 0.5 * root], axis=1)

    images = jnp.full((2, 2, 2, 1), 0.5).at[0, 0, 0, 0].set(0.0)
    settings = pgd.settings(loss="margin", radius=0.1, steps=steps, step_size=0.1, num_classes=2)
    keys = jax.random.split(jax.random.key(0), 2)
    labels = jnp.zeros(2, jnp.int32)
    lanes = search.run(pgd.search("none"), rooted, images, labels, keys, settings=settings, threat=THREAT)
    np.testing.assert_array_equal(lanes.non_finite, [True, False])
    change = lanes.state.candidate - images
    assert float(change[0, 0, 0, 0]) == 0
    np.testing.assert_allclose(change[0].ravel()[1:], -0.1, atol=1e-6)
    assert bool(jnp.isfinite(lanes.state.candidate).all())


def test_run_prepares_states_and_refuses_bad_images():
    images, labels = jnp.full((2, 2, 2, 1), 0.25), jnp.zeros(2, jnp.int32)
    keys = jax.random.split(jax.random.key(0), 2)
    settings = {"steps": jnp.int32(6), "runs": jnp.int32(1)}
    lanes = search.run(
        WALK,
        logits,
        images,
        labels,
        keys,
        settings=settings,
        threat=THREAT,
        prepare=lambda state: state._replace(point=state.point.at[1].set(0.5)),
    )
    np.testing.assert_array_equal(lanes.evaluations, [6, 3])
    with pytest.raises(ValueError, match="uint8"):
        search.run(WALK, logits, images.astype(jnp.uint8), labels, keys, settings=settings, threat=THREAT)
