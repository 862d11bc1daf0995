"""Text of a class-wise diagnosis for a terminal, and the cells that its page has too. No JAX."""

import math
from collections.abc import Sequence

from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.diagnosed_column import DiagnosedColumn, Inequality
from ltrobust.analysis.schema.diagnosis import (
    Correlation,
    DiagnosedModel,
    Diagnosis,
    InequalityChange,
    TargetAgreement,
)
from ltrobust.report import tables
from ltrobust.report.numbers import NOTHING, interval, number, p_value, percent

MEASURES = {
    "mean": "mean of classes, %",
    "worst": "worst class, %",
    "worst10": "mean of the lowest tenth, %",
    "best": "best class, %",
    "range": "range, points",
    "sd": "deviation, points",
    "nsd": "deviation / mean",
    "var": "variance",
}
PLAIN = ("nsd", "var")


def text(found: Diagnosis) -> str:
    """The tables that a terminal shows."""
    parts = []
    for model in found.models:
        header = ["", "all", "mean", "worst", "range", "sd", "nsd", "asymmetry", "to top wrong class"]
        rows = [
            [
                column,
                percent(entry.overall.value, 2),
                *(percent(measure(entry.inequality, name).value, 2) for name in ("mean", "worst", "range", "sd")),
                *(
                    NOTHING if math.isnan(e.value) else f"{e.value:.3f}"
                    for e in (entry.inequality.nsd, entry.asymmetry)
                ),
                percent(entry.top_wrong.share.value, 1) if entry.top_wrong else NOTHING,
            ]
            for column, entry in model.columns.items()
        ]
        parts.append(f"{model.name}, percent:\n{tables.align([header, *rows])}")
        parts += _text_of(found, model)
    if found.between:
        rows = [
            [
                f"{entry.second} and {entry.first}",
                number(entry.spearman),
                number(entry.kendall),
                number(entry.rho, 3),
            ]
            for entry in found.between
            if entry.column == found.column
        ]
        header = [f"between models, {found.column}", "Spearman", "Kendall", "rho"]
        parts.append(tables.align([header, *rows]))
    return "\n\n".join(parts)


def measure(inequality: Inequality | InequalityChange, name: str) -> Estimate:
    """One of `MEASURES`."""
    return getattr(inequality, name)


def _text_of(found: Diagnosis, model: DiagnosedModel) -> list[str]:
    """What a terminal shows of one model besides its columns."""
    parts = [same_place(model.target_agreement)]
    if model.temperature:
        header = ["1/T", "broken, %", "minus PGD", "p", "corrected p", "sd", "range", "nsd", "worst class"]
        shown = tables.align([header, *temperature_rows(model)])
        parts.append(f"Temperature-PGD, of the images that are right when clean:\n{shown}")
    if model.class_norms:
        entry = model.class_norms.columns[found.column]
        shown = [("Pearson", entry.pearson), ("Spearman", entry.spearman)]
        parts.append(
            f"Classifier row length and accuracy under {found.column}, interval for other classes: "
            + ", ".join(f"{name} {two_intervals(correlation)[1]}" for name, correlation in shown)
        )
    return parts


def measure_cell(column: DiagnosedColumn, name: str) -> str:
    """A measure over classes, in percent where it is one."""
    estimate = measure(column.inequality, name)
    return number(estimate, 4 if name == "var" else 3) if name in PLAIN else interval(estimate)


def same_place(entry: TargetAgreement) -> str:
    """How far attacks agree on the wrong class, in a sentence."""
    sentence = f"Of {entry.images:,} images that at least two of {', '.join(entry.attacks)} break, "
    sentence += f"{interval(entry.one_class)} % go to one and the same class whichever attack breaks them"
    if entry.one_superclass:
        sentence += f", {interval(entry.one_superclass)} % to the classes of one superclass, "
        sentence += f"{interval(entry.own_superclass)} % only to classes of their own superclass"
    return sentence + "."


def temperature_rows(model: DiagnosedModel) -> list[list[str]]:
    """One line per 1/T."""
    rows = []
    for entry in model.temperature:
        name = "worst of all" if entry.inverse is None else f"{entry.inverse:g}"
        cells = [NOTHING] * 7
        if entry.change and entry.inequality:
            cells = [interval(entry.change, sign=True), p_value(entry.change.p), p_value(entry.change.p_holm)]
            cells += [interval(measure(entry.inequality, key), sign=True) for key in ("sd", "range")]
            cells += [number(entry.inequality.nsd, 3, sign=True), interval(entry.inequality.worst, sign=True)]
        rows.append([name + (" (PGD)" if entry.inverse == 1 else ""), interval(entry.rate), *cells])
    return rows


def two_intervals(entry: Correlation) -> Sequence[str]:
    """A correlation with its interval over images, and with the one over classes."""
    wide = Estimate(entry.value, entry.classes_low, entry.classes_high)
    return number(entry, 3), NOTHING if math.isnan(wide.low) else number(wide, 3)
