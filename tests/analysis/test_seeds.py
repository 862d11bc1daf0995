"""Numbers over seeds: standard errors over test images of differences, and intervals of the worst class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.analysis import card_parts, compare, intervals, metrics, seeds

TRAINING_COUNTS = [500, 120, 30, 12]
# Rows (both, only first, only second, neither) of four classes, possibly empty.
tables = st.lists(st.tuples(*[st.integers(0, 8)] * 4), min_size=4, max_size=4).filter(lambda rows: np.sum(rows) > 0)


def errors(table, training_counts):
    """View -> errors of a table of outcomes: from counts, from counts and images that differ, from the verdicts."""
    outcome = np.concatenate([np.repeat([0, 1, 2, 3], row) for row in table])
    labels = np.repeat(np.arange(len(table)), np.sum(table, axis=1))
    right = [np.isin(outcome, [0, 1]), np.isin(outcome, [0, 2])]
    counts = np.array(training_counts)
    columns = [card_parts.describe_column(metrics.count(each, labels, len(table)), counts) for each in right]
    comparison = compare.compare(*right, labels, len(table), counts)
    differ = np.array(table)[:, 1:3].sum(axis=1)
    return {
        view: (
            seeds.error_of_difference(*columns, view, training_counts),
            seeds.error_of_difference(*columns, view, training_counts, differ),
            seeds.exact_error(comparison, view, training_counts),
        )
        for view in ("overall", "balanced", *comparison.groups)
    }


@settings(max_examples=60, deadline=None)
@given(tables)
def test_images_that_differ_give_the_error_of_the_verdicts(table):
    for _, known, exact in errors(table, TRAINING_COUNTS).values():
        assert known == exact > 0


def test_without_them_verdicts_count_as_independent():
    # 30 % and 60 % of the images are right, by chance together.
    for independent, _, exact in errors([(180, 120, 420, 280)] * 4, TRAINING_COUNTS).values():
        assert independent == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("table", [(40, 20, 20, 40), (60, 0, 0, 60), (300, 30, 60, 10), (3, 8, 1, 200)])
def test_networks_that_agree_have_a_smaller_error_than_independent_ones(table):
    for independent, _, exact in errors([table] * 4, TRAINING_COUNTS).values():
        assert independent > exact


def seen(rng, accuracies, images=80):
    """The column of a network with these true class accuracies."""
    correct = rng.binomial(images, np.clip(accuracies, 0, 1))
    total = np.full(len(accuracies), images)
    return card_parts.describe_column(metrics.ClassCounts(correct, total), np.arange(len(accuracies), 0, -1) * 10)


def networks_of(rng, levels, number):
    """True class accuracies of networks of one method: its own, moved by the seed of training."""
    return levels + 0.03 * rng.standard_normal((number, len(levels)))


EQUAL, ONE_LOW = np.full(10, 0.5), np.linspace(0.2, 0.9, 10)


@pytest.mark.parametrize("levels", [EQUAL, ONE_LOW], ids=["equal classes", "one is lowest"])
def test_the_worst_class_over_seeds_is_covered(levels):
    """A t-interval of observed minima misses that of ten equal classes nearly always."""
    rng = np.random.default_rng(0)
    truth = networks_of(rng, levels, 20000).min(axis=1).mean()
    valid, of_minima = [], []
    for _ in range(150):
        columns = [seen(rng, own) for own in networks_of(rng, levels, 3)]
        result = seeds.of_columns(columns, "worst", [])
        naive = intervals.t_interval([column.worst.value for column in columns])
        valid.append(result.low <= truth <= result.high)
        of_minima.append(naive.low <= truth <= naive.high)
        assert np.isnan(result.p)
        assert result.mean == naive.mean
    assert np.mean(valid) >= 0.95
    if levels is EQUAL:
        assert np.mean(of_minima) < 0.8


@pytest.mark.parametrize("levels", [(EQUAL, ONE_LOW), (ONE_LOW, ONE_LOW)], ids=["other classes", "the same class"])
def test_a_difference_of_worst_classes_over_seeds_is_covered(levels):
    """Minima of ten equal classes are biased more than one that is far below the others."""
    rng = np.random.default_rng(1)
    truth = np.subtract(*(networks_of(rng, own, 20000).min(axis=1).mean() for own in levels))
    valid, of_minima = [], []
    for _ in range(100):
        pairs = [tuple(seen(rng, networks_of(rng, own, 1)[0]) for own in levels) for _ in range(3)]
        result = seeds.of_differences(pairs, "worst", [])
        naive = intervals.t_interval([first.worst.value - second.worst.value for first, second in pairs])
        valid.append(result.low <= truth <= result.high)
        of_minima.append(naive.low <= truth <= naive.high)
        assert np.isnan(result.p)
        assert result.mean == naive.mean
    assert np.mean(valid) >= 0.95
    if levels[0] is EQUAL:
        assert np.mean(of_minima) < 0.9


def test_many_small_classes_do_not_widen_the_error():
    # 100 classes of ten images, of which one class has an image that only the first network gets right.
    result = errors([(5, 1, 0, 4)] + [(5, 0, 0, 5)] * 99, list(range(200, 100, -1)))
    # Classes are drawn one by one: a little less.
    assert result["balanced"][1:] == pytest.approx((2**0.5 / 1002,) * 2, rel=0.03)
    assert result["overall"][1] == result["overall"][2] == intervals.paired_error(1, 1, 1000)


def test_a_mean_over_unequal_classes_has_the_error_of_its_small_class():
    # Eight of 15 images of the small class differ, none of the 1,000 of the other: half the small class's error.
    _, _, exact = errors([(5, 4, 4, 2), (500, 0, 0, 500)], [9, 5])["balanced"]
    assert exact == pytest.approx(intervals.paired_error(8, 0, 15) / 2, rel=0.1)
    assert exact > 5 * intervals.paired_error(8, 0, 1015)
