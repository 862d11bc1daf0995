"""Paired comparison: recorded test vectors, hand-computed tables, symmetries, and error rates where nothing differs."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.analysis import metrics
from ltrobust.analysis.compare import compare, mcnemar
from ltrobust.analysis.intervals import holm
from ltrobust.analysis.schema.paired import GroupDifference, PairedComparison
from ltrobust.runtime import typed_json

TRAINING_COUNTS = np.array([500, 120, 30, 12])


def verdicts(*table):
    """Verdicts of both models and labels, from one row (both, only first, only second, neither) per class."""
    outcome = np.concatenate([np.repeat([0, 1, 2, 3], row) for row in table])
    labels = np.repeat(np.arange(len(table)), np.sum(table, axis=1))
    return np.isin(outcome, [0, 1]), np.isin(outcome, [0, 2]), labels


# Rows (both, only first, only second, neither) of four classes, possibly empty, with at least one image in all.
tables = st.lists(st.tuples(*[st.integers(0, 8)] * 4), min_size=4, max_size=4).filter(lambda rows: np.sum(rows) > 0)


def views_of(result):
    """Every part of a comparison that has a difference."""
    return [
        result.overall,
        result.balanced,
        *result.groups.values(),
        result.worst,
        *(entry for entry in result.per_class if entry.images),
    ]


@pytest.mark.parametrize(
    ("b", "c", "p", "mid_p"),
    [
        (25, 10, 0.016674, 0.011331),
        (60, 40, 0.056888, 0.046044),
        (120, 80, 0.005685, 0.004660),
        (5, 0, 0.0625, 0.03125),
        (7, 7, 1, 1),
        (0, 0, 1, 1),
    ],
)
def test_mcnemar_vectors(b, c, p, mid_p):
    np.testing.assert_allclose(mcnemar(b, c), [p, mid_p], atol=5e-7)
    assert mcnemar(c, b) == mcnemar(b, c)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_p_values_are_probabilities_and_mid_p_is_the_smaller(b, c):
    p, mid_p = mcnemar(b, c)
    assert 0 <= mid_p <= p <= 1


def test_mcnemar_refuses_negative_counts():
    with pytest.raises(ValueError, match="b = -1, c = 2"):
        mcnemar(-1, 2)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005])), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_array_equal(holm(np.array([0.9, 0.6])), [1, 1])
    assert holm(np.array([])).tolist() == []
    np.testing.assert_array_equal(holm(np.array([np.nan])), [np.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers(values):
    p = np.array(values)
    corrected = holm(p)
    assert np.all((corrected >= p) & (corrected <= np.minimum(1, len(p) * p)))
    assert np.all(np.diff(corrected[np.argsort(p, kind="stable")]) >= 0)


@pytest.mark.parametrize(("p", "problem"), [(np.array([0.5, 1.5]), "1.5 is no p-value"), (np.eye(2), "one axis")])
def test_holm_refuses(p, problem):
    with pytest.raises(ValueError, match=problem):
        holm(p)


def test_a_comparison_by_hand():
    # Class 0: 70 and 55 of 100 right. Class 1: 10 and 16 of 20.
    result = compare(*verdicts((45, 25, 10, 20), (10, 0, 6, 4)), 2)
    overall = result.overall
    assert result.images == 120
    assert (overall.first, overall.second) == (80 / 120, 71 / 120)
    assert (overall.test.b, overall.test.c) == (25, 16)
    assert overall.difference == 9 / 120
    # Wilson's bounds of u = 25/120 and v = 16/120 have the distances 0.0630, 0.0811, 0.0496 and 0.0723 from them, and
    # twice the correlation of u and v is -0.4024.
    below = math.sqrt(0.0630**2 + 0.4024 * 0.0630 * 0.0723 + 0.0723**2)
    above = math.sqrt(0.0811**2 + 0.4024 * 0.0811 * 0.0496 + 0.0496**2)
    assert (overall.low, overall.high) == pytest.approx((9 / 120 - below, 9 / 120 + above), abs=1e-4)
    assert (overall.test.p, overall.test.mid_p) == mcnemar(25, 16)

    balanced = result.balanced
    assert (balanced.first, balanced.second) == pytest.approx((0.6, 0.675))
    assert balanced.difference == pytest.approx((0.15 - 0.3) / 2)
    # The variance of the mean of two class differences, each (p_b + p_c - (p_b - p_c)^2) / n.
    error = math.sqrt((0.35 - 0.15**2) / 100 + (0.3 - 0.3**2) / 20) / 2
    assert balanced.high - balanced.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert balanced.test == overall.test

    worst = result.worst
    assert (worst.first, worst.first_class) == (0.5, 1)
    assert (worst.second, worst.second_class) == (0.55, 0)
    assert worst.difference == pytest.approx(-0.05)
    assert worst.low < -0.05 < worst.high

    one, two = result.per_class
    assert (one.test.b, one.test.c, one.test.p) == (25, 10, pytest.approx(0.016674, abs=5e-7))
    assert (two.test.b, two.test.c, two.test.p, two.test.mid_p) == (0, 6, 2 / 64, 1 / 64)
    # A class has the interval that all images would have if they were its images alone.
    alone = compare(*verdicts((45, 25, 10, 20)), 1).overall
    assert (one.difference, one.low, one.high) == (0.15, alone.low, alone.high)
    assert (one.p_holm, two.p_holm) == (pytest.approx(2 * one.test.p), pytest.approx(2 * one.test.p))


def test_groups_are_those_of_the_metrics():
    labels = np.repeat(np.arange(4), [40, 30, 20, 10])
    generator = np.random.RandomState(3)
    first, second = generator.rand(100) < 0.6, generator.rand(100) < 0.4
    result = compare(first, second, labels, 4, TRAINING_COUNTS)
    views = [metrics.views(metrics.count(right, labels, 4), TRAINING_COUNTS) for right in (first, second)]
    for name in ("overall", "balanced", "worst", *metrics.groups(TRAINING_COUNTS)):
        found = result.groups.get(name) or getattr(result, name)
        values = (found.first, found.second)
        assert values == pytest.approx([view[name]["value"] for view in views])
    assert result.groups["few_count"].classes == 1
    assert result.groups["few_count"].images == 10
    assert result.groups["few_count"].test == result.per_class[3].test
    assert compare(first, second, labels, 4).groups == {}


def test_classes_without_images_are_left_out_and_listed():
    result = compare(*verdicts((3, 5, 0, 2), (0, 0, 0, 0), (1, 0, 5, 4), (0, 0, 0, 0)), 4, TRAINING_COUNTS)
    assert result.classes_without_images == [1, 3]
    absent = dict.fromkeys(("first", "second", "difference", "low", "high", "test", "p_holm"))
    assert typed_json.plain(result.per_class[1]) == {"class_index": 1, "images": 0} | absent
    assert result.balanced.classes == 2
    assert result.balanced.difference == pytest.approx(0)
    # Two tests are corrected, not four.
    assert result.per_class[0].p_holm == 2 * 0.0625
    # The worst class keeps its own number; a group without test images is absent.
    assert result.worst.second_class == 0
    assert result.worst.first_class == 2
    assert "few_count" not in result.groups


@settings(max_examples=40)
@given(tables)
def test_swapping_the_models_mirrors_everything(table):
    first, second, labels = verdicts(*table)
    one, other = (compare(*pair, labels, 4, TRAINING_COUNTS) for pair in ((first, second), (second, first)))
    assert one.groups.keys() == other.groups.keys()
    for view, mirror in zip(views_of(one), views_of(other), strict=True):
        assert (view.first, view.second) == (mirror.second, mirror.first)
        assert view.difference == -mirror.difference
        assert (view.low, view.high) == pytest.approx((-mirror.high, -mirror.low), abs=1e-12)
        if view is not one.worst:
            assert view.test == dataclasses.replace(mirror.test, b=mirror.test.c, c=mirror.test.b)
    classes = (one.worst.first_class, one.worst.second_class)
    assert classes == (other.worst.second_class, other.worst.first_class)


@settings(max_examples=40)
@given(tables)
def test_differences_intervals_and_p_values_are_what_they_should_be(table):
    result = compare(*verdicts(*table), 4, TRAINING_COUNTS)
    for view in views_of(result):
        assert view.difference == pytest.approx(view.first - view.second, abs=1e-12)
        assert -1 <= view.low <= view.high <= 1
        assert view.low - 1e-12 <= view.difference <= view.high + 1e-12
        if view is not result.worst:
            assert 0 <= view.test.mid_p <= view.test.p <= getattr(view, "p_holm", view.test.p) <= 1
    content = json.loads(json.dumps(typed_json.plain(result), allow_nan=False))
    assert typed_json.plain(typed_json.parse(PairedComparison, content)) == content


@settings(max_examples=25)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_the_images_changes_nothing_at_all(table, random):
    first, second, labels = verdicts(*table)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    result = [compare(first[order], second[order], labels[order], 4), compare(first, second, labels, 4)]
    assert typed_json.plain(result[0]) == typed_json.plain(result[1])


@settings(max_examples=25)
@given(tables)
def test_a_model_does_not_differ_from_itself(table):
    first, _, labels = verdicts(*table)
    result = compare(first, first.copy(), labels, 4, TRAINING_COUNTS)
    for view in views_of(result):
        # That few images show no difference does not show that there is none.
        assert view.low < 0 < view.high
        if isinstance(view, GroupDifference):
            assert view.low == -view.high
        assert view.difference == 0
        if view is not result.worst:
            assert view.test.p == view.test.mid_p == getattr(view, "p_holm", 1) == 1


@pytest.mark.parametrize(("u", "v", "n"), [(0.01, 0.002, 200), (0.004, 0.001, 1000), (0.002, 0.002, 1000)])
def test_intervals_of_rare_differences_hold_the_true_one(u, v, n):
    drawn = np.random.RandomState(4).multinomial(n, [u, v, 1 - u - v], 4000)
    held = 0
    for (b, c, same), number in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True):
        first, second, labels = verdicts((0, b, c, same))
        view = compare(first, second, labels, 1).overall
        held += number * (view.low <= u - v <= view.high)
    assert held / 4000 >= 0.94


def test_small_label_types_do_not_overflow():
    labels = np.array([0, 150, 199], np.uint8)
    result = compare(np.array([True, True, False]), np.array([True, False, False]), labels, 200)
    assert result.per_class[150].test.b == 1
    assert len(result.classes_without_images) == 197


RIGHT, LABELS = np.array([True, False]), np.array([0, 1])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((RIGHT, RIGHT[:1], LABELS, 2), "2 and 1 verdicts for 2 labels"),
        ((RIGHT, RIGHT, LABELS[:1], 2), "2 and 2 verdicts for 1 labels"),
        ((RIGHT.astype(int), RIGHT, LABELS, 2), "first is int64"),
        ((RIGHT, RIGHT[None], LABELS, 2), r"second is bool \[1, 2\]"),
        ((RIGHT, RIGHT, LABELS.astype(float), 2), "labels are float64"),
        ((RIGHT, RIGHT, LABELS, 1), "labels hold class 1: 0 to 0"),
        ((RIGHT, RIGHT, LABELS - 1, 2), "labels hold class -1"),
        ((RIGHT[:0], RIGHT[:0], LABELS[:0], 2), "0 images"),
        ((RIGHT, RIGHT, LABELS, 2, np.array([3, 2, 1])), "training counts of 3 classes"),
    ],
)
def test_comparisons_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        compare(*arguments)


@pytest.mark.slow
def test_error_rates_where_both_models_are_equally_good():
    generator = np.random.RandomState(0)
    pairs, labels = 400, np.repeat(np.arange(5), [200, 120, 80, 60, 40])
    rejected = covered = 0
    for _ in range(pairs):
        # Each image has its own difficulty, the same for both models, and classes differ in it.
        accuracy = np.clip(0.75 - 0.1 * labels + generator.uniform(-0.2, 0.2, 500), 0, 1)
        result = compare(*(generator.rand(2, 500) < accuracy), labels, 5)
        rejected += result.overall.test.p < 0.05
        covered += result.balanced.low <= 0 <= result.balanced.high
    assert rejected / pairs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / pairs)
    assert covered / pairs >= 0.92


def test_a_true_difference_is_found():
    generator = np.random.RandomState(1)
    labels = np.arange(2000) % 10
    hard = generator.rand(2000)
    result = compare(hard < 0.5, hard < 0.45, labels, 10)
    assert result.overall.test.p < 1e-6
    assert result.balanced.low > 0
