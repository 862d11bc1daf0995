"""Sections of a run's page on training: teacher and student, training curves, cost. No JAX."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.analysis.evaluated_networks import GROUPS, EvaluatedNetworks
from ltrobust.analysis.schema.training import TrainingExamples
from ltrobust.report import accuracy, charts
from ltrobust.report.charts import BLUE, GREY, ORANGE
from ltrobust.report.frame import Figure, Table, record
from ltrobust.report.material import Teaching
from ltrobust.report.numbers import NOTHING, interval, number, percent

Record = Mapping[str, Any]
_SHARES = {"both": "both right", "only_first": "only teacher", "only_second": "only student", "neither": "both wrong"}
# Title, validation column and view of a curve; the first has none, because it is of the training images.
_CURVES = (
    ("validation, clean", "clean", "balanced"),
    ("validation, PGD-20", "pgd20", "balanced"),
    ("validation, PGD-20, tail", "pgd20", "tail_third"),
)


def teaching(evaluation: EvaluatedNetworks, found: Teaching) -> dict[str, Any] | None:
    """Images that the teacher saw, confidence and agreement of both networks; None for a run without a teacher."""
    trained = evaluation.card.training
    if "teacher" not in trained:
        return None
    listed = {phase: trained[phase].examples for phase in ("teacher", "student") if phase in trained}
    known = {phase: examples for phase, examples in listed.items() if examples}
    confidence = (
        "Confidence: mean over a class's test images of the probability of the true class. Attacked is the lowest over "
        f"the clean image and the ends of the attacks ({evaluation.column(evaluation.headline)}). Images that are "
        "wrong when clean are not attacked and count with their clean value. 95 % normal intervals."
    )
    return {
        "exposure": [_list_in_words(evaluation, phase, examples) for phase, examples in known.items()],
        "confidence": confidence if found.confidence else "",
        "figures": ([_exposure(evaluation, known)] if known else []) + _confidence(evaluation, found),
        "agreement": _agreement(found),
    }


def _exposure(evaluation: EvaluatedNetworks, known: Mapping[str, TrainingExamples]) -> Figure:
    """How often the images of each class were used in training."""
    counts = evaluation.card.data.class_counts
    listed = {phase: examples.class_counts for phase, examples in known.items()}
    records, rows = [], []
    for index in evaluation.classes:
        cells = []
        for phase, seen in listed.items():
            rate = seen[index] / max(counts[index], 1)
            detail = f"{seen[index]:,} entries for {counts[index]:,} images"
            records.append(accuracy.plain_number(evaluation, index, phase, rate) | {"detail": detail})
            cells += [f"{seen[index]:,}", f"{rate:.2f}", percent(seen[index] / sum(seen))]
        rows.append([evaluation.class_name(index), *cells])
    header = ["class (training images)"]
    for phase in listed:
        header += [f"{phase}: in the list", f"{phase}: per image and epoch", f"{phase}: share, %"]
    spec = accuracy.by_class(evaluation, records, "times per epoch", (BLUE, ORANGE), bars=True)
    return Figure("exposure", "How often a training image is seen per epoch", spec, Table(header, rows))


def _list_in_words(evaluation: EvaluatedNetworks, phase: str, examples: TrainingExamples) -> str:
    """A phase's list in words, counted from the card."""
    card = evaluation.card
    steps, counts, settings = card.training[phase].steps, card.data.class_counts, card.config[phase]
    entries, batch_size = examples.number, settings["batch_size"]
    line = (
        f"The {phase} is trained on a list of {entries:,} entries; {steps:,} updates of "
        f"{batch_size} are {steps * batch_size / entries:.1f} passes through it."
    )
    unseen = sum(max(own - seen, 0) for own, seen in zip(counts, examples.class_counts, strict=True))
    if unseen and settings["subset"] == "balanced":
        again = settings["balanced"]["redraw"]
        line += f" {unseen:,} of {sum(counts):,} training images are left out" + (
            ", other ones in every epoch." if again else ", the same ones in every epoch: the teacher never sees them."
        )
    return line


def _confidence(evaluation: EvaluatedNetworks, found: Teaching) -> list[Figure]:
    """Mean probability of the true class, by class."""
    figures = []
    for name, known in found.confidence.items():
        series = {"clean": known["clean"], "lowest under attack": known["attacked"]}
        records = [
            record(estimates[index], evaluation.labels[index], title)
            | {"index": index, "images": max(evaluation.card.data.class_counts[index], 1)}
            for index in evaluation.classes
            for title, estimates in series.items()
            if not math.isnan(estimates[index].value)
        ]
        rows = [[evaluation.class_name(i), *(interval(e[i]) for e in series.values())] for i in evaluation.classes]
        axis = "mean probability of the true class, %"
        spec = accuracy.by_class(evaluation, records, axis, (GREY, BLUE), bars=True, domain=(0, 100))
        header = ["class (training images)", "clean, %", "attacked, %"]
        figures.append(
            Figure(f"confidence-{name.replace('/', '-')}", f"Confidence of {name}", spec, Table(header, rows))
        )
    return figures


def _agreement(found: Teaching) -> Table | None:
    """Which network is correct under attack, by group."""
    if not found.agreement:
        return None
    rows = [
        [
            GROUPS.get(group, "all images"),
            f"{entry.images:,}",
            *(percent(getattr(entry, key)) for key in _SHARES),
            number(entry.kappa),
        ]
        for group, entry in found.agreement.items()
    ]
    return Table(["", "images", *(f"{title}, %" for title in _SHARES.values()), "Cohen's kappa"], rows)


def training(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Loss, accuracies and learning rate of each phase, with the selected epoch."""
    parts = []
    for phase, result in _phases(records).items():
        selected = next((entry["selected_epoch"] for entry in reversed(result) if "selected_epoch" in entry), None)
        mark = (selected, f"selected: {selected}") if selected else None
        curves = [_point("training, attacked", entry, entry["train"]["robust_correct"], 100) for entry in result]
        curves += [_point(title, entry, _validation(entry, c, v), 100) for title, c, v in _CURVES for entry in result]
        curves = [point for point in curves if point["value"] is not None]
        loss = [_point("loss", entry, entry["train"]["loss"]) for entry in result]
        loss = [point for point in loss if point["value"] is not None]
        rates = [_point("learning rate", entry, entry["learning_rate"]) for entry in result]
        table = _numbers(result)
        drawn = [
            ("accuracy", curves, {"y_title": "right, %", "domain": (0, 100)}),
            ("loss", loss, {"y_title": "loss"}),
            ("learning rate", rates, {"y_title": "learning rate"}),
        ]
        figures = [
            Figure(
                f"{phase}-{what.replace(' ', '-')}",
                f"{phase}: {what}",
                charts.lines(points, "epoch", mark=mark, **options),
                table,
                wide=what == "accuracy",
            )
            for what, points, options in drawn
            if points
        ]
        validated = any("validation" in entry for entry in result)
        parts.append({"name": phase, "selected": _selected(selected, validated), "figures": figures})
    return parts


def _point(series: str, entry: Record, value: float | None, unit: float = 1) -> dict[str, Any]:
    """An epoch's number."""
    scaled = None if value is None else unit * value
    text = "" if scaled is None else f"{scaled:.1f} %" if unit == 100 else f"{scaled:.4g}"
    return {"x": entry["epoch"], "x_text": f"epoch {entry['epoch']}", "series": series, "value": scaled, "text": text}


def _validation(entry: Record, column: str, view: str) -> float | None:
    return entry.get("validation", {}).get(column, {}).get(view)


def _selected(selected: int | None, validated: bool) -> str:
    """Information on the selected weights."""
    if selected:
        return f"Selected weights: after epoch {selected}."
    if selected == 0:
        return "No weights were selected: a class has too few validation images."
    if not validated:
        return "No validation part, so nothing was selected."
    return "metrics.jsonl does not name the selected epoch; train again to have it marked."


def _numbers(found: Sequence[Record]) -> Table:
    """Every epoch's numbers."""
    header = ["epoch", "loss", "training, attacked, %", "clean, %", "PGD-20, %", "tail PGD-20, %", "learning rate"]
    rows = []
    for entry in found:
        loss = entry["train"]["loss"]
        views = [_validation(entry, column, view) for _, column, view in _CURVES]
        numbers = [percent(entry["train"]["robust_correct"]), *map(percent, views)]
        shown = f"{loss:.4f}" if loss is not None else NOTHING
        rows.append([str(entry["epoch"]), shown, *numbers, f"{entry['learning_rate']:.3g}"])
    return Table(header, rows)


def cost(records: Sequence[Record], evaluations: Sequence[EvaluatedNetworks]) -> dict[str, Any] | None:
    """Time by epoch, and of evaluations."""
    rows, points = [], []
    for phase, result in _phases(records).items():
        seconds = [entry["seconds"] for entry in result]
        numbers = [f"{sum(seconds):,.1f}", f"{statistics.median(seconds):.2f}", f"{seconds[0]:.1f}"]
        rows.append([phase, str(len(result)), *numbers])
        points += [
            _point(phase, entry, None) | {"value": max(entry["seconds"], 1e-3), "text": f"{entry['seconds']:.2f} s"}
            for entry in result
        ]
    figures = []
    if rows:
        spec = charts.lines(points, "epoch", "seconds", log_y=True)
        header = ["phase", "epochs", "seconds in all", "median epoch, s", "first epoch, s"]
        note = "Validation included; the first epoch of a start also compiles."
        figures.append(Figure("time", "Time by epoch", spec, Table(header, rows), note))
    cells = [[e.title, f"{e.card.seconds:,.1f} s", e.card.command] for e in evaluations]
    commands = Table(["card", "wall time", "command"], cells) if cells else None
    return {"figures": figures, "commands": commands} if figures or commands else None


def seconds_of(records: Sequence[Record]) -> dict[str, float]:
    """Seconds of all epochs of each phase."""
    return {phase: sum(entry["seconds"] for entry in result) for phase, result in _phases(records).items()}


def _phases(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by phase, epochs ascending."""
    result: dict[str, list[Record]] = {}
    for entry in records:
        result.setdefault(entry["phase"], []).append(entry)
    return {phase: sorted(entries, key=lambda entry: entry["epoch"]) for phase, entries in result.items()}
