"""The verdict: what the exact network says, what 8 bits leave of it, and which points are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.evaluation import judge
from ltrobust.threat import Threat

LINF = Threat("linf", 8)


def pixel_network(slopes, images):
    """Logits `a_k x_k` of images with one pixel and a channel for each class, so that a test chooses them."""
    return images[:, 0, 0, :] * slopes


def judged(points, labels, *, images=None, slopes=(1.0, 1.0, 1.0), threat=LINF, radius=None, apply=pixel_network):
    """The judgement of points, one row of three channels each; on the images themselves unless given."""
    points = jnp.asarray(points, jnp.float32).reshape(-1, 1, 1, 3)
    images = points if images is None else jnp.asarray(images, jnp.float32).reshape(-1, 1, 1, 3)
    radius = threat.epsilon if radius is None else radius
    return judge.judge(apply, 3, threat, jnp.asarray(slopes), points, images, jnp.asarray(labels), radius)


def test_a_prediction_is_the_lowest_class_among_equal_logits_and_a_tie_is_the_label_s():
    result = judged([[0.2, 0.6, 0.4], [0.5, 0.5, 0.2], [0.2, 0.5, 0.5], [0.3, 0.3, 0.6]], [1, 1, 1, 0])
    np.testing.assert_array_equal(result.predictions, [1, 0, 1, 2])
    np.testing.assert_allclose(result.margins, [0.2, 0, 0, -0.3], atol=1e-6)
    # A tie below the highest logit is none; the last label ties with class 1, but class 2 wins.
    np.testing.assert_array_equal(result.tied, [False, True, True, False])
    np.testing.assert_array_equal(result.logits[0], np.float32([0.2, 0.6, 0.4]))


def test_the_margin_decides_where_no_logits_tie():
    draws = np.random.RandomState(0).uniform(0, 1, (200, 3))
    labels = np.arange(200) % 3
    result = judged(draws, labels, slopes=(1.0, 2.0, 0.5))
    np.testing.assert_array_equal(result.margins > 0, result.predictions == labels)
    assert not np.any(result.tied)


@pytest.mark.parametrize(("norm", "length"), [("linf", 0.03), ("l2", 0.05)])
def test_lengths_and_excess_are_those_of_the_change(norm, length):
    images, change = np.full((2, 3), 0.5), np.array([[0.03, -0.03, 0.0], [0.0, 0.03, -0.04]])
    result = judged(images + change, [0, 0], images=images, threat=Threat(norm, 8), radius=jnp.array([0.02, 0.045]))
    lengths = np.array([length if norm == "linf" else np.sqrt(2) * 0.03, 0.04 if norm == "linf" else 0.05])
    np.testing.assert_allclose(result.norms, lengths, atol=1e-6)
    np.testing.assert_allclose(result.violations, np.maximum(lengths - [0.02, 0.045], 0), atol=1e-6)


def test_pixels_outside_of_the_bounds_are_an_excess_too():
    points = np.array([[1.01, 0.5, 0.5], [0.5, -0.02, 0.5], [1.0, 0.0, 0.5]])
    result = judged(points, [0, 0, 0], images=np.clip(points, 0, 1))
    np.testing.assert_allclose(result.violations, [0.01, 0.02, 0], atol=1e-6)


def above(threshold):
    """Class 1 where the first channel exceeds the threshold."""

    def network(_, images):
        value = images[:, 0, 0, 0] - threshold
        return jnp.stack([jnp.zeros_like(value), value, jnp.full_like(value, -1.0)], axis=1)

    return network


@pytest.mark.parametrize(
    ("point", "threshold", "radius", "plain", "rounded"),
    [
        (100.6, 100.7, 8.0, 0, 1),  # rounded up across the boundary
        (100.4, 100.2, 8.0, 1, 0),  # rounded down across it
        (100.4, 99.0, 8.0, 1, 1),
        # The rounded value, 101, is outside of the ball around 100, whose end is 100.6: it is brought back to that.
        (100.6, 100.7, 0.6, 0, 0),
        (100.6, 100.5, 0.6, 1, 1),
    ],
)
def test_a_point_is_also_judged_as_an_image_of_8_bits_inside_of_the_ball(point, threshold, radius, plain, rounded):
    values = np.full((1, 3), point) / 255
    result = judged(values, [0], images=np.full((1, 3), 100 / 255), radius=radius / 255, apply=above(threshold / 255))
    assert (int(result.predictions[0]), int(result.rounded[0])) == (plain, rounded)


def test_the_exact_network_is_asked_at_highest_precision_and_answers_in_float32():
    asked = []

    def network(slopes, images):
        asked.append(jax.config.jax_default_matmul_precision)
        return pixel_network(slopes, images).astype(jnp.bfloat16)

    result = judged([[0.2, 0.6, 0.4]], [1], apply=network)
    assert set(asked) == {"highest"}
    assert result.logits.dtype == result.margins.dtype == jnp.float32
    assert jax.config.jax_default_matmul_precision != "highest"


@pytest.mark.parametrize("shape", [(4, 2), (4, 4), (4, 3, 1), (4,)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"gives logits .*the data have 3 classes"):
        judged(np.full((4, 3), 0.5), [0] * 4, apply=lambda _, images: jnp.zeros(shape))


def judgement(violations, logits=None) -> judge.Judgement:
    number = len(violations)
    logits = np.zeros((number, 3)) if logits is None else logits
    return judge.Judgement(*[np.zeros(number)] * 4, np.asarray(violations), np.zeros(number, bool), logits)


def test_only_what_lies_within_the_tolerance_passes():
    every = np.arange(3)
    judge.check(judgement([0.0, judge.TOLERANCE, 0.0]), every)
    for excess in (1.01 * judge.TOLERANCE, np.inf, np.nan):
        result = judgement([0.0, excess, 0.0])
        with pytest.raises(FloatingPointError, match="left its ball"):
            judge.check(result, every)
        # Entries that are not asked for are lanes without an image.
        judge.check(result, np.array([0, 2]))
    # As much as rounding of a float32 in [0,1] makes in a sum, and far less than a step of 8 bits.
    assert 2**-23 < judge.TOLERANCE < 0.01 / 255


def test_nan_logits_stop_and_infinite_ones_do_not():
    logits = np.zeros((3, 3))
    logits[1] = np.inf
    judge.check(judgement([0.0] * 3, logits), np.arange(3))
    logits[1, 2] = np.nan
    with pytest.raises(FloatingPointError, match="NaN logits"):
        judge.check(judgement([0.0] * 3, logits), np.arange(3))
    judge.check(judgement([0.0] * 3, logits), np.array([0, 2]))


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=6), st.floats(-1e4, 1e4))
def test_probabilities_of_the_classes_add_up_and_do_not_see_a_constant(logits, constant):
    rows, labels = np.tile(logits, (len(logits), 1)), np.arange(len(logits))
    result = judge.probabilities_of(rows, labels)
    assert abs(result.sum() - 1) <= 0.5e-6 * len(logits) + 1e-12
    assert np.all(np.diff(result[np.argsort(logits)]) >= 0)
    np.testing.assert_allclose(judge.probabilities_of(rows + constant, labels), result, atol=1.1e-6)


def test_probabilities_by_hand_to_six_digits():
    logits = np.array([[0.0, 0.0, 0.0], [np.log(2), 0.0, np.log(5)], [1e5, 0.0, 0.0], [1e5, 0.0, 0.0]], np.float32)
    assert judge.probabilities_of(logits, np.array([2, 0, 0, 1])).tolist() == [0.333333, 0.25, 1.0, 0.0]
