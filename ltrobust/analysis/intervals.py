"""Confidence intervals, and the correction of many tests: the one place for both. NumPy and SciPy only.

Metrics, comparisons, diagnoses, pages and tools all call these functions. Intervals are two-sided with a confidence of
95 %; `alpha` is the chance of a miss.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ltrobust.runtime.typed_json import Number

ALPHA = 0.05


def quantile(alpha: float = ALPHA) -> float:
    """The z that a standard normal variable exceeds in absolute value with probability `alpha`."""
    return float(-special.ndtri(alpha / 2))


Z = quantile()


class Estimate(NamedTuple):
    """A value with its interval.

    Attributes:
      value: NaN where there is nothing to compute it from; in JSON null.
      low, high: the 95 % interval.
    """

    value: Number
    low: Number
    high: Number


class SeedMean(NamedTuple):
    """Mean over training seeds with its interval.

    Attributes:
      mean: of the values.
      sd: sample deviation of the values, with n - 1.
      low, high: ends of the interval of the mean.
      p: two-sided, of "the mean is 0", with the standard error of the interval; NaN where that is 0.
    """

    mean: float
    sd: float
    low: float
    high: float
    p: float


def wilson_bounds(
    correct: np.ndarray | int, total: np.ndarray | int, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Wilson's score interval of proportions, element by element; NaN for no images.

    Centre `(k + z^2/2) / (n + z^2)`, half-width `z sqrt(k(n-k)/n + z^2/4) / (n + z^2)`. SciPy's `binomtest` has the
    same interval for one proportion; this is for whole arrays.
    """
    z, k = quantile(alpha), np.asarray(correct, np.float64)
    n = np.where(np.asarray(total) > 0, np.asarray(total, np.float64), np.nan)
    centre, half = k + z**2 / 2, z * np.sqrt(k * (n - k) / n + z**2 / 4)
    return np.maximum(0.0, (centre - half) / (n + z**2)), np.minimum(1.0, (centre + half) / (n + z**2))


def wilson(correct: int, total: int) -> Estimate:
    """A proportion with Wilson's score interval; value and ends are NaN for no images."""
    k, n = int(correct), int(total)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    low, high = wilson_bounds(k, n)
    return Estimate(k / n, float(low), float(high))


def exact_bounds(correct: np.ndarray, total: np.ndarray, alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Ends of Clopper and Pearson's interval of proportions of at least one image, element by element.

    It misses with probability `alpha` at most, whatever the true proportion is. Wilson's misses about as often on
    average, and more often near 0 and 1, which at the small `alpha` of many classes is felt.
    """
    k, n = np.asarray(correct, np.float64), np.asarray(total, np.float64)
    # Beta distributions have no parameter of 0: without a right (or wrong) image the end is 0 (or 1).
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, alpha / 2), 0.0)
    high = np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1), 1 - alpha / 2), 1.0)
    return low, high


def normal(value: float, error: float, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """`value -+ 1.96 error`, cut at `least` and `most`."""
    return Estimate(value, max(value - Z * error, least), min(value + Z * error, most))


def percentile(value: float, drawn: np.ndarray) -> Estimate:
    """A value with the percentile interval of its bootstrap draws, of those that are not NaN."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, [50 * ALPHA, 100 - 50 * ALPHA]) if len(known) else (math.nan, math.nan)
    return Estimate(float(value), float(low), float(high))


def correlation_bounds(value: float, number: int, *, ranks: bool) -> tuple[float, float]:
    """Ends of `tanh(artanh r -+ z s)` for a correlation of `number` pairs, more than 3.

    `s = 1 / sqrt(n - 3)` for Pearson's (Fisher), `sqrt((1 + r^2 / 2) / (n - 3))` for Spearman's (Bonett, Wright 2000).
    NaN for a correlation that is NaN, as that with a constant.
    """
    if math.isnan(value):
        return math.nan, math.nan  # `max` and `min` below would make it -1
    # A correlation of exactly 1 would have an infinite centre.
    centre = math.atanh(min(1 - 1e-9, max(-1 + 1e-9, value)))
    deviation = math.sqrt((1 + value**2 / 2 if ranks else 1) / (number - 3))
    return math.tanh(centre - Z * deviation), math.tanh(centre + Z * deviation)


def paired_error(differ: np.ndarray | int, difference: np.ndarray | int, total: np.ndarray | int) -> float:
    """Standard error of a paired difference of two networks' mean accuracies over G classes with images, never 0.

    With `n_c' = n_c + 2 / G`: `sqrt(sum_c ((m_c + 1 / G) - d_c^2 / n_c') / n_c'^2) / G`. Half an image is added to each
    of the four outcomes, as in Agresti and Min 2005 (doi:10.1002/sim.1781), and divided evenly between the classes: of
    one class, or pooled images, `sqrt((m + 1) - d^2 / (n + 2)) / (n + 2)`.

    Args:
      differ: m_c, images that only one of the networks gets right, [G] or one number of pooled images.
      difference: d_c, how many more the first gets right than the second, the same.
      total: n_c, images, the same.
    """
    m, d, n = (np.atleast_1d(np.asarray(values, np.float64)) for values in (differ, difference, total))
    classes = len(n)
    n = n + 2 / classes
    return math.sqrt(float(np.sum((m + 1 / classes - d**2 / n) / n**2))) / classes


def t_interval(
    values: Sequence[float] | np.ndarray,
    errors: Sequence[float] | np.ndarray = (),
    *,
    least: float = -math.inf,
    most: float = math.inf,
) -> SeedMean:
    """Mean over training seeds with `mean -+ t_{0.975, n-1} s / sqrt(n)`, and the t-test of "the mean is 0".

    Equal values of few seeds do not show that seeds do not matter: accuracies are multiples of one image. So `s` is the
    sample deviation, but at least what drawing the test images makes of one value. Without `errors`, equal values have
    an interval without width and no p.

    Args:
      values: one per seed.
      errors: standard error over test images of each value; empty where there is none.
      least, most: what the mean can be, at which the interval is cut.

    Raises:
      ValueError: fewer than two values.
    """
    result = np.asarray(values, np.float64)
    if result.ndim != 1 or len(result) < 2:
        raise ValueError(f"{result.size} difference(s): an interval over seeds needs at least 2; train more seeds.")
    mean, sd, freedom = float(result.mean()), float(result.std(ddof=1)), len(result) - 1
    floor = math.sqrt(float(np.mean(np.square(errors)))) if len(errors) else 0.0
    error = max(sd, floor) / math.sqrt(len(result))
    half = float(special.stdtrit(freedom, 1 - ALPHA / 2)) * error
    # Values that differ by rounding only are equal.
    p = math.nan if error < 1e-12 else float(2 * special.stdtr(freedom, -abs(mean) / error))
    return SeedMean(mean, sd, max(least, mean - half), min(most, mean + half), p)


def lowest(correct: np.ndarray, total: np.ndarray, number: int) -> Estimate:
    """Mean of the `number` lowest of C class accuracies (1: the worst class), with a simultaneous interval.

    With probability 0.95 all C true accuracies lie between their exact bounds L_c and U_c at once, since each misses
    with probability 0.05 / C at most (Bonferroni). The mean of the lowest k is the least mean over all choices of k
    classes, so it does not fall where no accuracy falls: its true value then lies between that of all L_c and that of
    all U_c, for the worst class `[min_c L_c, min_c U_c]`. Resampling images does not give such an interval: the least
    of noisy accuracies is below the least true accuracy, and that of resampled ones is lower still.

    Args:
      correct, total: of classes with images, [C].
      number: k, at least 1.
    """
    low, high = exact_bounds(correct, total, ALPHA / len(total))
    value, least, most = (float(np.sort(each)[:number].mean()) for each in (np.divide(correct, total), low, high))
    return Estimate(value, least, most)


def highest_and_range(correct: np.ndarray, total: np.ndarray) -> tuple[Estimate, Estimate]:
    """The highest of C class accuracies, and it minus the lowest, with intervals from the same bounds as `lowest`."""
    low, high = exact_bounds(correct, total, ALPHA / len(total))
    shares = np.divide(correct, total)
    best = Estimate(float(shares.max()), float(low.max()), float(high.max()))
    least = max(0.0, float(low.max() - high.min()))
    return best, Estimate(float(np.ptp(shares)), least, float(high.max() - low.min()))


def range_difference(outcomes: np.ndarray) -> Estimate:
    """Range of a first network's class accuracies minus that of a second one's, on the same images.

    It is the difference of the highest minus that of the lowest, each with probability 0.975. The highest accuracy is 1
    minus the lowest share of wrong images, so that `lowest_difference` gives both.

    Args:
      outcomes: as of `lowest_difference`, [C, 4].
    """
    worst, wrong = (lowest_difference(table, ALPHA / 2) for table in (outcomes, outcomes[:, ::-1]))
    # max p - max q = -(min (1 - p) - min (1 - q)).
    return Estimate(-wrong.value - worst.value, -wrong.high - worst.high, -wrong.low - worst.low)


def lowest_difference(outcomes: np.ndarray, alpha: float = ALPHA) -> Estimate:
    """Worst class accuracy of a first network minus that of a second one on the same images, with its interval.

    With probability 1 - alpha these 3 C statements hold at once, each missing with probability alpha / (3 C):
    `exact_bounds` of both networks' class accuracies p_c and q_c, and `paired_bounds` of every difference
    d_c = p_c - q_c. Then, with a the true worst class of the first network and b that of the second:

    - `min p - min q` lies between the differences of the ends of `lowest`;
    - `min p - min q = p_a - q_b >= p_a - q_a = d_a`, and `<= p_b - q_b = d_b`. Which class a is, is not known, but only
      one whose lower bound is at most the least upper bound can be it; likewise b.

    The interval is what both leave. It holds the value, and is narrow where one class is the worst of both networks.
    `paired_bounds` rests on Wilson's bounds, which near 0 miss more often than such a small alpha says; in the
    simulations of `tests/analysis/test_intervals.py` the whole interval holds the true difference in 95 % or more.

    Args:
      outcomes: images of each class that both, only the first, only the second and neither network gets right, [C, 4].
      alpha: chance of a miss.
    """
    both, only_first, only_second, _ = outcomes.T
    total, alpha = outcomes.sum(axis=1), alpha / (3 * len(outcomes))
    first, second = (both + only_first) / total, (both + only_second) / total
    (low_1, high_1), (low_2, high_2) = (exact_bounds(both + only, total, alpha) for only in (only_first, only_second))
    low, high = paired_bounds(only_first, only_second, total, alpha)
    candidates_1, candidates_2 = low_1 <= high_1.min(), low_2 <= high_2.min()
    return Estimate(
        float(first.min() - second.min()),
        float(max(low_1.min() - high_2.min(), low[candidates_1].min())),
        float(min(high_1.min() - low_2.min(), high[candidates_2].max())),
    )


def paired_bounds(
    only_first: np.ndarray, only_second: np.ndarray, total: np.ndarray, alpha: float = ALPHA
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of paired differences of two proportions, element by element, from Wilson's bounds.

    The difference is that of the shares u and v of images that only one network gets right. Their distances to Wilson's
    bounds are joined as standard errors are, with the correlation `-sqrt(u v / ((1 - u) (1 - v)))` of two outcomes that
    exclude each other (Zou and Donner 2008, doi:10.1002/sim.3095). Not of zero width where no image differs.
    """
    u, v = only_first / total, only_second / total
    (low_u, high_u), (low_v, high_v) = (wilson_bounds(k, total, alpha) for k in (only_first, only_second))
    odds = np.divide(u * v, (1 - u) * (1 - v), out=np.zeros(np.shape(u)), where=(u < 1) & (v < 1))
    down_u, up_u, down_v, up_v = u - low_u, high_u - u, v - low_v, high_v - v
    below = np.sqrt(down_u**2 + 2 * np.sqrt(odds) * down_u * up_v + up_v**2)
    above = np.sqrt(up_u**2 + 2 * np.sqrt(odds) * up_u * down_v + down_v**2)
    return np.maximum(-1.0, u - v - below), np.minimum(1.0, u - v + above)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of a family of p-values, float64 [M]; NaN is no member and stays NaN.

    The i-th smallest of m (i from 0) becomes `max_{j <= i} min(1, (m - j) p_j)`: rejecting at 0.05 then keeps the
    chance of any false rejection in the family below 0.05, however the tests depend on each other.
    Source: Holm 1979.

    Raises:
      ValueError: not one-dimensional, or a value outside of [0, 1].
    """
    p = np.asarray(p, np.float64)
    if p.ndim != 1:
        raise ValueError(f"p-values of shape {list(p.shape)}: one axis is needed; correct one family at a time.")
    members = np.flatnonzero(~np.isnan(p))
    outside = p[members][(p[members] < 0) | (p[members] > 1)]
    if len(outside):
        raise ValueError(f"{outside[0]} is no p-value: they lie in [0, 1]; pass NaN for a test that was not made.")
    ascending = members[np.argsort(p[members], kind="stable")]
    corrected = np.full(p.shape, np.nan)
    steps = np.arange(len(members), 0, -1)
    corrected[ascending] = np.minimum(1.0, np.maximum.accumulate(steps * p[ascending]))
    return corrected
