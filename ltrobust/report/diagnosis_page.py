"""The page of a class-wise diagnosis, drawn from its JSON. No JAX."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltrobust.analysis.evaluated_networks import labels, short
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.diagnosed_column import DiagnosedColumn
from ltrobust.analysis.schema.diagnosis import DiagnosedModel, Diagnosis, ModelAgreement
from ltrobust.report import accuracy, charts, diagnosis, frame
from ltrobust.report.charts import COLORS, GREY
from ltrobust.report.diagnosis import MEASURES, measure_cell
from ltrobust.report.frame import Figure, Table, record
from ltrobust.report.material import FEW_CLASSES
from ltrobust.report.numbers import NOTHING, interval, number, percent

_SECTIONS = {
    "summary": "Summary",
    "classes": "Classes",
    "spread": "Spread over classes",
    "consistency": "Always the same classes?",
    "confusion": "Confusion under attack",
    "targets": "Where broken images go",
    "superclasses": "Superclasses",
    "temperature": "Temperature-PGD",
    "norms": "Classifier rows",
}
_EVALUATE = "run ltrobust diagnose --workdir=DIR"
_RIGHT = "right, % of the images"


def render(found: Diagnosis) -> str:
    """The page's text, from what `ltrobust diagnose` writes as JSON."""
    content = {
        "summary": _summary(found),
        "classes": _classes(found),
        "spread": [(model.name, _spread(model)) for model in found.models],
        "consistency": _consistency(found),
        "confusion": _confusions(found),
        "targets": [_targets(found, model) for model in found.models],
        "superclasses": [_superclasses(found, m) for m in found.models] if found.superclasses else [],
        "temperature": _temperature(found),
        "norms": [_norms(found, m, m.class_norms.values, n) for n, m in enumerate(found.models) if m.class_norms],
    }
    missing = [(title, lines) for key, title in _SECTIONS.items() if (lines := _lacks(found, key))]
    sections = [(key, title) for key, title in _SECTIONS.items() if content[key]]
    names = _names(found)
    return frame.render(
        "diagnosis.html.jinja",
        title="Classes of " + ", ".join(model.name for model in found.models),
        kind="diagnosis",
        sections=sections + ([("missing", "Not recorded")] if missing else []),
        class_names=[(index, names[index]) for index in found.order],
        missing=missing,
        column=found.column,
        several=len(found.models) > 1,
        **content,
    )


def _names(found: Diagnosis) -> list[str]:
    return [short(name) for name in found.class_names]


def _labels(found: Diagnosis) -> list[str]:
    """Names of the classes for charts; no two are equal."""
    return labels([short(name, 28) for name in found.class_names])


def _lacks(found: Diagnosis, section: str) -> list[str]:
    """Why a section lacks something."""
    if section == "superclasses" and found.superclasses is None:
        return ["only those of CIFAR-100 are known, by the names of its classes."]
    if section == "temperature":
        why = f"the protocol has no Temperature-PGD, or no image is right when clean; {_EVALUATE}."
        return [f"{model.name}: {why}" for model in found.models if not model.temperature]
    if section == "norms":
        why = f"no lengths of classifier rows are recorded. The card of a run's evaluation has them ({_EVALUATE})."
        return [f"{m.name}: {why}" for m in found.models if m.class_norms is None]
    return []


def _summary(found: Diagnosis) -> dict[str, Any]:
    """What was diagnosed, and the measures of every model under the column shown."""
    threat, images, models = found.threat, found.images, found.models
    rows: list[list[str]] = []
    for shown in dict.fromkeys(("clean", found.column)):
        columns = [model.columns[shown] for model in models]
        rows.append([shown])
        rows.append(["all images, %", *(interval(column.overall) for column in columns)])
        rows += [[title, *(measure_cell(column, measure) for column in columns)] for measure, title in MEASURES.items()]
        rows.append(["which class is worst", *(_worst_class(found, column) for column in columns)])
        if len(models) > 1:
            others = [_between(found, shown, models[0].name, model.name) for model in models[1:]]
            rows.append([f"rho against {models[0].name}", NOTHING, *(number(pair.rho, 3) for pair in others)])
    entries = [
        ("protocol", f"{found.protocol.name}; shown in full: {found.column}"),
        ("threat", f"{threat.norm}, radius {threat.radius:g}/255"),
        ("test images", f"{images.number:,}, SHA-256 {images.sha256}"),
        ("models", "; ".join(f"{model.name}, verdicts {(model.verdicts_sha256 or '')[:12]}" for model in models)),
        ("commit", found.software["commit"]),
    ]
    return {"table": Table(["", *(model.name for model in models)], rows), "entries": entries}


def _worst_class(found: Diagnosis, column: DiagnosedColumn) -> str:
    """The name of the class with the lowest accuracy."""
    known = [(entry.value, index) for index, entry in enumerate(column.per_class) if not math.isnan(entry.value)]
    return _names(found)[min(known)[1]]


def _between(found: Diagnosis, column: str, first: str, second: str) -> ModelAgreement:
    """What holds between two models in a column."""
    wanted = (column, first, second)
    return next(entry for entry in found.between if (entry.column, entry.first, entry.second) == wanted)


def _classes(found: Diagnosis) -> list[Figure]:
    """Accuracy of every class, clean and under the column shown."""
    models, column, order, names = found.models, found.column, found.order, _labels(found)
    shown = [("clean" if len(models) == 1 else f"clean, {models[0].name}", models[0].columns["clean"])]
    shown += [(f"{model.name}, {column}", model.columns[column]) for model in models]
    colors = (GREY, *COLORS[:-1])
    hard = models[0].columns[column].per_class
    few = len(order) <= FEW_CLASSES
    ranked = [index for index in order if not math.isnan(hard[index].value)]
    if not few:
        ranked.sort(key=lambda index: hard[index].value)
    records = [
        record(entry.per_class[index], names[index], series) | {"index": index, "x": rank}
        for rank, index in enumerate(ranked, start=1)
        for series, entry in shown
    ]
    rows = [[_names(found)[i], *(interval(entry.per_class[i]) for _, entry in shown)] for i in order]
    table = Table(["class", *(f"{series}, %" for series, _ in shown)], rows)
    if few:
        return [Figure("classes", "Classes", charts.rows(records, _RIGHT, colors, domain=(0, 100)), table)]
    spec = charts.scatter(
        [{**entry, "low": None, "high": None} for entry in records],
        f"rank of the class, 1: hardest under {column}",
        _RIGHT,
        colors,
    )
    return [Figure("classes", "Classes by difficulty", spec, table, wide=True)]


def _spread(model: DiagnosedModel) -> dict[str, Table]:
    """Measures over classes, means over groups of classes, and all classes, under every column."""
    columns = model.columns
    rows = [[title, *(measure_cell(c, measure) for c in columns.values())] for measure, title in MEASURES.items()]
    groups = columns["clean"].groups
    rows += [["means over groups of classes, %"]] if groups else []
    rows += [[name, *(interval(entry.groups[name]) for entry in columns.values())] for name in groups]
    return {"table": Table(["", *columns], rows)}


def _consistency(found: Diagnosis) -> dict[str, Any]:
    """Rank correlations of class accuracies between columns of a model, and between models."""
    parts = []
    for model in found.models:
        names = list(model.columns)
        values: dict[tuple[str, str], str] = {}
        for pair in model.consistency:
            values[pair.first, pair.second] = _two_digits(pair.spearman)
            values[pair.second, pair.first] = _two_digits(pair.kendall)
        matrix = [[row, *(values.get((row, name), "1") for name in names)] for row in names]
        pairs = [
            [f"{pair.first}, {pair.second}", number(pair.spearman), number(pair.kendall)] for pair in model.consistency
        ]
        intervals = Table(["columns", "Spearman", "Kendall"], pairs)
        every = Table(
            ["class", *names],
            [
                [_names(found)[index], *(interval(entry.per_class[index]) for entry in model.columns.values())]
                for index in found.order
            ],
        )
        parts.append({"name": model.name, "matrix": Table(["", *names], matrix), "intervals": intervals, "all": every})
    rows = [
        [
            entry.column,
            f"{entry.first}, {entry.second}",
            number(entry.spearman),
            number(entry.kendall),
            number(entry.rho, 3),
        ]
        for entry in found.between
    ]
    header = ["column", "models", "Spearman", "Kendall", "rho of the second"]
    return {"models": parts, "between": Table(header, rows) if rows else None}


def _two_digits(estimate: Estimate) -> str:
    return NOTHING if math.isnan(estimate.value) else f"{estimate.value:.2f}"


def _confusions(found: Diagnosis) -> dict[str, Any]:
    """Which class is taken for which under the column shown, and how one-sided that is under every column."""
    column, order, models = found.column, found.order, found.models
    figures = [
        accuracy.heat(
            f"confusion-{place}",
            f"{model.name}, {column}",
            np.array(model.columns[column].confusion),
            order,
            _names(found),
        )
        for place, model in enumerate(models, start=1)
    ]
    rows = [[shown, *(number(model.columns[shown].asymmetry, 3) for model in models)] for shown in models[0].columns]
    return {"figures": figures, "asymmetry": Table(["column", *(model.name for model in models)], rows)}


def _targets(found: Diagnosis, model: DiagnosedModel) -> dict[str, Any]:
    """Most frequent targets, and images that every attack sends to the same class."""
    column, names = found.column, _names(found)
    targets = {name: entry.top_wrong for name, entry in model.columns.items() if entry.top_wrong}
    known = {index: entry for index, entry in enumerate(targets[column].classes) if entry.predicted is not None}
    shown = [(index, known[index]) for index in found.order if index in known]
    title = f"Most frequent targets under {column}"
    if len(names) > FEW_CLASSES:
        shown = sorted(shown, key=lambda pair: -pair[1].broken)[:FEW_CLASSES]
        title += ", classes with most broken images"
    rows = [
        [names[index], f"{entry.broken:,}", names[entry.predicted or 0], interval(entry.share)]
        for index, entry in shown
    ]
    shares = [
        [name, f"{sum(one.broken for one in entry.classes):,}", interval(entry.share)]
        for name, entry in targets.items()
    ]
    return {
        "name": model.name,
        "sentence": diagnosis.same_place(model.target_agreement),
        "title": title,
        "targets": Table(["class", "broken", "target", "share, %"], rows),
        "shares": Table(["column", "broken", "share, %"], shares),
        "even": percent(targets[column].even),
    }


def _superclasses(found: Diagnosis, model: DiagnosedModel) -> dict[str, Any]:
    """Accuracy when any class of the true superclass counts as right."""
    columns = {name: (entry, entry.superclasses) for name, entry in model.columns.items() if entry.superclasses}
    column = found.column
    shown = {name: (entry.overall, e.overall, e.broken_inside) for name, (entry, e) in columns.items()}
    rows = [[name, *map(interval, estimates)] for name, estimates in shown.items()]
    pairs = zip(*(columns[name][1].per_superclass for name in ("clean", column)), strict=True)
    each = [
        [clean.name, *(interval(e) for e in (clean.fine, clean, attacked.fine, attacked))] for clean, attacked in pairs
    ]
    header = ["column", "right, %", "right by superclass, %", "broken inside the superclass, %"]
    every = ["superclass", "clean", "clean, by superclass", column, f"{column}, by superclass"]
    return {"name": model.name, "table": Table(header, rows), "each": Table(every, each)}


def _temperature(found: Diagnosis) -> dict[str, Any] | None:
    """Success rates against 1/T, beside PGD."""
    models = [model for model in found.models if model.temperature]
    if not models:
        return None
    header = ["1/T", "broken, %", "minus PGD", "p", "corrected p"]
    header += ["sd minus PGD", "range minus PGD", "nsd minus PGD", "worst class minus PGD"]
    tables = [(model.name, Table(header, diagnosis.temperature_rows(model))) for model in models]
    points = [
        record(entry.rate, model.name, model.name) | {"x": entry.inverse, "x_text": f"1/T = {entry.inverse:g}"}
        for model in models
        for entry in model.temperature
        if entry.inverse is not None
    ]
    spec = charts.lines(points, "1/T; 1 is PGD", "broken, % of those right when clean", log_x=True, dots=True)
    rows = [[point["series"], point["x_text"], point["text"]] for point in points]
    figure = Figure("temperature-curve", "Broken images by 1/T", spec, Table(["model", "1/T", "broken"], rows))
    return {"figure": figure, "tables": tables}


def _norms(found: Diagnosis, model: DiagnosedModel, lengths: Sequence[float], place: int) -> dict[str, Any]:
    """Lengths of the classifier's rows against class accuracy, and the number of training images beside them."""
    column, names = found.column, _labels(found)
    estimates = model.columns[column].per_class
    points = [
        record(estimate, names[index], column)
        | {"x": length, "x_text": f"length {length:.3f}", "index": index, "low": None, "high": None}
        for index, (length, estimate) in enumerate(zip(lengths, estimates, strict=True))
        if not math.isnan(estimate.value)
    ]
    spec = charts.scatter(points, "length of the classifier's row", f"right under {column}, %")
    listed: Sequence[Sequence[str]] = [
        [_names(found)[i], f"{lengths[i]:.3f}", interval(estimates[i])] for i in found.order
    ]
    table = Table(["class", "row length", f"right under {column}, %"], listed)
    rows: list[list[str]] = []
    relations = [(model.class_norms, "row length"), (model.training_counts, "training images, for comparison")]
    for relation, title in relations:
        if relation is not None:
            rows.append([title])
            for name, entry in relation.columns.items():
                cells = [*diagnosis.two_intervals(entry.pearson), *diagnosis.two_intervals(entry.spearman)]
                rows.append([name, *cells])
    header = ["accuracy under", "Pearson, other images", "other classes", "Spearman, other images", "other classes"]
    return {
        "name": model.name,
        "cosine": model.head == "cosine",
        "figure": Figure(f"norms-{place + 1}", "Row length and accuracy: a dot is a class", spec, table),
        "related": Table(header, rows),
    }
