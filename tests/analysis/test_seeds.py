"""Standard errors over test images of paired differences, from verdicts and from cards, which only have counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.analysis import card_parts, compare, intervals, metrics, seeds

TRAINING_COUNTS = [500, 120, 30, 12]
# Rows (both, only first, only second, neither) of four classes, possibly empty.
tables = st.lists(st.tuples(*[st.integers(0, 8)] * 4), min_size=4, max_size=4).filter(lambda rows: np.sum(rows) > 0)


def errors(table, training_counts):
    """View -> errors of a table of outcomes: from counts alone, and from the verdicts."""
    outcome = np.concatenate([np.repeat([0, 1, 2, 3], row) for row in table])
    labels = np.repeat(np.arange(len(table)), np.sum(table, axis=1))
    right = [np.isin(outcome, [0, 1]), np.isin(outcome, [0, 2])]
    counts = np.array(training_counts)
    columns = [card_parts.describe_column(metrics.count(each, labels, len(table)), counts) for each in right]
    comparison = compare.compare(*right, labels, len(table), counts)
    return {
        view: (
            seeds.least_error(*columns, view, training_counts),
            seeds.exact_error(comparison, view, training_counts),
        )
        for view in ("overall", "balanced", "worst", *comparison.groups)
    }


@settings(max_examples=60, deadline=None)
@given(tables)
def test_the_least_error_is_not_above_that_of_the_verdicts(table):
    for least, exact in errors(table, TRAINING_COUNTS).values():
        assert 0 < least <= exact * (1 + 1e-12)


def test_many_small_classes_do_not_widen_the_least_error():
    # 100 classes of ten images, of which one class has an image that only the first network gets right.
    result = errors([(5, 1, 0, 4)] + [(5, 0, 0, 5)] * 99, list(range(200, 100, -1)))
    assert result["balanced"] == pytest.approx(
        (2**0.5 / 1002,) * 2, rel=0.03
    )  # classes are drawn one by one: a little less
    assert result["overall"][0] == result["overall"][1] == intervals.paired_error(1, 1, 1000)


def test_a_mean_over_unequal_classes_has_the_error_of_its_small_class():
    # Eight of 15 images of the small class differ, none of the 1,000 of the other: half the small class's error.
    _, exact = errors([(5, 4, 4, 2), (500, 0, 0, 500)], [9, 5])["balanced"]
    assert exact == pytest.approx(intervals.paired_error(8, 0, 15) / 2, rel=0.1)
    assert exact > 5 * intervals.paired_error(8, 0, 1015)
