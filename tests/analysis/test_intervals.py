"""Intervals against SciPy, by hand, and in simulations of how often they hold what they should."""

import numpy as np
import pytest
from scipy import stats

from ltrobust.analysis import intervals


@pytest.mark.parametrize(("correct", "total"), [(0, 600), (1, 40), (37, 100), (200, 200)])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 30])
def test_bounds_of_proportions_are_scipys(correct, total, alpha):
    for method, bounds in (("wilson", intervals.wilson_bounds), ("exact", intervals.exact_bounds)):
        expected = stats.binomtest(correct, total).proportion_ci(1 - alpha, method)
        assert np.ravel(bounds(correct, total, alpha)) == pytest.approx([expected.low, expected.high], abs=1e-12)


# Ten equal classes, CIFAR-100's number and sizes, Tiny ImageNet's, and one class that is nearly never right.
CASES = {
    "ten": (np.full(10, 0.3), 200),
    "hundred": (np.linspace(0.05, 0.8, 100) ** 1.5, 100),
    "two hundred": (np.full(200, 0.2), 50),
    "near zero": (np.array([0.0005] + [0.4] * 9), 200),
}


@pytest.mark.parametrize("case", CASES)
def test_the_interval_of_the_lowest_classes_holds_their_true_accuracy(case):
    accuracy, images = CASES[case]
    draws, total = (
        np.random.RandomState(0).binomial(images, accuracy, (400, len(accuracy))),
        np.full(len(accuracy), images),
    )
    for number in (1, len(accuracy) // 10):
        truth = np.sort(accuracy)[:number].mean()
        result = [intervals.lowest(correct, total, number) for correct in draws]
        assert np.mean([low <= truth <= high for _, low, high in result]) >= 0.95
        assert all(low <= value <= high for value, low, high in result)
        # Not by being wide: about as wide as the interval of one class alone, with the z of many classes.
        z = intervals.quantile(intervals.ALPHA / len(accuracy))
        assert np.median([high - low for _, low, high in result]) < 2 * z * np.sqrt(0.25 / images)


def test_two_lowest_classes_have_bounds_by_hand():
    correct, total = np.array([10, 20, 90]), np.array([100, 100, 100])
    low, high = intervals.exact_bounds(correct, total, 0.05 / 3)
    assert intervals.lowest(correct, total, 1) == pytest.approx((0.1, low[0], high[0]))
    assert intervals.lowest(correct, total, 2) == pytest.approx((0.15, low[:2].mean(), high[:2].mean()))


@pytest.mark.parametrize("shared", [0.0, 0.8])
@pytest.mark.parametrize("case", CASES)
def test_the_interval_of_a_difference_of_worst_classes_holds_the_true_one(case, shared):
    """Two networks on the same images, which are right together more often than by chance, or not."""
    first, images = CASES[case]
    second = np.roll(first, 1) * 0.9
    both = shared * np.minimum(first, second) + (1 - shared) * first * second
    shares = np.stack([both, first - both, second - both, 1 - first - second + both], axis=1)
    generator = np.random.RandomState(1)
    tables = np.stack([generator.multinomial(images, share, 200) for share in shares], axis=1)
    result = [intervals.lowest_difference(table) for table in tables]
    truth = first.min() - second.min()
    assert np.mean([low <= truth <= high for _, low, high in result]) >= 0.95
    assert all(low <= value <= high for value, low, high in result)
    mirrored = intervals.lowest_difference(tables[0][:, [0, 2, 1, 3]])
    assert mirrored == pytest.approx([-result[0].value, -result[0].high, -result[0].low])


def test_one_class_that_is_the_worst_of_both_is_compared_image_by_image():
    # Class 0 is far below class 1 in both networks: 30 and 10 of 1,000, of which 9 are the same images.
    table = np.array([[9, 21, 1, 969], [800, 50, 50, 100]])
    value, low, high = intervals.lowest_difference(table)
    assert value == pytest.approx(0.02)
    assert 0 < low < 0.02 < high < 0.04


def test_bounds_of_paired_differences_have_width_and_miss_as_often_as_they_say():
    assert np.ravel(intervals.paired_bounds(np.array([0]), np.array([0]), np.array([50]))) == pytest.approx(
        [-0.0714, 0.0714], abs=1e-3
    )
    u, v, n = 0.3, 0.1, 100
    drawn = np.random.RandomState(2).multinomial(n, [u, v, 1 - u - v], 20000)
    low, high = intervals.paired_bounds(drawn[:, 0], drawn[:, 1], np.full(20000, n))
    assert np.mean((low <= u - v) & (u - v <= high)) == pytest.approx(0.95, abs=0.01)


def test_bounds_of_correlations_are_scipys_and_absent_with_a_constant():
    x, y = np.random.RandomState(3).randn(2, 12)
    pearson = stats.pearsonr(x, y)
    expected = pearson.confidence_interval(0.95)
    value = float(pearson.statistic)
    bounds = intervals.correlation_bounds(value, 12, ranks=False)
    assert bounds == pytest.approx((expected.low, expected.high))
    low, high = intervals.correlation_bounds(value, 12, ranks=True)
    assert low < bounds[0] < value < bounds[1] < high
    assert intervals.correlation_bounds(1.0, 12, ranks=True)[1] == pytest.approx(1)
    for ranks in (False, True):
        assert np.isnan(intervals.correlation_bounds(np.nan, 12, ranks=ranks)).all()


@pytest.mark.parametrize("case", CASES)
def test_highest_range_and_its_difference_hold_the_true_ones_in_simulations(case):
    shares, images = CASES[case]
    generator, draws, missed = np.random.RandomState(1), 200, np.zeros(3)
    # The second network is right on the same images, but for a part of the first class.
    lost = np.where(np.arange(len(shares)) == 0, 0.5, 0.0) * shares
    for _ in range(draws):
        outcomes = np.array(
            [generator.multinomial(images, [p - d, d, 0, 1 - p]) for p, d in zip(shares, lost, strict=True)]
        )
        correct = outcomes[:, :2].sum(axis=1)
        best, span = intervals.highest_and_range(correct, np.full(len(shares), images))
        change = intervals.range_difference(outcomes)
        true = (shares.max(), np.ptp(shares), np.ptp(shares) - np.ptp(shares - lost))
        for place, (estimate, value) in enumerate(zip((best, span, change), true, strict=True)):
            missed[place] += not estimate.low - 1e-12 <= value <= estimate.high + 1e-12
            assert estimate.low <= estimate.value <= estimate.high
    assert (missed <= 0.05 * draws).all(), missed
