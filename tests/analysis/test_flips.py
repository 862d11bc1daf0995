"""Which images flip and why, agreement of two models, and differences over seeds: against hand-made verdicts."""

import numpy as np
import pytest
from scipy import stats

from ltrobust.analysis import compare, flips, intervals, metrics, seeds
from ltrobust.analysis.schema.comparison import Breaker, Flip
from ltrobust.evaluation.lines import ROW, AttackVerdicts

PROVENANCE = {
    "protocol": {
        "attacks": [{"name": "a", "after": []}, {"name": "b", "after": []}],
        "combined": [["both", ["a", "b"]]],
    },
    "images": {"number": 5},
}


def verdicts(clean, a, b):
    """Verdicts on images 10 to 14 of class 0; a string names the images that are wrong there."""

    def column(wrong):
        rows = np.zeros(5, ROW)
        rows["image"], rows["prediction"] = np.arange(10, 15), [int(str(n) in wrong) for n in range(5)]
        return rows

    attacked = [n for n in range(5) if str(n) not in clean]
    seen = {name: AttackVerdicts(name, column(wrong)[attacked]) for name, wrong in (("a", a), ("b", b))}
    return {"clean": AttackVerdicts("clean", column(clean))} | seen


def test_flips_and_what_broke_them():
    model, reference = verdicts("", "4", ""), verdicts("0", "12", "2")
    result = flips.flips(PROVENANCE, model, reference)
    assert result.lost == [Flip(image=14, label=0, broken_by=["a"], prediction=1)]
    assert [(entry.image, entry.broken_by) for entry in result.won] == [
        (10, ["clean"]),
        (11, ["a"]),
        (12, ["a", "b"]),
    ]
    counts = flips.breakers(PROVENANCE, result.won)
    assert counts == [
        Breaker("clean", images=1, first=1, alone=1),
        Breaker("a", images=2, first=2, alone=1),
        Breaker("b", images=1, first=0, alone=0),
    ]
    # Every flipped image has one first breaker, whichever the column.
    assert sum(entry.first for entry in counts) == len(result.won)
    assert len(flips.flips(PROVENANCE, model, reference, "clean").won) == 1
    swapped = flips.flips(PROVENANCE, reference, model)
    assert (swapped.won, swapped.lost) == (result.lost, result.won)


def test_columns_are_compared_alike_and_corrected():
    result = flips.by_column(PROVENANCE, verdicts("", "4", ""), verdicts("0", "12", "2"))
    assert {name: (view.test.b, view.test.c) for name, view in result.items()} == {
        "clean": (1, 0),
        "a": (3, 1),
        "b": (2, 0),
        "both": (3, 1),
    }
    assert all(view.test.p <= view.p_holm <= 1 for view in result.values())


@pytest.mark.parametrize("table", [(20, 5, 10, 15), (40, 9, 6, 45), (3, 2, 1, 4), (0, 5, 5, 0), (30, 10, 0, 0)])
def test_kappa_is_the_textbooks_and_its_interval_that_of_many_draws(table):
    outcome = np.repeat([0, 1, 2, 3], table)
    result = compare.agreement(np.isin(outcome, [0, 1]), np.isin(outcome, [0, 2]))
    both, only_first, only_second, neither = np.array(table) / sum(table)
    assert (result.both, result.neither) == pytest.approx((both, neither))
    expected = (both + only_first) * (both + only_second) + (neither + only_first) * (neither + only_second)
    assert result.kappa.value == pytest.approx((both + neither - expected) / (1 - expected))
    if min(table) >= 5:
        draws = np.random.RandomState(0).multinomial(sum(table), np.array(table) / sum(table), size=4000)
        drawn = [compare.cohens_kappa(draw).value for draw in draws]
        half = (result.kappa.high - result.kappa.low) / 2
        assert half == pytest.approx(1.96 * np.std(drawn), rel=0.08)


def test_kappas_interval_is_that_of_its_gradient():
    """`n` times the variance is that of the gradient over the outcomes, here by central differences."""

    def kappa(shares):
        both, only_first, only_second, neither = shares
        first, second = both + only_first, both + only_second
        expected = first * second + (1 - first) * (1 - second)
        return (both + neither - expected) / (1 - expected)

    for table in ((20, 5, 10, 15), (40, 9, 6, 45), (1, 30, 20, 4), (200, 3, 40, 7)):
        n = sum(table)
        shares = np.array(table) / n
        slopes = np.array([(kappa(shares + 1e-6 * e) - kappa(shares - 1e-6 * e)) / 2e-6 for e in np.eye(4)])
        error = np.sqrt((shares @ slopes**2 - (shares @ slopes) ** 2) / n)
        result = compare.cohens_kappa(np.array(table))
        assert (result.value - result.low) / 1.959964 == pytest.approx(error, rel=1e-6)
        assert (result.high - result.value) / 1.959964 == pytest.approx(error, rel=1e-6)


def test_kappa_of_fleiss_is_symmetric_and_absent_without_variation():
    generator = np.random.RandomState(1)
    first, second = generator.rand(50) < 0.6, generator.rand(50) < 0.4
    assert compare.agreement(first, second).kappa == pytest.approx(compare.agreement(second, first).kappa)
    all_right = np.ones(9, bool)
    assert np.isnan(compare.agreement(all_right, all_right).kappa.value)
    assert compare.agreement(first, first).kappa == pytest.approx((1, 1, 1))


def test_the_interval_over_seeds_is_the_paired_t_tests():
    result = intervals.t_interval([0.02, 0.05, 0.03])
    expected = stats.ttest_1samp([0.02, 0.05, 0.03], 0)
    interval = expected.confidence_interval(0.95)
    assert (result.mean, result.p) == pytest.approx((0.1 / 3, expected.pvalue))
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    with pytest.raises(ValueError, match="needs at least 2"):
        intervals.t_interval([0.1])


def test_equal_values_of_seeds_have_the_interval_and_the_test_of_drawing_images():
    # One image of 797 in each of three seeds.
    error = float(intervals.paired_error(1, 1, 797))
    result = intervals.t_interval([1 / 797] * 3, [error] * 3, least=-1.0, most=1.0)
    assert result.p == pytest.approx(2 * stats.t.sf(np.sqrt(3) / 797 / error, 2))
    assert (result.mean, result.sd) == (pytest.approx(1 / 797), pytest.approx(0))
    assert result.high - result.mean == pytest.approx(stats.t.ppf(0.975, 2) * error / np.sqrt(3))
    assert result.low < 0 < result.high
    # p and interval agree on whether 0 is excluded.
    clear = intervals.t_interval([0.05] * 3, [0.01] * 3)
    assert clear.p == pytest.approx(2 * stats.t.sf(5 * np.sqrt(3), 2))
    assert clear.p < 0.05
    assert clear.low > 0
    # Without an error there is no test.
    assert np.isnan(intervals.t_interval([0.1 + 0.2, 0.3, 0.3]).p)
    # 0 of 600 in each of three seeds: a bound above 0, and none below.
    zero = intervals.t_interval([0.0] * 3, [metrics.error_of_mean(np.array([0]), np.array([600]))] * 3, least=0.0)
    assert zero.low == 0 < zero.high < 0.01
    # A deviation over seeds above the floor is taken as it is, and intervals stay inside what is possible.
    wide = intervals.t_interval([0.9, 0.99], [0.01, 0.01], least=0.0, most=1.0)
    assert (wide.low, wide.high) == (pytest.approx(0.945 - stats.t.ppf(0.975, 1) * 0.045), 1)


def test_one_seed_in_favour_does_not_make_a_method_better():
    generator = np.random.RandomState(0)
    labels = np.repeat([0, 1, 2], 50)

    def seed(gain):
        base = generator.rand(150) < 0.5
        return compare.compare(base | (generator.rand(150) < gain), base, labels, 4, np.array([9, 5, 2, 1]))

    comparisons = [seed(gain) for gain in (0.6, 0.02, 0.05)]
    assert comparisons[0].overall.test.p < 1e-4
    columns = [{"clean": c.overall} for c in comparisons]
    result = seeds.over_seeds(comparisons, columns, [[9, 5, 2, 1]] * 3, primary="head_third")
    assert result.views["overall"].low < 0 < result.views["overall"].mean
    assert {"balanced", "head_third", "worst"} <= set(result.views)
    assert [entry.class_index for entry in result.per_class] == [0, 1, 2]
    assert result.columns["clean"].high == result.views["overall"].high
    # The primary comparison is not corrected, all others are, with each other; worst classes have no test.
    assert result.primary == "head_third"
    assert {name for name, view in result.views.items() if np.isnan(view.p_holm)} == {"head_third", "worst"}
    assert all(view.p <= view.p_holm for name, view in result.views.items() if name not in ("head_third", "worst"))
    assert seeds.over_seeds(comparisons, columns, [[9, 5, 2, 1]] * 3, primary="tail_third").primary is None
    with pytest.raises(ValueError, match="needs at least 2"):
        seeds.over_seeds(comparisons[:1], [{"clean": comparisons[0].overall}], [None])
