"""Numbers over several training seeds: means of one method, and paired differences of two. NumPy and SciPy only.

McNemar's test speaks of two trained networks; whether one method beats another is a question over training runs. Each
seed gives one difference of the two methods, and the differences of the seeds are the sample. Seeds share one test set:
the intervals do not speak of other test images, but no deviation over seeds is taken to be below that of drawing them.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ltrobust.analysis import metrics
from ltrobust.analysis.intervals import SeedMean, holm, paired_error, t_interval
from ltrobust.analysis.schema.comparison import ClassSeedDifference, SeedComparison, SeedDifference
from ltrobust.analysis.schema.network import Column
from ltrobust.analysis.schema.paired import ColumnDifference, Difference, PairedComparison, PairedTest, WorstDifference

# What is compared by default, decided before any number is seen: of all others a comparison is exploratory.
PRIMARY_PROTOCOL, PRIMARY_VIEW = "standard", "tail_third"


def primary_note(protocol: str) -> str:
    """Whether a comparison under a protocol holds the primary one, in a sentence."""
    what = f"The primary comparison is that of tail accuracy in the headline of `{PRIMARY_PROTOCOL}`"
    if protocol == PRIMARY_PROTOCOL:
        return f"{what}; all others are exploratory."
    return f"{what}: it is missing, these verdicts are of `{protocol}`. All comparisons here are exploratory."


def of_columns(columns: Sequence[Column], view: str, training_counts: Sequence[int]) -> SeedMean:
    """Mean of a view of accuracies over seeds, between 0 and 1.

    Args:
      columns: one per seed, at least two.
      view: `overall`, `balanced`, `worst` or a group of `metrics.groups`.
      training_counts: training images per class, by which groups are made.
    """
    errors = [_error(column, view, training_counts) for column in columns]
    return t_interval([column.value(view) for column in columns], errors, least=0.0, most=1.0)


def of_differences(pairs: Sequence[tuple[Column, Column]], view: str, training_counts: Sequence[int]) -> SeedMean:
    """Mean over seeds of the first column's view minus the second's, of two networks on the same test images.

    Counts do not tell which images differ, only how many differ at least: as many as the counts of each class do.
    """
    values = [first.value(view) - second.value(view) for first, second in pairs]
    errors = [least_error(first, second, view, training_counts) for first, second in pairs]
    return t_interval(values, errors, least=-1.0, most=1.0)


def over_seeds(
    comparisons: Sequence[PairedComparison],
    columns: Sequence[Mapping[str, ColumnDifference]],
    *,
    primary: str | None = None,
) -> SeedComparison:
    """Every view of several paired comparisons, one per seed, with its t-interval.

    Args:
      comparisons: of `compare.compare`, each of the two methods' runs of one seed.
      columns: of `flips.by_column`, in the same order.
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
    views["worst"] = [c.worst for c in comparisons]
    joined = {name: _joined(comparisons, found) for name, found in views.items()}
    classes = [_joined(comparisons, [c.per_class[index] for c in comparisons]) for index in seen]
    by_column = [_joined(comparisons, [c[name] for c in columns]) for name in columns[0]]
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


def _joined(comparisons: Sequence[PairedComparison], found: Sequence[Difference]) -> SeedDifference:
    """One view over seeds."""
    errors = [_paired_error(*pair) for pair in zip(comparisons, found, strict=True)]
    values = [view.difference for view in found]
    return SeedDifference(values, *t_interval(values, errors, least=-1.0, most=1.0), p_holm=math.nan)


def _corrected(family: Sequence[SeedDifference]) -> list[SeedDifference]:
    """A family of differences with `p_holm` over it."""
    corrected = holm(np.array([entry.p for entry in family]))
    return [dataclasses.replace(entry, p_holm=float(p)) for entry, p in zip(family, corrected, strict=True)]


def _paired_error(comparison: PairedComparison, view: Difference) -> float:
    """Standard error over test images of one seed's paired difference."""
    if isinstance(view, WorstDifference):
        first, second = (comparison.per_class[index] for index in (view.first_class, view.second_class))
        if view.first_class != view.second_class:  # other images
            right = ((first.first, first.images), (second.second, second.images))
            return math.hypot(*(metrics.error_of_mean(np.array([p * n]), np.array([n])) for p, n in right))
        view = first
    test: PairedTest = view.test  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
    return float(paired_error(test.b + test.c, test.b - test.c, getattr(view, "images", comparison.images)))


def _error(column: Column, view: str, training_counts: Sequence[int]) -> float:
    """Standard error over test images of a view's accuracy."""
    correct, total = np.array(column.correct), np.array(column.total)
    if view == "overall":
        return metrics.error_of_mean(correct.sum(keepdims=True), total.sum(keepdims=True))
    chosen = np.array([column.worst.class_index]) if view == "worst" else _members(column, view, training_counts)
    return metrics.error_of_mean(correct[chosen], total[chosen])


def least_error(first: Column, second: Column, view: str, training_counts: Sequence[int]) -> float:
    """The least standard error over test images of a paired difference that has these counts."""
    differences, total = np.array(first.correct) - np.array(second.correct), np.array(first.total)
    if view == "overall":
        return float(paired_error(np.abs(differences).sum(), differences.sum(), total.sum()))
    if view == "worst" and first.worst.class_index != second.worst.class_index:
        return math.hypot(_error(first, view, training_counts), _error(second, view, training_counts))
    chosen = np.array([first.worst.class_index]) if view == "worst" else _members(first, view, training_counts)
    errors = paired_error(np.abs(differences[chosen]), differences[chosen], total[chosen])
    return float(np.sqrt(np.sum(errors**2))) / len(chosen)


def _members(column: Column, view: str, training_counts: Sequence[int]) -> np.ndarray:
    """The classes with test images that a view is the mean of."""
    present = np.flatnonzero(column.total)
    return present if view == "balanced" else np.intersect1d(present, metrics.groups(np.array(training_counts))[view])
