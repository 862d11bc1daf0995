"""Numbers over several training seeds: means of one method, and paired differences of two. NumPy and SciPy only.

McNemar's test speaks of two trained networks; whether one method beats another is a question over training runs. Each
seed gives one difference of the two methods, and the differences of the seeds are the sample. Seeds share one test set:
the intervals do not speak of other test images. Against seeds that agree by chance, no deviation over seeds is taken to
be below that of drawing the images for one of them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ltrobust.analysis import metrics
from ltrobust.analysis.intervals import Estimate, SeedMean, holm, paired_error, t_interval
from ltrobust.analysis.schema.comparison import ClassSeedDifference, SeedComparison, SeedDifference
from ltrobust.analysis.schema.network import Column
from ltrobust.analysis.schema.paired import ColumnDifference, Difference, PairedComparison, PairedTest

# The primary comparison, if a sweep declares no other. All others are exploratory.
PRIMARY_PROTOCOL, PRIMARY_VIEW = "standard", "tail_third"
LOWEST = ("worst", "worst10")  # views that are minima


def primary_note(protocol: str) -> str:
    """Whether a comparison under a protocol holds the primary one, in a sentence."""
    what = f"The primary comparison is that of tail accuracy in the headline of {PRIMARY_PROTOCOL}"
    if protocol == PRIMARY_PROTOCOL:
        return f"{what}; all others are exploratory."
    return f"{what}: it is missing, these verdicts are of {protocol}. All comparisons here are exploratory."


def of_columns(columns: Sequence[Column], view: str, training_counts: Sequence[int]) -> SeedMean:
    """Mean of a view of accuracies over seeds, between 0 and 1.

    Args:
      columns: one per seed, at least two.
      view: `overall`, `balanced`, `worst`, `worst10` or a group of `metrics.groups`.
      training_counts: training images per class, by which groups are made.
    """
    if view in LOWEST:
        return _of_lowest([_estimate(column, view) for column in columns], least=0.0)
    errors = [_error(column, view, training_counts) for column in columns]
    return t_interval([column.value(view) for column in columns], errors, least=0.0, most=1.0)


def of_differences(
    pairs: Sequence[tuple[Column, Column]],
    view: str,
    training_counts: Sequence[int],
    differ: Sequence[np.ndarray | None] = (),
) -> SeedMean:
    """Mean over seeds of the first column's view minus the second's, of two networks on the same test images.

    Args:
      pairs: one per seed, at least two.
      view, training_counts: as of `of_columns`.
      differ: of each pair the images per class that only one network gets right, [C], or None where they are not known
        (`error_of_difference`); empty where none is.
    """
    if view in LOWEST:
        each = [(_estimate(first, view), _estimate(second, view)) for first, second in pairs]
        return _of_lowest([Estimate(a.value - b.value, a.low - b.high, a.high - b.low) for a, b in each], least=-1.0)
    values = [first.value(view) - second.value(view) for first, second in pairs]
    known = differ or [None] * len(pairs)
    errors = [error_of_difference(*pair, view, training_counts, m) for pair, m in zip(pairs, known, strict=True)]
    return t_interval(values, errors, least=-1.0, most=1.0)


def _of_lowest(found: Sequence[Estimate], *, least: float) -> SeedMean:
    """Mean over seeds of worst classes, or of differences of worst classes, each with an interval over test images.

    The lowest of noisy accuracies is below the true one by an amount that depends on the network, and a mean over seeds
    keeps that. So the ends are the lower end of the lows' t-interval and the upper end of the highs': the lows lie
    below the true values, and so does their mean. There is no test.
    """
    values = t_interval([each.value for each in found])
    low, high = t_interval([each.low for each in found]).low, t_interval([each.high for each in found]).high
    return SeedMean(values.mean, values.sd, max(least, low), min(1.0, high), math.nan)


def _estimate(column: Column, view: str) -> Estimate:
    """Worst class or lowest classes of a network with their simultaneous interval."""
    found = column.view(view)
    assert found is not None
    return Estimate(found.value, found.low, found.high)


def over_seeds(
    comparisons: Sequence[PairedComparison],
    columns: Sequence[Mapping[str, ColumnDifference]],
    training_counts: Sequence[Sequence[int] | None],
    *,
    primary: str | None = None,
) -> SeedComparison:
    """Every view of several paired comparisons, one per seed, with its t-interval.

    Args:
      comparisons: of `compare.compare`, each of the two methods' runs of one seed.
      columns: of `flips.by_column`, in the same order.
      training_counts: training images per class, by which the groups of each comparison are made; None without groups.
      primary: the view that was decided on beforehand; Holm's correction of the views leaves it out.

    Raises:
      ValueError: fewer than two seeds.
    """
    first = comparisons[0]
    seen = [entry.class_index for entry in first.per_class if entry.images]
    views: dict[str, Sequence[Difference]] = {
        "overall": [c.overall for c in comparisons],
        "balanced": [c.balanced for c in comparisons],
    }
    views |= {name: [c.groups[name] for c in comparisons] for name in first.groups}
    each = list(zip(comparisons, training_counts, strict=True))
    joined = {n: _joined(result, [exact_error(c, n, counts) for c, counts in each]) for n, result in views.items()}
    joined["worst"] = _joined_lowest([c.worst for c in comparisons])
    entries = [[c.per_class[index] for c in comparisons] for index in seen]
    classes = [_joined(result, [_error_of_test(entry.test, entry.images) for entry in result]) for result in entries]
    views_of = [[c[name] for c in columns] for name in columns[0]]
    images = [c.images for c in comparisons]
    by_column = [
        _joined(result, [_error_of_test(view.test, n) for view, n in zip(result, images, strict=True)])
        for result in views_of
    ]
    exploratory = [name for name in joined if name != primary]
    corrected = _corrected([joined[name] for name in exploratory])
    return SeedComparison(
        seeds=len(comparisons),
        primary=primary if primary in joined else None,
        views=joined | dict(zip(exploratory, corrected, strict=True)),
        per_class=[
            ClassSeedDifference(**vars(entry), class_index=index)
            for index, entry in zip(seen, _corrected(classes), strict=True)
        ],
        columns=dict(zip(columns[0], _corrected(by_column), strict=True)),
    )


def _joined(found: Sequence[Difference], errors: Sequence[float]) -> SeedDifference:
    """One view over seeds, from the differences and their standard errors over test images."""
    values = [view.difference for view in found]
    return SeedDifference(values, *t_interval(values, errors, least=-1.0, most=1.0), p_holm=math.nan)


def _joined_lowest(found: Sequence[Difference]) -> SeedDifference:
    """The worst class over seeds, from each seed's difference with its simultaneous interval."""
    each = [Estimate(view.difference, view.low, view.high) for view in found]
    return SeedDifference([view.value for view in each], *_of_lowest(each, least=-1.0), p_holm=math.nan)


def _corrected(family: Sequence[SeedDifference]) -> list[SeedDifference]:
    """A family of differences with `p_holm` over it."""
    corrected = holm(np.array([entry.p for entry in family]))
    return [dataclasses.replace(entry, p_holm=float(p)) for entry, p in zip(family, corrected, strict=True)]


def _error_of_test(test: PairedTest | None, images: int) -> float:
    """Standard error over test images of the paired difference of pooled images."""
    assert test is not None  # of classes with images
    return paired_error(test.b + test.c, test.b - test.c, images)


def exact_error(comparison: PairedComparison, view: str, training_counts: Sequence[int] | None) -> float:
    """Standard error over test images of one seed's paired difference.

    Args:
      comparison: of the seed.
      view: `overall`, `balanced` or a group of `metrics.groups`.
      training_counts: training images per class, by which groups are made; None where there are no groups.
    """
    classes = comparison.per_class
    total = np.array([entry.images for entry in classes])
    shares = np.array([(entry.first, entry.second) for entry in classes])
    first, second = np.rint(np.nan_to_num(shares).T * total).astype(np.int64)  # NaN: a class without images
    differ = np.array([entry.test.b + entry.test.c if entry.test else 0 for entry in classes])
    return _error_of_difference(first, second, differ, total, view, training_counts)


def _error(column: Column, view: str, training_counts: Sequence[int]) -> float:
    """Standard error over test images of a view's accuracy."""
    correct, total = np.array(column.correct), np.array(column.total)
    if view == "overall":
        return metrics.error_of_mean(correct.sum(keepdims=True), total.sum(keepdims=True))
    chosen = _members(total, view, training_counts)
    return metrics.error_of_mean(correct[chosen], total[chosen])


def error_of_difference(
    first: Column, second: Column, view: str, training_counts: Sequence[int], differ: np.ndarray | None = None
) -> float:
    """Standard error over test images of the difference of two networks' accuracies on the same images.

    Cards have counts, which do not tell on how many images the networks differ. Without `differ` their verdicts are
    taken as independent, `sqrt(e_1^2 + e_2^2)`: more than the error of networks that agree more often than by chance,
    as networks of the same task do.

    Args:
      first, second: of the networks.
      view: `overall`, `balanced` or a group of `metrics.groups`.
      training_counts: training images per class, by which groups are made.
      differ: images per class that only one of the networks gets right, [C]; None where they are not known.
    """
    if differ is None:
        return math.hypot(*(_error(column, view, training_counts) for column in (first, second)))
    one, two, total = np.array(first.correct), np.array(second.correct), np.array(first.total)
    return _error_of_difference(one, two, differ, total, view, training_counts)


def _error_of_difference(
    first: np.ndarray,
    second: np.ndarray,
    differ: np.ndarray,
    total: np.ndarray,
    view: str,
    training_counts: Sequence[int] | None,
) -> float:
    """Standard error over test images of a view's paired difference.

    Args:
      first, second: images per class that each network gets right, [C].
      differ: images per class that only one of them gets right, [C].
      total: images per class, [C].
      view: `overall`, `balanced` or a group of `metrics.groups`.
      training_counts: by which groups are made.
    """
    if view == "overall":
        return paired_error(differ.sum(), (first - second).sum(), total.sum())
    chosen = _members(total, view, training_counts)
    return paired_error(differ[chosen], (first - second)[chosen], total[chosen])


def _members(total: np.ndarray, view: str, training_counts: Sequence[int] | None) -> np.ndarray:
    """The classes with test images that a view is the mean of."""
    present = np.flatnonzero(total)
    return present if view == "balanced" else np.intersect1d(present, metrics.groups(np.array(training_counts))[view])
