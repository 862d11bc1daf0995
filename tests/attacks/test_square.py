"""Square: the published schedule, squares and bumps; verdicts that belong to images; nothing robust is ever broken."""

import functools
from typing import NamedTuple

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.attacks import ball, search
from ltrobust.attacks.algorithms import square
from ltrobust.threat import Threat

# Bits of two programs are compared, and thousands of queries made.
pytestmark = pytest.mark.optimized

SHAPE = (6, 7, 3)
WEIGHTS = np.random.RandomState(4).randn(5, *SHAPE).astype(np.float32)


def curved(images: jax.Array) -> jax.Array:
    """A small network whose sums do not depend on the number of images."""
    return jnp.sum(jnp.tanh(3 * images - 1.5)[:, None] * jnp.asarray(WEIGHTS), axis=(2, 3, 4))


class Mix(NamedTuple):
    """Factors of a network: `scale * curved + shift`, and what class 1 gains where one pixel is high."""

    scale: float = 1.0
    shift: float = 0.0
    gain: float = 0.0


def mixed(mix: Mix, images: jax.Array) -> jax.Array:
    high = jnp.maximum(images[:, 2, 2, 1] - 0.59, 0.0)
    return mix.scale * curved(images) + mix.shift + mix.gain * high[:, None] * jax.nn.one_hot(1, 5)


def images_of(seed: int, number: int = 6) -> jax.Array:
    """Random images with many pixels at the bounds."""
    draws = jax.random.uniform(jax.random.key(seed), (number, *SHAPE), minval=-0.3, maxval=1.3)
    return jnp.clip(draws, 0.0, 1.0)


def keys_of(number: int, seed: int = 0) -> jax.Array:
    return jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(number))


def searched(images, labels, keys, chosen, norm, evaluations=1 << 30, logits_fn=None, mix=Mix()):  # noqa: B008
    """Lanes after so many evaluations, or when all rest."""
    return _searched(images, labels, keys, chosen, norm, evaluations, logits_fn, mix)


@functools.partial(jax.jit, static_argnames=("norm", "logits_fn"))
def _searched(images, labels, keys, chosen, norm, evaluations, logits_fn, mix):
    """`searched`; without `logits_fn` one program serves every `mix`."""
    logits_fn = logits_fn or functools.partial(mixed, mix)
    problem = search.Problem(images, labels.astype(jnp.int32), logits_fn(images), keys)
    lanes = search.begin(square.SQUARE, problem, chosen, Threat(norm), jnp.ones(len(images), bool))
    return search.work(square.SQUARE, logits_fn, lanes, chosen, Threat(norm), evaluations=evaluations)


def sides(chosen, proposals):
    return np.asarray(jax.vmap(lambda proposal: square.side_at(chosen, proposal))(jnp.asarray(proposals)))


@pytest.mark.parametrize(
    ("size", "expected"), [(32, [29, 20, 14, 10, 7, 5, 4, 3]), (64, [57, 40, 29, 20, 14, 10, 7, 5])]
)
def test_the_published_schedule(size, expected):
    ends = [10, 50, 200, 500, 1000, 2000, 4000, 4999]
    chosen = square.settings(radius=0.1, image_shape=(size, size, 3))
    assert sides(chosen, ends).tolist() == expected
    assert sides(chosen, [0] + [end + 1 for end in ends[:-1]]).tolist() == expected


@pytest.mark.parametrize("queries", [5000, 300, 7])
def test_the_rescaled_schedule(queries):
    chosen = square.settings(radius=0.1, image_shape=(32, 32, 3), queries=queries, rescale=True)
    full = square.settings(radius=0.1, image_shape=(32, 32, 3))
    proposals = np.arange(queries)
    np.testing.assert_array_equal(
        sides(chosen, proposals), sides(full, [int(proposal / queries * 10_000) for proposal in proposals])
    )
    if queries == 5000:
        assert sides(chosen, [5, 6, 2000, 4000, 4001, 4999]).tolist() == [29, 20, 4, 2, 1, 1]


def test_l2_sides_are_odd_and_no_side_exceeds_the_image():
    chosen = square.settings(radius=0.1, image_shape=(32, 32, 3), norm="l2")
    assert np.asarray(chosen["sides"]).tolist() == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    for norm in ("linf", "l2"):
        wide = square.settings(radius=0.1, image_shape=(2, 50, 1), norm=norm)
        assert int(jnp.max(wide["sides"])) == 2


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 12, 29])
def test_bumps_are_sums_of_nested_windows(side):
    def rectangle(rows, columns):
        heights = np.zeros((rows, columns))
        for layer in range(max(rows, columns) // 2 + 1):
            top, left = rows // 2 - layer, columns // 2 - layer
            heights[max(top, 0) : top + 2 * layer + 1, max(left, 0) : left + 2 * layer + 1] += 1 / (layer + 1) ** 2
        return heights / max(np.sqrt(np.sum(heights**2)), 1e-12)

    half = side // 2
    expected = np.concatenate([rectangle(half, side), -rectangle(side - half, side)])
    expected = expected / np.sqrt(np.sum(expected**2))
    for upright in (True, False):
        result = np.asarray(square.bumps(jnp.int32(side), jnp.int32(2), jnp.int32(1), jnp.array(upright), (32, 33)))
        window = result[2 : 2 + side, 1 : 1 + side]
        np.testing.assert_allclose(window, expected if upright else expected.T, atol=1e-6)
        assert np.count_nonzero(result) == np.count_nonzero(window)


def test_the_linf_start_is_vertical_stripes():
    images = jnp.full((400, *SHAPE), 0.5)  # the number of the next test, for one program
    chosen = square.settings(radius=0.1, image_shape=SHAPE)
    change = np.asarray(searched(images, jnp.zeros(400), keys_of(400), chosen, "linf", evaluations=0).state.point) - 0.5
    np.testing.assert_allclose(np.abs(change), 0.1, atol=1e-7)
    np.testing.assert_array_equal(change, np.broadcast_to(change[:, :1], change.shape))
    assert abs(np.sign(change[:, 0]).mean()) < 0.1
    assert len(np.unique(np.sign(change[:50, 0]).reshape(50, -1), axis=0)) == 50


def test_linf_proposals_change_one_square_by_one_sign_per_channel():
    images = jnp.full((400, *SHAPE), 0.5)
    chosen = square.settings(radius=0.1, image_shape=SHAPE, p_init=0.3)
    state = searched(images, jnp.zeros(400), keys_of(400), chosen, "linf", evaluations=1).state
    side = int(sides(chosen, [0])[0])
    change = np.asarray(state.point - state.best)
    seen = set(), set()
    for one in change:
        rows, columns, _ = np.nonzero(np.abs(one) > 1e-6)
        # Where a sign is already that of the square, the cut to the ball leaves no change.
        if len(rows):
            assert max(np.ptp(rows), np.ptp(columns)) < side
        for channel in np.moveaxis(one, -1, 0):
            assert len(np.unique(np.sign(np.where(np.abs(channel) > 1e-6, channel, 0)))) <= 2
        seen[0].update(rows.tolist())
        seen[1].update(columns.tolist())
    # As published, the last admissible row and column are never drawn.
    assert seen == (set(range(SHAPE[0] - 1)), set(range(SHAPE[1] - 1)))


@pytest.mark.slow
def test_l2_proposals_are_the_published_update():
    size, radius, side = (11, 11, 3), 0.8, 5
    image = jax.random.uniform(jax.random.key(3), size)
    best = jnp.clip(image + 0.02 * jax.random.normal(jax.random.key(4), size), 0, 1)
    chosen = square.settings(radius=radius, image_shape=size, norm="l2") | {"sides": jnp.full(10, side)}
    answer = search.Answer(jnp.array([1.0, 0.0]), jnp.float32(0), None)

    @jax.jit
    def proposed(key):
        problem = search.Problem(image, jnp.int32(0), jnp.zeros(2), key)
        state = square.start(problem, chosen, Threat("l2"))._replace(point=best)
        return square.advance(problem, state, chosen, Threat("l2"), answer).point

    seen = []
    for number in range(12):
        key = jax.random.key(number)
        result = proposed(key)
        draw = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1), (8,)), np.float64)
        row, column, row2, column2 = (int(draw[i] * (11 - side)) for i in range(4))
        upright, signs = jnp.array(draw[4] < 0.5), np.where(draw[5:] < 0.5, -1, 1)
        delta = np.asarray(best, np.float64) - np.asarray(image, np.float64)
        first = np.s_[row : row + side, column : column + side]
        second = np.s_[row2 : row2 + side, column2 : column2 + side]
        either = np.zeros((11, 11, 1))
        either[first] = either[second] = 1
        spare = max(radius**2 - np.sum(delta**2), 0) / 3 + np.sum((delta * either) ** 2, axis=(0, 1))
        pattern = square.bumps(jnp.int32(side), jnp.int32(0), jnp.int32(0), upright, (side, side))
        fresh = np.asarray(pattern)[..., None] * signs
        fresh = fresh + delta[first] / np.sqrt(np.sum(delta[first] ** 2, axis=(0, 1)))
        fresh = fresh / np.sqrt(np.sum(fresh**2, axis=(0, 1))) * np.sqrt(spare)
        delta[second] = 0
        delta[first] = fresh
        expected = np.clip(np.asarray(image) + radius * delta / np.sqrt(np.sum(delta**2)), 0, 1)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        seen.append((row, column, row2, column2))
    assert len(set(seen)) == 12


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.integers(0, 10**6), st.sampled_from(["linf", "l2"]), st.floats(0, 200), st.integers(1, 40), st.floats(0.01, 1)
)
def test_all_points_lie_in_ball_and_bounds(seed, norm, radius, queries, p_init):
    threat, images = Threat.in_255ths(norm, radius), images_of(seed)
    labels = jnp.argmax(curved(images), axis=1)
    chosen = square.settings(
        radius=threat.epsilon, image_shape=SHAPE, norm=norm, queries=queries, p_init=p_init, rescale=bool(seed % 2)
    )
    lanes = searched(images, labels, keys_of(6, seed), chosen, norm)
    for points in (lanes.state.point, lanes.state.best, lanes.state.candidate):
        assert float(ball.violation(points, images, threat.epsilon, threat).max()) <= 6e-7
    claimed = np.asarray(lanes.state.claimed)
    wrong = np.asarray(jnp.argmax(curved(lanes.state.candidate), axis=1) != labels)
    np.testing.assert_array_equal(wrong, claimed)
    assert np.all(np.asarray(lanes.evaluations)[~claimed] == queries + 1)
    assert np.all(np.asarray(lanes.evaluations) <= queries + 1)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_does_not_depend_on_its_batch(norm):
    images, keys = images_of(4), keys_of(6)
    labels = jnp.argmax(curved(images), axis=1)
    chosen = square.settings(radius=0.02, image_shape=SHAPE, norm=norm, queries=200)
    order = jnp.array([5, 2, 0, 1, 4, 3])
    whole, alone, permuted = (
        searched(images[rows], labels[rows], keys[rows], chosen, norm)
        for rows in (jnp.arange(6), jnp.array([3]), order)
    )
    for field in ("best", "margin", "candidate", "claimed", "query"):
        expected = np.asarray(getattr(whole.state, field))
        np.testing.assert_array_equal(getattr(alone.state, field)[0], expected[3])
        np.testing.assert_array_equal(getattr(permuted.state, field), expected[np.asarray(order)])
    other = searched(images, labels, keys_of(6, 1), chosen, norm)
    assert np.all(np.any(np.asarray(other.state.best != whole.state.best), axis=(1, 2, 3)))


def test_the_margin_never_rises():
    images = images_of(5)
    labels = jnp.argmax(curved(images), axis=1)
    for norm in ("linf", "l2"):
        chosen = square.settings(radius=0.01, image_shape=SHAPE, norm=norm)
        margins = [searched(images, labels, keys_of(6), chosen, norm, n).state.margin for n in (1, 3, 20, 150)]
        assert np.all(np.diff(np.stack(margins), axis=0) <= 0)
        assert np.any(margins[-1] < margins[0])


# An exact tie everywhere; and nearly everywhere: the true class loses where one pixel is high.
CONSTANT, TIED_THEN_WRONG = Mix(scale=0.0), Mix(scale=0.0, gain=1.0)
SCALED = Mix(scale=2.0**20, shift=-(2.0**24))


def test_a_tie_that_the_true_class_wins_is_no_success_and_the_search_goes_on():
    images, labels = jnp.full((6, *SHAPE), 0.5), jnp.zeros(6)
    chosen = square.settings(radius=0.1, image_shape=SHAPE, queries=60)
    never = searched(images, labels, keys_of(6), chosen, "linf", mix=CONSTANT)
    assert not np.any(never.state.claimed)
    assert np.all(never.evaluations == 61)
    np.testing.assert_array_equal(never.state.candidate, images)
    result = searched(images, labels, keys_of(6), chosen, "linf", mix=TIED_THEN_WRONG)
    assert np.all(result.state.claimed)
    assert np.any(result.evaluations > 1)


def test_scaling_and_shifting_all_logits_changes_nothing():
    images = images_of(8)
    labels = jnp.argmax(curved(images), axis=1)
    chosen = square.settings(radius=0.02, image_shape=SHAPE, queries=100)
    plain, large = (searched(images, labels, keys_of(6), chosen, "linf", mix=mix) for mix in (Mix(), SCALED))
    np.testing.assert_array_equal(plain.state.claimed, large.state.claimed)
    np.testing.assert_array_equal(plain.evaluations, large.evaluations)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("norm", "radius", "least"), [("linf", 8 / 255, 0.3), ("linf", 16 / 255, 0.93), ("l2", 1.0, 0.7)]
)
def test_on_the_linear_model_nothing_robust_is_broken_and_much_of_the_rest_is(linear, norm, radius, least):
    # Its weights are noise from pixel to pixel, which no square follows: near the exact radius Square is weak.
    part = linear.rows(slice(0, 1000, 5))
    robust = part.distances(norm) > radius
    chosen = square.settings(radius=radius, image_shape=(8, 8, 3), norm=norm, queries=3000)
    images, labels = jnp.asarray(part.images), jnp.asarray(part.labels)
    result = searched(images, labels, keys_of(200), chosen, norm, logits_fn=part.logits)
    claimed = np.asarray(result.state.claimed)
    assert not np.any(claimed & robust)
    assert claimed[~robust].mean() >= least


@pytest.mark.slow
def test_a_quantised_network_that_gives_no_gradient_is_broken_as_often_as_by_the_public_code(linear):
    part = linear.rows(slice(0, 1000, 2))
    chosen = square.settings(radius=8 / 255, image_shape=(8, 8, 3))

    def rounded(images):
        return part.logits(jnp.round(16 * images) / 16)

    images, labels = jnp.asarray(part.images), jnp.asarray(part.labels)
    result = searched(images, labels, keys_of(500), chosen, "linf", logits_fn=rounded)
    # Recorded: 87.3 % of 1,000 with squares shared by the batch; these draws: 87.4 and 87.5 % with two seeds.
    assert 100 - 100 * np.asarray(result.state.claimed).mean() == pytest.approx(87.3, abs=1.5)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", golden.NAMES)
@pytest.mark.parametrize(("which", "differ"), [("closest", 1), pytest.param("half", 2, marks=pytest.mark.ci)])
def test_verdicts_are_those_of_the_public_code_up_to_its_draws(shared_data, name, which, differ):
    images, labels, logits_fn, record = golden.load(shared_data, name)
    chosen = square.settings(radius=float(record["radius_255"]) / 255, image_shape=(32, 32, 3))
    correct = np.asarray(jax.jit(logits_fn)(images)).argmax(1) == record["labels"]
    # Of all images 0, 0, 1 and 0, 0, 0 differed over three seeds.
    rows = golden.closest(record, "square", 20) if which == "closest" else np.flatnonzero(correct)[::2]
    assert set(record["robust_square"][rows]) == {True, False}
    result = searched(images[rows], labels[rows], keys_of(200)[rows], chosen, "linf", logits_fn=logits_fn)
    broken = np.asarray(result.state.claimed)
    assert np.sum(broken == record["robust_square"][rows]) <= differ
    assert not np.any(broken & record["robust_standard"][rows])
    assert np.all(result.evaluations[~broken] == 5001)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "l1"}, "known norms: linf, l2"),
        ({"queries": 0}, "at least 1"),
        ({"p_init": 0.0}, r"\(0, 1\]"),
        ({"p_init": 1.5}, r"\(0, 1\]"),
        ({"image_shape": (32, 32)}, "height, width, channels"),
        ({"image_shape": (32, 0, 3)}, "height, width, channels"),
    ],
)
def test_settings_that_make_no_attack_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        square.settings(**({"radius": 0.1, "image_shape": SHAPE} | changes))


def test_settings_on_the_limits_are_allowed():
    for norm in ("linf", "l2"):
        chosen = square.settings(radius=0.1, image_shape=(1, 1, 1), norm=norm, queries=1, p_init=1.0)
        assert (int(chosen["queries"]), np.asarray(chosen["sides"]).tolist()) == (1, [1] * 10)
