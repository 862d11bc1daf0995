"""Counts and every view of them: recorded test vectors, definitions of groups, and what unbalanced tests change."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.analysis import intervals, metrics
from ltrobust.analysis.metrics import ClassCounts
from ltrobust.data.longtail import class_counts


def counts_of(correct, total) -> ClassCounts:
    return ClassCounts(np.array(correct), np.array(total))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (300, 1000, 27.24, 32.91),
        (20, 100, 13.34, 28.88),
        (10, 50, 11.24, 33.04),
        (3, 10, 10.78, 60.32),
        (0, 100, 0, 3.70),
    ],
)
def test_wilson_vectors(correct, total, low, high):
    estimate = intervals.wilson(correct, total)
    assert estimate.value == correct / total
    np.testing.assert_allclose([100 * estimate.low, 100 * estimate.high], [low, high], atol=0.005)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_value_within_0_and_1(pair):
    estimate = intervals.wilson(*pair)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1


@pytest.mark.parametrize(
    ("n", "p", "half_width"),
    [(10000, 0.30, 0.9), (1000, 0.30, 2.8), (100, 0.20, 7.8), (50, 0.20, 10.9), (10, 0.30, 24.8)],
)
def test_half_widths_of_the_field(n, p, half_width):
    estimate = intervals.wilson(round(n * p), n)
    assert abs(50 * (estimate.high - estimate.low) - half_width) < 0.06


def test_overall_pools_and_balanced_averages():
    counts = counts_of([90, 1], [100, 10])
    views = metrics.views(counts, np.array([100, 10]))
    assert views["overall"]["value"] == 91 / 110
    assert views["balanced"]["value"] == (0.9 + 0.1) / 2
    assert views["worst"] == pytest.approx(views["worst"] | {"value": 0.1, "class_index": 1})


@given(st.lists(st.integers(0, 40), min_size=2, max_size=12))
def test_on_a_balanced_test_set_overall_is_balanced(correct):
    views = metrics.views(counts_of(correct, [40] * len(correct)), np.arange(len(correct), 0, -1))
    assert views["overall"]["value"] == pytest.approx(views["balanced"]["value"])
    assert views["worst"]["value"] == min(correct) / 40
    assert sum(round(40 * estimate["value"]) for estimate in views["per_class"]) == sum(correct)


def test_a_class_without_images_is_left_out_and_listed():
    views = metrics.views(counts_of([5, 0, 1], [10, 0, 10]), np.array([9, 5, 3]))
    assert views["classes_without_images"] == [1]
    assert views["balanced"]["value"] == pytest.approx(0.3)
    assert views["worst"]["class_index"] == 2
    assert math.isnan(views["per_class"][1]["value"])


def test_groups_of_cifar10_at_ratio_50():
    groups = metrics.groups(class_counts(np.full(10, 5000), imbalance_ratio=50))
    assert groups["head_third"].tolist() == [0, 1, 2]
    assert groups["medium_third"].tolist() == [3, 4, 5, 6]
    assert groups["tail_third"].tolist() == [7, 8, 9]
    assert groups["tail_rare80"].tolist() == list(range(2, 10))
    assert [len(groups[name]) for name in ("many_count", "medium_count", "few_count")] == [10, 0, 0]
    assert groups["rarest1"].tolist() == [9]


@pytest.mark.parametrize(
    ("classes", "thirds"),
    [(2, [[], [0], [1]]), (3, [[0], [1], [2]]), (4, [[0], [1, 2], [3]]), (5, [[0], [1, 2], [3, 4]])],
)
def test_few_classes_have_a_tail(classes, thirds):
    groups = metrics.groups(np.arange(9, 9 - classes, -1))
    assert [groups[name].tolist() for name in ("head_third", "medium_third", "tail_third")] == thirds


@pytest.mark.parametrize("classes", [3, 6, 10])
def test_equally_frequent_classes_are_grouped_as_if_the_counts_descended(classes):
    equal, descending = metrics.groups(np.full(classes, 50)), metrics.groups(np.arange(classes, 0, -1))
    for name in ("head_third", "medium_third", "tail_third", "tail_rare80", "rarest1"):
        assert equal[name].tolist() == descending[name].tolist(), name


def test_groups_follow_the_classes_wherever_they_are_numbered():
    counts = class_counts(np.full(10, 5000), imbalance_ratio=50)
    shuffled = np.random.RandomState(0).permutation(10)
    sorted_groups, result = metrics.groups(counts), metrics.groups(counts[shuffled])
    for name, members in sorted_groups.items():
        assert sorted(shuffled[result[name]]) == sorted(members), name


@pytest.mark.parametrize(
    ("classes", "per_class", "ratio", "tail", "rare80", "by_count"),
    [
        (100, 500, 10, (67, 99), (20, 99), (70, 30, 0)),
        (100, 500, 50, (67, 99), (20, 99), (41, 41, 18)),
        (200, 500, 10, (133, 199), (40, 199), (140, 60, 0)),
        (10, 5000, 200, (7, 9), (2, 9), (7, 3, 0)),
    ],
)
def test_groups_of_larger_sets(classes, per_class, ratio, tail, rare80, by_count):
    groups = metrics.groups(class_counts(np.full(classes, per_class), imbalance_ratio=ratio))
    assert (groups["tail_third"][0], groups["tail_third"][-1]) == tail
    assert (groups["tail_rare80"][0], groups["tail_rare80"][-1]) == rare80
    assert tuple(len(groups[name]) for name in ("many_count", "medium_count", "few_count")) == by_count
    thirds = np.concatenate([groups[name] for name in ("head_third", "medium_third", "tail_third")])
    assert thirds.tolist() == list(range(classes))


def test_macro_interval_is_the_normal_one():
    counts = counts_of([300, 200], [1000, 1000])
    estimate = metrics.macro(counts, np.array([0, 1]))
    p = np.array([301 / 1002, 201 / 1002])
    half = 1.959964 * math.sqrt(float(np.sum(p * (1 - p) / 1000))) / 2
    assert estimate.value == pytest.approx(0.25)
    assert estimate.high - estimate.value == pytest.approx(half)


def test_counting_asserts_one_verdict_per_image():
    with pytest.raises(ValueError, match="2 verdicts for 3 labels"):
        metrics.count(np.array([True, False]), np.array([0, 1, 1]), 2)
    counts = metrics.count(np.array([True, False, True]), np.array([0, 1, 1]), 3)
    assert counts.correct.tolist() == [1, 1, 0]
    assert counts.total.tolist() == [1, 2, 0]
    with pytest.raises(ValueError, match="training counts of 2"):
        metrics.views(counts, np.array([1, 2]))


def test_confusion_by_hand():
    confusion = metrics.confusion(np.array([0, 1, 1, 2, 0, 1]), np.array([0, 0, 0, 0, 2, 2]), 4)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [[1, 2, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    # Half of class 0 is taken for 1; class 2 is shared between 0 and 1, the lower counts; 1 and 3 have no images.
    assert metrics.most_frequent_confusion(confusion) == [(1, 0.5), None, (0, 0.5), None]


def test_a_class_that_is_never_wrong_has_no_most_frequent_confusion():
    assert metrics.most_frequent_confusion(np.array([[5, 0], [2, 8]])) == [None, (0, 0.2)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60))
def test_confusion_agrees_with_the_counts(pairs):
    predictions, labels = np.array(pairs, np.int64).reshape(-1, 2).T
    confusion = metrics.confusion(predictions.astype(np.uint8), labels, 5)
    counts = metrics.count(predictions == labels, labels, 5)
    assert np.diag(confusion).tolist() == counts.correct.tolist()
    assert confusion.sum(axis=1).tolist() == counts.total.tolist()
    for right, total, result in zip(
        counts.correct, counts.total, metrics.most_frequent_confusion(confusion), strict=True
    ):
        assert (result is None) == (right == total)
        assert result is None or 0 < result[1] <= 1 - right / total + 1e-12


def test_confusion_of_many_classes_does_not_overflow_small_types():
    confusion = metrics.confusion(np.array([199], np.uint8), np.array([198], np.uint8), 200)
    assert np.argwhere(confusion).tolist() == [[198, 199]]


@pytest.mark.parametrize(
    ("predictions", "labels", "problem"),
    [
        (np.array([0]), np.array([0, 1]), "1 predictions for 2 labels"),
        (np.array([0, 2]), np.array([0, 1]), "predictions hold class 2: 0 to 1"),
        (np.array([0, 2, 3]), np.array([0, 1, 1]), "predictions hold class 2"),
        (np.array([0, 1]), np.array([-1, 1]), "labels hold class -1"),
        (np.array([0.0, 1.0]), np.array([0, 1]), "predictions are float64"),
        (np.array([[0], [1]]), np.array([0, 1]), r"predictions are int64 \[2, 1\]"),
    ],
)
def test_confusion_refuses(predictions, labels, problem):
    with pytest.raises(ValueError, match=problem):
        metrics.confusion(predictions, labels, 2)


def test_most_frequent_confusion_refuses_what_is_not_square():
    with pytest.raises(ValueError, match=r"shape \[2, 3\]"):
        metrics.most_frequent_confusion(np.zeros((2, 3), int))


def test_gap_and_normalised_deviation():
    views = metrics.views(counts_of([9, 5, 1, 0], [10, 10, 10, 0]), np.array([9, 5, 3, 1]))
    assert views["gap"] == pytest.approx(0.8)
    assert views["sd"] == pytest.approx(math.sqrt(0.32 / 3))
    assert views["nsd"] == pytest.approx(math.sqrt(0.32 / 3) / 0.5)
    assert math.isnan(metrics.views(counts_of([0, 0], [10, 10]), np.array([9, 5]))["nsd"])


def test_a_group_is_also_pooled_where_its_classes_have_unequal_sizes():
    unequal = metrics.views(counts_of([90, 1, 8], [100, 10, 10]), np.array([500, 300, 5]))
    assert unequal["many_count"]["value"] == pytest.approx(0.5)
    assert unequal["many_count"]["pooled"] == intervals.wilson(91, 110)._asdict()
    assert "pooled" not in unequal["few_count"]
    equal = metrics.views(counts_of([90, 10, 8], [100, 100, 10]), np.array([500, 300, 5]))
    assert "pooled" not in equal["many_count"]
    # A class without images makes no difference between the mean and the pool.
    absent = metrics.views(counts_of([90, 0, 8], [100, 0, 10]), np.array([500, 300, 5]))
    assert "pooled" not in absent["many_count"]


def test_the_lowest_tenth_is_of_the_classes_with_images():
    correct, total = np.arange(11, 22), np.array([100] * 10 + [0])
    counts = metrics.ClassCounts(np.minimum(correct, total), total)
    result = metrics.views(counts, np.full(11, 5))
    # Of 10 classes with images the lowest tenth is one, of 11 two.
    assert result["worst10"] == metrics.lowest(counts, 1)._asdict()
    full = metrics.ClassCounts(correct, np.full(11, 100))
    assert metrics.worst10(full) == metrics.lowest(full, 2)
