"""Two methods over several training seeds: paired differences and their t-interval. NumPy and SciPy only.

McNemar's test speaks of two trained networks; whether one method beats another is a question over training runs. Each
seed gives one difference of the two methods, and the differences of the seeds are the sample.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ltrobust.analysis.compare import holm


def t_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean of paired differences with its 95 % t-interval, and the two-sided paired t-test.

    `mean ± t_{0.975, n-1} sd / sqrt(n)`, sd with n - 1.

    Returns:
      values, mean, sd, low, high and p; where all values are equal p is 1 for 0 and else 0.

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
    return {"values": found.tolist(), "mean": mean, "sd": sd, "low": mean - half, "high": mean + half, "p": p}


def over_seeds(
    comparisons: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """`t_interval` of every view of several paired comparisons, one per seed.

    Args:
      comparisons: of `compare.compare`, each of the two methods' runs of one seed.
      columns: of `flips.by_column`, in the same order.

    Returns:
      views: overall, balanced, groups and worst -> interval. per_class: one entry per class with images, `class` and
      `p_holm` over these besides. columns: each column of the protocol, over all images.

    Raises:
      ValueError: fewer than two seeds.
    """
    first = comparisons[0]
    names = [name for name, view in first.items() if isinstance(view, Mapping)]
    seen = [entry["class"] for entry in first["per_class"] if entry["images"]]
    per_class = [t_interval([c["per_class"][index]["difference"] for c in comparisons]) for index in seen]
    corrected = holm(np.array([entry["p"] for entry in per_class]))
    return {
        "seeds": len(comparisons),
        "views": {name: t_interval([c[name]["difference"] for c in comparisons]) for name in names},
        "per_class": [
            {"class": index, **entry, "p_holm": float(p)}
            for index, entry, p in zip(seen, per_class, corrected, strict=True)
        ],
        "columns": {name: t_interval([c[name]["difference"] for c in columns]) for name in columns[0]},
    }
