"""Metrics and comparisons on whatever verdicts: right numbers, or a message."""

import json
import math

import numpy as np
import pytest
from budget import says, tries
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.analysis import compare, intervals, metrics
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import without_nan


@st.composite
def verdicts(draw):
    """Number of classes, labels, and two models' verdicts."""
    classes = draw(st.integers(2, 12))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=30)))
    first, second = (
        np.array(draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))) for _ in range(2)
    )
    return classes, labels, first, second


@tries(120)
@given(verdicts(), st.data())
def test_views_of_counts(given_verdicts, data):
    classes, labels, first, _ = given_verdicts
    training = np.array(data.draw(st.lists(st.integers(0, 5000), min_size=classes, max_size=classes)))
    views = metrics.views(metrics.count(first, labels, classes), training)
    accuracies = [float(np.mean(first[labels == label])) for label in range(classes) if np.any(labels == label)]
    assert views["overall"]["value"] == pytest.approx(np.mean(first))
    assert views["balanced"]["value"] == pytest.approx(np.mean(accuracies))
    assert views["worst"]["value"] == pytest.approx(min(accuracies))
    assert views["gap"] == pytest.approx(max(accuracies) - min(accuracies))
    for view in ("overall", "balanced"):
        estimate = views[view]
        assert 0 <= estimate["low"] <= estimate["value"] + 1e-12
        assert estimate["value"] - 1e-12 <= estimate["high"] <= 1
    empty = [label for label in range(classes) if not np.any(labels == label)]
    assert views["classes_without_images"] == empty
    json.dumps(without_nan(views), allow_nan=False)


@tries(60)
@given(verdicts())
def test_a_comparison_is_the_mirror_of_its_swap(given_verdicts):
    classes, labels, first, second = given_verdicts
    one, other = compare.compare(first, second, labels, classes), compare.compare(second, first, labels, classes)
    assert one.overall.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert one.overall.difference == -other.overall.difference
    assert (one.overall.test.b, one.overall.test.c) == (other.overall.test.c, other.overall.test.b)
    assert one.balanced.low == pytest.approx(-other.balanced.high)
    assert sum(entry.images for entry in one.per_class) == len(labels)
    json.dumps(typed_json.plain(one), allow_nan=False)


WHAT = ("verdicts", "labels", "images", "predictions", "training counts")
ARRAYS = st.one_of(
    st.lists(st.integers(-2, 12), max_size=8).map(np.array),
    st.lists(st.floats(), max_size=8).map(np.array),
    st.lists(st.booleans(), max_size=8).map(lambda values: np.array(values, bool)),
    st.lists(st.booleans(), min_size=4, max_size=4).map(lambda values: np.array(values).reshape(2, 2)),
    st.just(np.array("text")),
)


@tries(150)
@given(ARRAYS, ARRAYS, ARRAYS, st.integers(2, 12), st.none() | ARRAYS)
def test_a_comparison_of_anything(first, second, labels, classes, counts):
    try:
        result = compare.compare(first, second, labels, classes, counts)
    except ValueError as error:
        says(error, *WHAT)
        return
    assert first.dtype == second.dtype == bool
    assert result.images == len(labels) > 0


@tries(150)
@given(ARRAYS, ARRAYS, st.integers(2, 12))
def test_a_confusion_of_anything(predictions, labels, classes):
    try:
        matrix = metrics.confusion(predictions, labels, classes)
    except ValueError as error:
        says(error, *WHAT)
        return
    assert matrix.sum() == len(labels)
    assert matrix.shape == (classes, classes)
    for label, result in enumerate(metrics.most_frequent_confusion(matrix)):
        assert result is None or (result[0] != label and 0 < result[1] <= 1)


@tries(100)
@given(st.integers(-3, 400), st.integers(-3, 400))
def test_mcnemar(b, c):
    if min(b, c) < 0:
        with pytest.raises(ValueError, match="counts of images"):
            compare.mcnemar(b, c)
        return
    result = compare.mcnemar(b, c)
    assert 0 <= result.mid_p <= result.p <= 1
    assert result == compare.mcnemar(c, b)


@tries(100)
@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=10))
def test_holm(p):
    corrected = intervals.holm(np.array(p))
    members = ~np.isnan(p) if p else np.array([], bool)
    assert np.all(corrected[members] >= np.array(p)[members])
    assert np.all(corrected[members] <= 1)
    assert np.all(np.isnan(corrected[~members]))
