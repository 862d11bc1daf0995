"""Sections of a report that tell how a run went: training curves, and what it cost. No JAX."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltrobust.analysis.evaluations import Evaluation
from ltrobust.report import charts
from ltrobust.report.charts import Axis, Series
from ltrobust.report.markup import NOTHING, Element, element, figure, folded, paragraph, percent, table, words

Record = Mapping[str, Any]
_PERCENT = Axis("right, %", 0, 100)


def training(records: Sequence[Record]) -> list[Element]:
    """Loss, accuracies and learning rate of each phase, with the selected epoch."""
    parts = []
    for phase, found in _phases(records).items():
        selected = next((r["selected_epoch"] for r in reversed(found) if "selected_epoch" in r), None)
        marks = [(selected, f"selected: {selected}")] if selected else []
        epochs = Axis("epoch", found[0]["epoch"], max(found[-1]["epoch"], found[0]["epoch"] + 1))
        accuracies = [
            _series("training, attacked", found, lambda r: 100 * r["train"]["robust_correct"], 6),
            *(
                _series(title, found, _validation(column, view), style)
                for title, column, view, style in (
                    ("validation, clean", "clean", "balanced", 2),
                    ("validation, PGD-20", "pgd20", "balanced", 0),
                    ("validation, PGD-20, tail", "pgd20", "tail_third", 1),
                )
            ),
        ]
        accuracies = [entry for entry in accuracies if entry.x]
        legend = charts.legend([(entry.name, entry.style) for entry in accuracies])
        figures = [
            figure(f"{phase}: loss", _free(f"{phase}: loss by epoch", _loss(found), epochs, "loss", marks)),
            figure(
                f"{phase}: accuracy",
                charts.lines(f"{phase}: accuracies by epoch", accuracies, epochs, _PERCENT, marks),
                legend,
            ),
            figure(
                f"{phase}: learning rate",
                _free(f"{phase}: learning rate by epoch", _rate(found), epochs, "learning rate", marks),
            ),
        ]
        parts += [
            element("h3", phase),
            _selected(selected, bool(accuracies[1:])),
            element("div", *figures, class_="figures"),
            folded(f"{phase}: the numbers", _table(found)),
        ]
    return parts


def cost(records: Sequence[Record], evaluations: Sequence[Evaluation]) -> list[Element]:
    """Time by epoch, and of evaluations."""
    parts, rows, series = [], [], []
    for style, (phase, found) in enumerate(_phases(records).items()):
        seconds = [record["seconds"] for record in found]
        rows.append(
            [phase, str(len(found)), f"{sum(seconds):,.1f}", f"{statistics.median(seconds):.2f}", f"{seconds[0]:.1f}"]
        )
        series.append(Series(phase, [record["epoch"] for record in found], seconds, style))
    if rows:
        x = Axis("epoch", 1, max(max(entry.x) for entry in series) or 2)
        values = [value for entry in series for value in entry.y]
        low, high = max(min(values), 1e-3), max(*values, 1e-3)
        y = Axis("seconds", low * 0.9, high * 1.1, logarithmic=True)
        chart = charts.lines("Seconds of each epoch, by phase.", series, x, y)
        header = ["phase", "epochs", "seconds in all", "median epoch, s", "first epoch, s"]
        note = "Validation included; the first epoch of a start also compiles."
        legend = charts.legend([(entry.name, entry.style) for entry in series])
        numbers = figure("In numbers", table(header, rows), paragraph(note, class_="note"))
        parts.append(element("div", figure("Time by epoch", chart, legend), numbers, class_="figures"))
    if evaluations:
        cells = [[e.title, f"{e.card['seconds']:,.1f} s", words(e.card["command"])] for e in evaluations]
        note = "Wall time of the whole command that wrote the newest card, with training where it trained."
        parts += [
            element("h3", "Commands"),
            paragraph(note, class_="note"),
            table(["card", "wall time", "command"], cells, "words"),
        ]
    return parts


def _phases(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by phase, epochs ascending."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["phase"], []).append(record)
    return {phase: sorted(entries, key=lambda record: record["epoch"]) for phase, entries in found.items()}


def _series(name: str, found: Sequence[Record], value: Callable[[Record], float | None], style: int) -> Series:
    """A line over the epochs that have the value."""
    points = [(record["epoch"], value(record)) for record in found]
    kept = [(epoch, number) for epoch, number in points if number is not None]
    return Series(name, [epoch for epoch, _ in kept], [number for _, number in kept], style)


def _validation(column: str, view: str) -> Callable[[Record], float | None]:
    """A validation's number in percent, where the epoch has one."""

    def value(record: Record) -> float | None:
        found = record.get("validation", {}).get(column, {}).get(view)
        return None if found is None else 100 * found

    return value


def _loss(found: Sequence[Record]) -> Series:
    return _series("loss", found, lambda record: record["train"]["loss"], 0)


def _rate(found: Sequence[Record]) -> Series:
    return _series("learning rate", found, lambda record: record["learning_rate"], 0)


def _free(label: str, series: Series, x: Axis, title: str, marks: Sequence[tuple[float, str]]) -> Element:
    """A chart of one series whose axis follows its values."""
    low, high = charts.around(series.y, floor=0) if series.y else (0.0, 1.0)
    return charts.lines(label, [series], x, Axis(title, low, high), marks)


def _selected(selected: int | None, validated: bool) -> Element:
    """What is known of the selection."""
    if selected:
        return paragraph(f"Selected weights: after epoch {selected}.", class_="note")
    if selected == 0:
        return paragraph("No weights were selected: a class has too few validation images.", class_="note")
    if not validated:
        return paragraph("No validation part, so nothing was selected.", class_="note")
    return paragraph(
        "Which epoch was selected is not in metrics.jsonl; train anew to have it marked.", class_="missing"
    )


def _table(found: Sequence[Record]) -> Element:
    """Every epoch's numbers."""
    header = ["epoch", "loss", "training, attacked, %", "clean, %", "PGD-20, %", "tail PGD-20, %", "learning rate"]
    rows = []
    for record in found:
        validation = record.get("validation", {})
        views = [
            validation.get(c, {}).get(v)
            for c, v in (("clean", "balanced"), ("pgd20", "balanced"), ("pgd20", "tail_third"))
        ]
        loss = record["train"]["loss"]
        numbers = [percent(record["train"]["robust_correct"]), *map(percent, views)]
        rows.append(
            [
                str(record["epoch"]),
                f"{loss:.4f}" if loss is not None else NOTHING,
                *numbers,
                f"{record['learning_rate']:.3g}",
            ]
        )
    return table(header, rows)
