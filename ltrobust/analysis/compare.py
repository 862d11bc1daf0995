"""Two models on the same images: paired differences, their intervals and tests. NumPy and SciPy only.

Always preferred to comparing two separate intervals: images that both models resist, or neither, say nothing
about a difference and drop out. `b` counts images that only the first model gets right, `c` those that only the second
does. Accuracies are fractions in [0, 1], differences are first minus second, intervals are 95 %.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ltrobust.analysis import intervals, metrics
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.paired import (
    Agreement,
    ClassDifference,
    GroupDifference,
    PairedComparison,
    PairedTest,
    PooledDifference,
    WorstDifference,
)

# Columns of a table of outcomes [C, 4].
_BOTH, _ONLY_FIRST, _ONLY_SECOND, _NEITHER = range(4)


class McNemar(NamedTuple):
    """Two-sided p-values of "both models are right equally often", in [0, 1]."""

    p: float
    mid_p: float


def mcnemar(b: int, c: int) -> McNemar:
    """McNemar's exact test and its mid-p variant, from the numbers of images that only one model gets right.

    With `k = min(b, c)` and `X ~ Binomial(b + c, 1/2)`: `p = min(1, 2 P(X <= k))` and `mid_p = 2 P(X <= k) - P(X = k)`;
    both are 1 for `b == c`. The exact p never rejects more often than promised; mid-p is less conservative.
    Source: McNemar 1947; mid-p as in Fagerland, Lydersen and Laake 2013 (doi:10.1186/1471-2288-13-91).

    Raises:
      ValueError: a count is negative.
    """
    if b < 0 or c < 0:
        raise ValueError(f"b = {b}, c = {c}: counts of images are 0 or more; pass counts, not differences.")
    # Exactly 1, which the formula gives up to rounding only.
    if b == c:
        return McNemar(1.0, 1.0)
    up_to, below = (float(value) for value in stats.binom.cdf([min(b, c), min(b, c) - 1], b + c, 0.5))
    return McNemar(min(1.0, 2 * up_to), min(1.0, up_to + below))


def compare(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    training_counts: np.ndarray | None = None,
) -> PairedComparison:
    """Paired comparison of two models' verdicts on the same images.

    The result does not depend on the order of the images, and swapping the models changes signs and nothing else.

    Args:
      first: whether the first model is (still) right, bool [N].
      second: the same for the second model, in the same order of images, bool [N].
      labels: true classes, integers [N] in [0, num_classes).
      num_classes: C.
      training_counts: training images per class [C]; asks for the groups of `metrics.groups`.

    Pooled images and single classes have the interval of `intervals.paired_bounds`, means over classes the normal one
    with `intervals.paired_error`, the worst classes that of `intervals.lowest_difference`.

    Raises:
      ValueError: no images, lengths that differ, verdicts that are not bool, labels that are not integers in
        [0, num_classes), or training counts of another number of classes.
    """
    _check(first, second, labels, num_classes, training_counts)
    table = outcomes(first, second, labels, num_classes)
    present = np.flatnonzero(table.sum(axis=1))
    seen = table[present]
    groups = {}
    for name, members in ({} if training_counts is None else metrics.groups(training_counts)).items():
        chosen = np.flatnonzero(np.isin(present, members))
        if len(chosen):
            groups[name] = _group(seen[chosen])
    return PairedComparison(
        images=len(labels),
        overall=PooledDifference(**_pooled(seen.sum(axis=0))),
        balanced=_group(seen),
        groups=groups,
        worst=worst(seen, present),
        per_class=_per_class(table),
        classes_without_images=np.flatnonzero(table.sum(axis=1) == 0).tolist(),
    )


def overall(first: np.ndarray, second: np.ndarray) -> PooledDifference:
    """`compare`'s view `overall` alone: both accuracies, their difference with its interval, McNemar's test.

    Raises:
      ValueError: as `compare`.
    """
    labels = np.zeros(len(first), np.int64)
    _check(first, second, labels, 1, None)
    return PooledDifference(**_pooled(outcomes(first, second, labels, 1).sum(axis=0)))


def agreement(first: np.ndarray, second: np.ndarray) -> Agreement:
    """How far two models are right on the same images: shares and Cohen's kappa with its 95 % interval.

    With shares `p_ij` of the four outcomes and margins `p_i.`, `p_.j`: `kappa = (p_o - p_e) / (1 - p_e)`, where
    `p_o = sum_i p_ii` and `p_e = sum_i p_i. p_.i`; 1 is full agreement, 0 what chance gives. The interval is normal, of
    the standard error of Fleiss, Cohen and Everitt 1969 (doi:10.1037/h0028106), equation 13. Kappa and its interval are
    NaN where one outcome has all images, and so no agreement is beyond chance.

    Raises:
      ValueError: as `compare`.
    """
    labels = np.zeros(len(first), np.int64)
    _check(first, second, labels, 1, None)
    counts = outcomes(first, second, labels, 1).sum(axis=0)
    both, only_first, only_second, neither = (counts / counts.sum()).tolist()
    return Agreement(int(counts.sum()), both, only_first, only_second, neither, cohens_kappa(counts))


def cohens_kappa(counts: np.ndarray) -> Estimate:
    """Cohen's kappa of the numbers `[both, only_first, only_second, neither]`, with its interval, see `agreement`."""
    n = counts.sum()
    table = counts.reshape(2, 2) / n
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed, expected = float(np.trace(table)), float(rows @ columns)
    if 1 - expected < 1e-12:
        return Estimate(math.nan, math.nan, math.nan)
    kappa = (observed - expected) / (1 - expected)
    agree = np.diag(table) @ (1 - (rows + columns) * (1 - kappa)) ** 2
    # A cell's row and column change places: p_.i + p_j. of the formula.
    crossed = (columns[:, None] + rows[None, :]) ** 2 * table
    disagree = (1 - kappa) ** 2 * (crossed.sum() - np.trace(crossed))
    variance = (agree + disagree - (kappa - expected * (1 - kappa)) ** 2) / (n * (1 - expected) ** 2)
    return intervals.normal(kappa, max(0.0, float(variance)) ** 0.5, -1.0, 1.0)


def _check(first: Any, second: Any, labels: Any, num_classes: int, training_counts: Any) -> None:
    """Refuses what cannot be compared."""
    for name, verdicts in (("first", first), ("second", second)):
        if np.ndim(verdicts) != 1 or np.asarray(verdicts).dtype != np.bool_:
            raise ValueError(
                f"{name} is {np.asarray(verdicts).dtype} {list(np.shape(verdicts))}: verdicts are bool [N]; "
                "compare predictions with the labels before."
            )
    if not len(first) == len(second) == np.size(labels):
        raise ValueError(
            f"{len(first)} and {len(second)} verdicts for {np.size(labels)} labels: a paired comparison needs one of "
            "each per image; evaluate both models on the same images."
        )
    if len(first) == 0:
        raise ValueError("0 images: a comparison needs at least 1; evaluate both models on some.")
    metrics.check_classes("labels", labels, num_classes)
    if training_counts is not None:
        metrics.check_training_counts(training_counts, num_classes)


def outcomes(first: np.ndarray, second: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Images per class and outcome (both right, only the first, only the second, neither), int64 [C, 4]."""
    outcome = 2 * ~np.asarray(first) + 1 * ~np.asarray(second)
    return np.bincount(4 * np.asarray(labels, np.int64) + outcome, minlength=4 * num_classes).reshape(num_classes, 4)


def _accuracies(table: np.ndarray) -> np.ndarray:
    """Accuracies of both models per class, [..., C, 2], from outcomes [..., C, 4] of classes with images."""
    right = np.stack([table[..., _BOTH] + table[..., _ONLY_FIRST], table[..., _BOTH] + table[..., _ONLY_SECOND]], -1)
    return right / table.sum(axis=-1, keepdims=True)


def _test(outcomes: np.ndarray) -> PairedTest:
    """McNemar's test of outcomes [4]."""
    b, c = int(outcomes[_ONLY_FIRST]), int(outcomes[_ONLY_SECOND])
    return PairedTest(b, c, *mcnemar(b, c))


def _values(outcomes: np.ndarray) -> dict[str, float]:
    """Both accuracies and their difference from outcomes [4] of at least one image."""
    first, second = _accuracies(outcomes)
    b, c, n = outcomes[_ONLY_FIRST], outcomes[_ONLY_SECOND], outcomes.sum()
    return {"first": float(first), "second": float(second), "difference": float((b - c) / n)}


def _pooled(outcomes: np.ndarray) -> dict[str, Any]:
    """The fields of a `PooledDifference`: pooled images, with the interval of the paired difference."""
    low, high = intervals.paired_bounds(outcomes[_ONLY_FIRST], outcomes[_ONLY_SECOND], outcomes.sum())
    return _values(outcomes) | {"low": float(low), "high": float(high), "test": _test(outcomes)}


def mean_difference(table: np.ndarray) -> Estimate:
    """Mean accuracy over classes, first model minus second, from outcomes of classes with images, [G, 4]."""
    first, second = _accuracies(table).mean(axis=0)
    only_first, only_second = table[:, _ONLY_FIRST], table[:, _ONLY_SECOND]
    error = intervals.paired_error(only_first + only_second, only_first - only_second, table.sum(axis=1))
    return intervals.normal(float(first - second), error, -1.0, 1.0)


def _group(table: np.ndarray) -> GroupDifference:
    """Means over classes with images, from their outcomes [G, 4], and McNemar's test of their pooled images."""
    first, second = _accuracies(table).mean(axis=0)
    pooled = table.sum(axis=0)
    difference, low, high = mean_difference(table)
    return GroupDifference(
        first=float(first),
        second=float(second),
        difference=difference,
        low=low,
        high=high,
        classes=len(table),
        images=int(pooled.sum()),
        test=_test(pooled),
    )


def worst(table: np.ndarray, present: np.ndarray) -> WorstDifference:
    """Each model's worst class, and the difference of their accuracies with a simultaneous interval.

    Args:
      table: of `outcomes`, of the G classes with images, [G, 4].
      present: the labels of these classes, [G].
    """
    accuracies = _accuracies(table)
    first, second = accuracies.min(axis=0)
    first_class, second_class = present[accuracies.argmin(axis=0)]
    difference, low, high = intervals.lowest_difference(table)
    return WorstDifference(
        first=float(first),
        second=float(second),
        difference=difference,
        low=low,
        high=high,
        first_class=int(first_class),
        second_class=int(second_class),
    )


def _per_class(table: np.ndarray) -> list[ClassDifference]:
    """Every class for itself, p-values raw and corrected."""
    absent: dict[str, Any] = dict.fromkeys(("first", "second", "difference", "low", "high"), math.nan)
    absent["test"] = None
    views = [_pooled(outcomes) if outcomes.any() else absent for outcomes in table]
    # The correction covers classes with images only: a test that was not made must not weaken the others.
    corrected = intervals.holm(np.array([view["test"].p if view["test"] else np.nan for view in views]))
    return [
        ClassDifference(
            **view, class_index=index, images=int(outcomes.sum()), p_holm=float(p) if view["test"] else math.nan
        )
        for index, (outcomes, view, p) in enumerate(zip(table, views, corrected, strict=True))
    ]
