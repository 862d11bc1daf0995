"""How unequal the classes of a model are, and how alike two orders of classes are. NumPy and SciPy only.

Intervals are 95 % percentiles of 2,000 bootstrap draws, in which images are resampled inside each class: "other test
images of the same classes". Columns are resampled together, so differences between them are paired. Measures of
inequality (variance, deviation) are biased up by the noise of few images, and a draw adds noise once more; an interval
therefore need not hold its value. Extremes have other intervals (`intervals.lowest`), for which this would be worst.
"""

import math
from typing import Any

import numpy as np
from scipy import stats

from ltrobust.analysis import intervals, metrics
from ltrobust.analysis.intervals import Estimate

DRAWS = 2000
MEASURES = ("mean", "worst", "worst10", "best", "range", "var", "sd", "nsd")
_CELLS = 4_000_000  # of the arrays over pairs of classes that are held at a time


def accuracies(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Class accuracies of K columns, float64 [K, G]; right is bool [N, K], the G classes are those with images."""
    return np.stack([right[labels == label].sum(axis=0) / np.sum(labels == label) for label in np.unique(labels)], -1)


def resample(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`accuracies` in each bootstrap draw, float64 [2000, K, G]; does not depend on the order of the images.

    A draw of n_c images matters only through how often each pattern of outcomes over the columns occurs in it, so it is
    multinomial.

    Args:
      right: whether each image is right in each column, bool [N, K].
      labels: true classes, integers [N].
    """
    generator = np.random.RandomState(0)
    drawn = []
    for label in np.unique(labels):
        # Whole rows are drawn, so an image keeps its outcomes in all columns and differences between columns stay
        # paired.
        patterns, counts = np.unique(right[labels == label], axis=0, return_counts=True)
        number = counts.sum()
        drawn.append(generator.multinomial(number, counts / number, size=DRAWS) @ patterns.astype(float) / number)
    return np.stack(drawn, axis=-1)


def spread(accuracies: np.ndarray) -> dict[str, np.ndarray]:
    """Measures over classes, float64 [..., G] -> [...] each, in the order of `MEASURES`.

    With class accuracies a_c, `mean` = mean_c a_c; `worst` and `best` are the extremes and `range` their difference;
    `worst10` is the mean of the lowest ceil(G/10); `var` = mean_c (a_c - mean)^2, `sd` = sqrt(var), `nsd` = sd / mean
    (NaN where that is 0).
    """
    ordered = np.sort(accuracies, axis=-1)
    mean, deviation = ordered.mean(axis=-1), ordered.std(axis=-1)
    lowest = ordered[..., : metrics.lowest_tenth(ordered.shape[-1])].mean(axis=-1)
    nsd = np.divide(deviation, mean, out=np.full(np.shape(mean), np.nan), where=mean > 0)
    worst, best = ordered[..., 0], ordered[..., -1]
    values = (mean, worst, lowest, best, best - worst, deviation**2, deviation, nsd)
    return dict(zip(MEASURES, values, strict=True))


def rho(mean: Any, worst: Any, baseline_mean: Any, baseline_worst: Any) -> np.ndarray:
    """`(worst - worst_b) / worst_b - (mean_b - mean) / mean_b`: what the worst class gains, less what the mean loses.

    Both relative to a baseline b; NaN where one of the baseline's is 0. The formula behind the values that DAFA (Lee et
    al., ICLR 2024) prints.
    """
    gains = []
    for value, baseline in ((worst, baseline_worst), (mean, baseline_mean)):
        value, baseline = np.broadcast_arrays(np.asarray(value, float), np.asarray(baseline, float))
        gains.append(np.divide(value - baseline, baseline, out=np.full(value.shape, np.nan), where=baseline > 0))
    return gains[0] + gains[1]


def rho_estimate(counts: metrics.ClassCounts, baseline: metrics.ClassCounts) -> Estimate:
    """`rho` of two networks' counts, of classes with images, with a simultaneous interval.

    `rho = worst / worst_b + mean / mean_b - 2`, and each of the four is between its bounds with probability 0.9875 or
    more: the worst between exact bounds of all classes, the mean between normal ones. The upper end is NaN, for no
    bound, where the baseline's worst class may be 0.
    """
    alpha, parts = intervals.ALPHA / 4, []
    for correct, total in (counts, baseline):
        accuracy = correct / total
        low, high = intervals.exact_bounds(correct, total, alpha / len(total))
        half = intervals.quantile(alpha) * metrics.error_of_mean(correct, total)
        worst = Estimate(float(accuracy.min()), float(low.min()), float(high.min()))
        mean = float(accuracy.mean())
        parts.append((worst, Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))))
    (worst, mean), (base_worst, base_mean) = parts
    value = float(rho(mean.value, worst.value, base_mean.value, base_worst.value))
    least = worst.low / base_worst.high + mean.low / base_mean.high - 2
    bounded = base_worst.low > 0 and base_mean.low > 0
    most = worst.high / base_worst.low + mean.high / base_mean.low - 2 if bounded else math.nan
    return Estimate(value, least, most)


def spearman(values: np.ndarray) -> np.ndarray:
    """Spearman's rank correlations between rows, [..., K, G] -> [..., K, K]; ties share a rank, NaN for a constant."""
    return pearson(stats.rankdata(values, axis=-1))


def pearson(values: np.ndarray) -> np.ndarray:
    """Pearson's correlations between rows, [..., K, G] -> [..., K, K]; NaN for a constant row."""
    # A constant row would be left with rounding errors.
    moving = np.ptp(values, axis=-1, keepdims=True) > 0
    return _cosines(np.where(moving, values - values.mean(axis=-1, keepdims=True), 0.0))


def kendall(values: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between rows, [..., K, G] -> [..., K, K]; NaN for a constant row.

    Tau-b is the cosine between two rows' vectors of sign(a_i - a_j) over the pairs of classes i < j.
    """
    first, second = np.triu_indices(values.shape[-1], 1)
    # Ranks have the same order and are exact in half the memory.
    flat = stats.rankdata(values, axis=-1).astype(np.float32).reshape(-1, *values.shape[-2:])
    # In parts, because the pairs of 200 classes in 2,000 draws would take gigabytes.
    step = max(1, _CELLS // max(1, flat.shape[1] * len(first)))
    parts = [
        _cosines(np.sign(flat[at : at + step, :, first] - flat[at : at + step, :, second]))
        for at in range(0, len(flat), step)
    ]
    return np.concatenate(parts).reshape(*values.shape[:-1], values.shape[-2])


def _cosines(rows: np.ndarray) -> np.ndarray:
    """Cosines between rows, [..., K, P] -> [..., K, K]; NaN where one is 0."""
    products = rows @ np.swapaxes(rows, -1, -2)
    lengths = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    scale = lengths[..., :, None] * lengths[..., None, :]
    return np.clip(np.divide(products, scale, out=np.full(products.shape, np.nan), where=scale > 0), -1.0, 1.0)
