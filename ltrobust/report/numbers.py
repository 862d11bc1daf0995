"""The numbers that tables over cards quote, and how they are written. No JAX."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

NUMBERS = (
    ("clean, all", "clean", "overall"),
    ("PGD-20, all", "pgd20", "overall"),
    ("PGD-20, tail", "pgd20", "tail_third"),
    ("worst of attacks, tail", "worst", "tail_third"),
    ("PGD-20, worst class", "pgd20", "worst"),
)


def over_seeds(values: Sequence[float], *, unit: float = 0.01, digits: int = 2) -> str:
    """Mean of a number over training seeds, in percent if the unit is not another: `62.60 ± 3.10 [58.75, 66.45]`.

    ± is the sample deviation (n - 1), the bracket the 95 % t-interval of the mean.
    """
    scaled = np.asarray(values, np.float64) / unit
    low, high = t_interval(scaled)
    deviation = float(np.std(scaled, ddof=1))
    return f"{np.mean(scaled):.{digits}f} ± {deviation:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % t-interval of the mean of at least two values, `mean -+ t_{0.975, n-1} sd / sqrt(n)`."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return mean - half, mean + half


def one_run(estimate: Mapping[str, float]) -> str:
    """A number of a single run, in percent, with its 95 % interval over test images: `28.41 [27.53, 29.30]`."""
    return f"{100 * estimate['value']:.2f} [{100 * estimate['low']:.2f}, {100 * estimate['high']:.2f}]"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"
