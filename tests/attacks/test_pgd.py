"""PGD: exact ball and range, closed-form optimum on linear models, no example influences another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.attacks import ball, objectives
from ltrobust.attacks.algorithms.pgd import pgd
from ltrobust.threat import Threat

SHAPE = (4, 5, 3)
STARTS = ["none", "gauss", "uniform", "uniform_raw", "one_sided"]


def images_of(seed: int, number: int = 6) -> jax.Array:
    """Random images with many pixels at the bounds."""
    draws = jax.random.uniform(jax.random.key(seed), (number, *SHAPE), minval=-0.3, maxval=1.3)
    return jnp.clip(draws, 0.0, 1.0)


def keys_of(number: int) -> jax.Array:
    return jax.random.split(jax.random.key(9), number)


def curved(images: jax.Array) -> jax.Array:
    """An objective with curvature, each example for itself."""
    return jnp.sum(jnp.sin(7 * images) * jnp.cos(3 * images[:, ::-1]), axis=(1, 2, 3))


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["linf", "l2"]),
    st.floats(0, 200),
    st.floats(0, 100),
    st.integers(0, 3),
    st.sampled_from(STARTS),
)
def test_results_lie_in_ball_and_bounds(seed, norm, radius, step, steps, start):
    if norm == "l2" and start == "one_sided":
        start = "uniform"
    threat, images = Threat.in_255ths(norm, radius), images_of(seed)
    result = pgd(curved, images, keys_of(6), threat=threat, steps=steps, step_size=step / 255, start=start)
    assert float(ball.violation(result, images, threat.epsilon, threat).max()) <= 4e-7
    assert result.dtype == jnp.float32


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_radius_zero_returns_the_images(norm):
    images = images_of(0)
    result = pgd(curved, images, keys_of(6), threat=Threat(norm, 0), steps=3, step_size=0.1, start="gauss")
    np.testing.assert_array_equal(result, images)


def test_linf_reaches_the_closed_form_optimum_of_a_linear_model():
    images, weights = images_of(1), jax.random.normal(jax.random.key(2), SHAPE)
    threat = Threat("linf", 20)
    result = pgd(
        lambda x: jnp.sum(x * weights, axis=(1, 2, 3)), images, keys_of(6), threat=threat, steps=20, step_size=8 / 255
    )
    best = jnp.clip(images + threat.epsilon * jnp.sign(weights), 0, 1)
    np.testing.assert_allclose(result, best, atol=1e-6)


def test_l2_reaches_the_closed_form_optimum_of_a_linear_model_away_from_the_bounds():
    images = 0.5 + 0.0 * images_of(1)
    weights = jax.random.normal(jax.random.key(2), SHAPE)
    threat = Threat("l2", 60)
    result = pgd(
        lambda x: jnp.sum(x * weights, axis=(1, 2, 3)), images, keys_of(6), threat=threat, steps=40, step_size=0.1
    )
    best = images + threat.epsilon * weights / jnp.linalg.norm(weights)
    np.testing.assert_allclose(result, best, atol=1e-5)


def test_cross_entropy_attack_on_a_linear_classifier_loses_what_the_worst_corner_loses():
    generator = np.random.RandomState(0)
    weights = jnp.asarray(generator.randn(int(np.prod(SHAPE)), 2), jnp.float32)
    images, labels = images_of(3, 40), jnp.asarray(generator.randint(0, 2, 40))
    threat = Threat("linf", 16)

    def logits(x):
        return x.reshape(len(x), -1) @ weights

    result = pgd(
        lambda x: objectives.cross_entropy(logits(x), labels),
        images,
        keys_of(40),
        threat=threat,
        steps=20,
        step_size=4 / 255,
    )
    toward = (weights[:, 1] - weights[:, 0]) * jnp.where(labels == 0, 1, -1)[:, None]
    corner = jnp.clip(images + threat.epsilon * jnp.sign(toward).reshape(images.shape), 0, 1)
    np.testing.assert_array_equal(logits(result).argmax(1) == labels, logits(corner).argmax(1) == labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", ["gauss", "uniform"])
def test_an_example_does_not_depend_on_its_batch(norm, start):
    images, keys = images_of(4), keys_of(6)

    def attack(rows):
        return pgd(curved, images[rows], keys[rows], threat=Threat(norm, 30), steps=4, step_size=10 / 255, start=start)

    whole = attack(jnp.arange(6))
    np.testing.assert_array_equal(attack(jnp.array([3]))[0], whole[3])
    order = jnp.array([5, 2, 0, 1, 4, 3])
    np.testing.assert_array_equal(attack(order), whole[order])


def test_radius_and_step_are_per_example_and_not_compiled_in():
    images, keys = images_of(5), keys_of(6)
    radius = jnp.array([0, 1, 2, 4, 8, 16], jnp.float32) / 255
    compiled = []

    @jax.jit
    def attack(radius):
        compiled.append(1)
        return pgd(curved, images, keys, threat=Threat(), steps=5, step_size=radius, radius=radius, start="uniform")

    result = attack(radius)
    attack(radius[::-1])
    assert len(compiled) == 1
    lengths = ball.norms(result - images, "linf")
    assert np.all(np.asarray(lengths) <= np.asarray(radius) + 1e-7)
    assert np.all(np.asarray(lengths)[1:] > 0)


def test_no_gradient_flows_through_the_result():
    images = images_of(6)
    gradient = jax.grad(lambda x: jnp.sum(pgd(curved, x, keys_of(6), threat=Threat(), steps=2, step_size=0.01)))(images)
    assert float(jnp.abs(gradient).max()) == 0.0


def test_zero_gradient_leaves_the_point():
    images = images_of(7)
    for norm in ("linf", "l2"):
        flat = pgd(
            lambda x: 0.0 * jnp.sum(x, axis=(1, 2, 3)),
            images,
            keys_of(6),
            threat=Threat(norm, 8),
            steps=3,
            step_size=0.1,
            start="none",
        )
        np.testing.assert_array_equal(flat, images)


def test_starts_have_the_stated_distribution():
    images, keys, threat = jnp.full((300, *SHAPE), 0.5), keys_of(300), Threat("linf", 51)
    starts = {start: ball.random_start(images, keys, 0.2, start=start, threat=threat) - images for start in STARTS}
    assert float(jnp.abs(starts["none"]).max()) == 0
    assert abs(float(starts["gauss"].std()) - 0.001) < 1e-5
    assert abs(float(starts["uniform"].std()) - 0.2 / 3**0.5) < 2e-3
    assert float(starts["one_sided"].min()) >= 0
    assert abs(float(starts["one_sided"].mean()) - 0.1) < 2e-3
    inside = ball.random_start(images, keys, 0.2, start="uniform", threat=Threat("l2", 51)) - images
    lengths = ball.norms(inside, "l2")
    assert float(lengths.max()) <= 0.2 + 1e-6
    # In d dimensions the length is radius * u^(1/d).
    assert abs(float((lengths / 0.2).mean()) - inside[0].size / (inside[0].size + 1)) < 2e-3


def test_only_the_uniform_start_is_cut_to_the_bounds():
    images, keys = jnp.round(images_of(0)), keys_of(6)
    for norm, radius in (("linf", 0.2), ("l2", 2.0)):
        threat = Threat.in_pixels(norm, radius)
        raw = ball.random_start(images, keys, radius, start="uniform_raw", threat=threat)
        cut = ball.random_start(images, keys, radius, start="uniform", threat=threat)
        np.testing.assert_array_equal(cut, jnp.clip(raw, 0, 1))
        for start in STARTS if norm == "linf" else STARTS[:-1]:
            points = ball.random_start(images, keys, radius, start=start, threat=threat)
            assert (float(points.max()) > 1) == (start not in ("none", "uniform")), start


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (jnp.zeros((2, 4, 4, 3), jnp.uint8), "uint8"),
        (jnp.zeros((4, 4, 3)), r"\[4, 4, 3\]"),
        (jnp.full((1, 4, 4, 3), 1.5), r"lie in \[1.5, 1.5\]"),
        (jnp.full((1, 4, 4, 3), jnp.nan), "nan"),
    ],
)
def test_bad_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        pgd(curved, images, keys_of(len(images)), threat=Threat(), steps=1, step_size=0.1)


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((2, 3, 2, 2), True),
        ((2, 1, 7, 7), True),
        ((2, 4, 9, 5), True),
        ((2, 3, 5, 9), True),
        ((2, 3, 4, 5), False),  # a row of pixels may have five channels
        ((2, 1, 1, 20), False),
        ((2, 3, 3, 3), False),
        ((2, 4, 8, 1), False),
        ((2, 5, 5, 5), False),
    ],
)
def test_channels_on_the_first_axis_are_named_where_the_last_cannot_hold_them(shape, first):
    if first:
        with pytest.raises(ValueError, match=r"channels first; \[batch, height, width, channel\] is needed"):
            ball.check_shape(shape)
    else:
        ball.check_shape(shape)


def test_unknown_settings_are_refused():
    images, keys = images_of(0), keys_of(6)
    with pytest.raises(ValueError, match="known starts: none, gauss"):
        pgd(curved, images, keys, threat=Threat(), steps=1, step_size=0.1, start="middle")
    with pytest.raises(ValueError, match="at least 0"):
        pgd(curved, images, keys, threat=Threat(), steps=-1, step_size=0.1)
    with pytest.raises(ValueError, match="linf only"):
        pgd(curved, images, keys, threat=Threat("l2", 8), steps=1, step_size=0.1, start="one_sided")
    with pytest.raises(ValueError, match="known norms"):
        ball.norms(images, "l7")
