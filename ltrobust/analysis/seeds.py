"""Two methods over several training seeds: paired differences and their t-interval. NumPy and SciPy only.

McNemar's test speaks of two trained networks; whether one method beats another is a question over training runs. Each
seed gives one difference of the two methods, and the differences of the seeds are the sample.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from ltrobust.analysis.intervals import holm
from ltrobust.analysis.schema.comparison import ClassSeedDifference, SeedComparison, SeedDifference
from ltrobust.analysis.schema.paired import ColumnDifference, Difference, PairedComparison


def t_interval(values: Sequence[float]) -> SeedDifference:
    """Mean of paired differences with its 95 % t-interval, and the two-sided paired t-test.

    `mean ± t_{0.975, n-1} sd / sqrt(n)`, sd with n - 1. Where all values are equal p is 1 for 0 and else 0.

    Raises:
      ValueError: fewer than two values.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"{found.size} difference(s): an interval over seeds needs at least 2; train more seeds.")
    mean, sd = float(found.mean()), float(found.std(ddof=1))
    error, freedom = sd / math.sqrt(len(found)), len(found) - 1
    half = float(stats.t.ppf(0.975, freedom)) * error
    # Without spread there is no t statistic: p is 1 if all differences are 0, and 0 if they all are the same other
    # number.
    p = float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return SeedDifference(found.tolist(), mean, sd, mean - half, mean + half, p)


def over_seeds(
    comparisons: Sequence[PairedComparison], columns: Sequence[Mapping[str, ColumnDifference]]
) -> SeedComparison:
    """`t_interval` of every view of several paired comparisons, one per seed.

    Args:
      comparisons: of `compare.compare`, each of the two methods' runs of one seed.
      columns: of `flips.by_column`, in the same order.

    Raises:
      ValueError: fewer than two seeds.
    """
    first = comparisons[0]
    seen = [entry.class_index for entry in first.per_class if entry.images]
    per_class = [t_interval([c.per_class[index].difference for c in comparisons]) for index in seen]
    corrected = holm(np.array([entry.p for entry in per_class]))
    views: dict[str, Sequence[Difference]] = {
        "overall": [c.overall for c in comparisons],
        "balanced": [c.balanced for c in comparisons],
    }
    views |= {name: [c.groups[name] for c in comparisons] for name in first.groups}
    views["worst"] = [c.worst for c in comparisons]
    return SeedComparison(
        seeds=len(comparisons),
        views={name: t_interval([view.difference for view in found]) for name, found in views.items()},
        per_class=[
            ClassSeedDifference(**vars(entry), class_index=index, p_holm=float(p))
            for index, entry, p in zip(seen, per_class, corrected, strict=True)
        ],
        columns={name: t_interval([c[name].difference for c in columns]) for name in columns[0]},
    )
