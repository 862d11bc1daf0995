"""How numbers are written, and those that tables over cards quote. No JAX."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import numpy as np

from ltrobust.analysis.intervals import SeedMean, holm

NOTHING = "-"


class Interval(Protocol):
    """A value with the ends of its interval; all are NaN where there is no value."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


NUMBERS = (
    ("clean, all", "clean", "overall"),
    ("PGD-20, all", "pgd20", "overall"),
    ("PGD-20, tail", "pgd20", "tail_third"),
    ("worst of attacks, tail", "worst", "tail_third"),
    ("PGD-20, worst class", "pgd20", "worst"),
)
# Where the protocol has them.
AUTOATTACK = (
    ("AutoAttack, all", "autoattack", "overall"),
    ("AutoAttack, head", "autoattack", "head_third"),
    ("AutoAttack, tail", "autoattack", "tail_third"),
)


def of_columns(columns: Collection[str]) -> tuple[tuple[str, str, str], ...]:
    """The numbers that tables over cards with these columns quote."""
    return NUMBERS + tuple(entry for entry in AUTOATTACK if entry[1] in columns)


def over_seeds(found: SeedMean, *, unit: float = 0.01, digits: int = 2) -> str:
    """Mean of a number over training seeds, in percent if the unit is not another: `62.60 ± 3.10 [58.75, 66.45]`.

    ± is the sample deviation (n - 1), the bracket the 95 % interval of the mean.
    """
    mean, sd, low, high = (f"{value / unit:.{digits}f}" for value in found[:4])
    return f"{mean} ± {sd} [{low}, {high}]"


def differences(
    header: Sequence[str],
    rows: Sequence[tuple[str, int, Sequence[SeedMean | None]]],
    *,
    unit: float = 0.01,
    digits: int = 2,
) -> str:
    """Markdown: exploratory differences over seeds, each with p after Holm's correction over the table.

    Args:
      header: titles of the numbers.
      rows: what is subtracted, the number of seeds, and a difference for each number; None where there is none.
    """
    family = [result for _, _, cells in rows for result in cells if result is not None]
    corrected = iter(holm(np.array([result.p for result in family])))
    lines = [
        [name, str(seeds), *(_difference(result, corrected, unit, digits) for result in cells)]
        for name, seeds, cells in rows
    ]
    tests = sum(not math.isnan(result.p) for result in family)
    note = (
        f"Exploratory; p: paired t-test over seeds, after Holm's correction over the {tests} tests of this table.\n\n"
    )
    return note + markdown([["difference", "seeds", *header], *lines])


def _difference(found: SeedMean | None, corrected: Iterator[float], unit: float, digits: int) -> str:
    """A cell, with the next of the corrected p-values."""
    return NOTHING if found is None else f"{over_seeds(found, unit=unit, digits=digits)}, p {p_value(next(corrected))}"


def one_run(estimate: Interval) -> str:
    """A number of a single run, in percent, with its 95 % interval over test images: `28.41 [27.53, 29.30]`."""
    return f"{100 * estimate.value:.2f} [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def percent(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A fraction in percent, `34.1`; a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else f"{100 * value:{'+' if sign else ''}.{digits}f}"


def interval(estimate: Interval | None, *, sign: bool = False) -> str:
    """A value with its interval in percent: `34.1 [33.0, 35.2]`."""
    if estimate is None or math.isnan(estimate.value):
        return NOTHING
    low, high = percent(estimate.low, sign=sign), percent(estimate.high, sign=sign)
    return f"{percent(estimate.value, sign=sign)} [{low}, {high}]"


def number(estimate: Interval | None, digits: int = 2, *, sign: bool = False) -> str:
    """A plain number with its interval: `0.93 [0.80, 0.97]`; a dash where there is none."""
    if estimate is None or math.isnan(estimate.value):
        return NOTHING
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (NOTHING if math.isnan(end) else f"{end:{'+' if sign else ''}.{digits}f}" for end in ends)
    return f"{value} [{low}, {high}]"


def p_value(p: float) -> str:
    """A p-value; a tiny one as a bound, a dash where there is no test."""
    if math.isnan(p):
        return NOTHING
    return f"{p:.4f}" if p >= 1e-4 else "<0.0001"
