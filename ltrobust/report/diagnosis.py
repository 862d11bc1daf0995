"""The page of a class-wise diagnosis, drawn from its JSON. No JAX.

Sections on accuracy, spread and consistency are here, those on where attacked images go in `diagnosis_attacks.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.report import charts, frame, tables
from ltrobust.report import diagnosis_attacks as attacks
from ltrobust.report.charts import Axis, Row, Series
from ltrobust.report.markup import (
    NOTHING,
    Element,
    element,
    figure,
    folded,
    interval,
    paragraph,
    percent,
    table,
    words,
)
from ltrobust.report.material import FEW_CLASSES

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
_CLEAN = 6
_NOTE_ON_INTERVALS = (
    "Intervals: 95 %; Wilson for one proportion, otherwise 2,000 bootstrap draws of test images inside each class. "
    "Deviation, variance and range are biased up and the worst class down by the noise of few images, and every draw "
    "adds noise, so an interval need not hold its value. A class with all images right, or none, does not vary in a "
    "draw."
)


def render(found: Mapping[str, Any]) -> str:
    """The page's text, from what `ltrobust diagnose` writes as JSON."""
    sections = [
        ("summary", "Summary", summary(found), []),
        ("classes", "Classes", classes(found), []),
        ("spread", "Spread over classes", spread(found), []),
        ("consistency", "Is it always the same classes?", consistency(found), []),
        ("confusion", "Confusion under attack", attacks.confusions(found), []),
        ("homing", "Where broken images go", attacks.homing(found), []),
        ("superclasses", "Superclasses", attacks.superclasses(found), attacks.lacks_superclasses(found)),
        ("temperature", "Temperature-PGD", attacks.temperature(found), attacks.lacks_temperature(found)),
        ("norms", "Classifier rows", attacks.norms(found), attacks.lacks_norms(found)),
    ]
    names = [model["name"] for model in found["models"]]
    made = [
        (identity, title, [*content, *(paragraph(words(line), class_="missing") for line in lacks)])
        for identity, title, content, lacks in sections
    ]
    return frame.whole("Classes of " + ", ".join(names), "diagnosis", made)


def number(estimate: Mapping[str, Any], digits: int = 2) -> str:
    """A plain number with its interval: `0.93 [0.80, 0.97]`; a dash where there is none."""
    if estimate["value"] is None:
        return NOTHING
    value, low, high = (f"{estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def summary(found: Mapping[str, Any]) -> list[Element]:
    """What was diagnosed, and the measures of every model under the column shown."""
    threat, images, column = found["threat"], found["images"], found["column"]
    models = found["models"]
    rows = []
    for shown in dict.fromkeys(("clean", column)):
        rows.append([shown])
        rows.append(["all images, %", *(interval(model["columns"][shown]["overall"]) for model in models)])
        for measure, title in MEASURES.items():
            rows.append([title, *(_measure(model["columns"][shown], measure) for model in models)])
        worst = [model["columns"][shown] for model in models]
        rows.append(["which class is worst", *(_worst_class(found, entry) for entry in worst)])
        if len(models) > 1:
            others = [_between(found, shown, models[0]["name"], model["name"]) for model in models[1:]]
            rows.append([f"rho against {models[0]['name']}", NOTHING, *(number(pair["rho"], 3) for pair in others)])
    entries = {
        "protocol": f"{found['protocol']['name']}; shown in full: {column}",
        "threat": f"{threat['norm']}, radius {threat['radius']:g}/255",
        "test images": f"{images['number']:,}, SHA-256 {images['sha256']}",
        "models": "; ".join(f"{model['name']}, verdicts {model['verdicts_sha256'][:12]}" for model in models),
        "commit": found["software"]["commit"],
    }
    parts = [part for name, value in entries.items() for part in (element("dt", name), element("dd", value))]
    note = (
        "rho = (worst - worst_b) / worst_b - (mean_b - mean) / mean_b, b being the first model: what the worst class "
        "gains less what the mean loses. "
    )
    return [
        table(["", *(model["name"] for model in models)], rows),
        paragraph((note if len(models) > 1 else "") + _NOTE_ON_INTERVALS, class_="note"),
        element("dl", *parts),
    ]


def _measure(column: Mapping[str, Any], measure: str) -> str:
    """A measure over classes, in percent where it is one."""
    estimate = column["spread"][measure]
    return number(estimate, 4 if measure == "var" else 3) if measure in PLAIN else interval(estimate)


def _worst_class(found: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    """The name of the class with the lowest accuracy."""
    known = [(entry["value"], index) for index, entry in enumerate(column["per_class"]) if entry["value"] is not None]
    return found["class_names"][min(known)[1]]


def _between(found: Mapping[str, Any], column: str, first: str, second: str) -> Mapping[str, Any]:
    """What holds between two models in a column."""
    wanted = (column, first, second)
    return next(entry for entry in found["between"] if (entry["column"], entry["first"], entry["second"]) == wanted)


def classes(found: Mapping[str, Any]) -> list[Element]:
    """Accuracy of every class, clean and under the column shown; then under every column."""
    models, column, names = found["models"], found["column"], found["class_names"]
    axis = Axis("right, % of the images", 0, 100)
    legend = [("clean", _CLEAN), *((f"{model['name']}, {column}", place) for place, model in enumerate(models))]
    if len(models) > 1:
        legend[0] = (f"clean, {models[0]['name']}", _CLEAN)
    clean = models[0]["columns"]["clean"]["per_class"]
    label = f"Accuracy of each class, clean and under {column}."
    if len(names) <= FEW_CLASSES:
        rows = [
            Row(
                names[index],
                [
                    charts.in_percent(clean[index], _CLEAN),
                    *(
                        charts.in_percent(model["columns"][column]["per_class"][index], place)
                        for place, model in enumerate(models)
                    ),
                ],
            )
            for index in found["order"]
        ]
        chart = figure("Classes", charts.rows(label, rows, axis, bars=True), charts.legend(legend, "bar"))
    else:
        chart = _ranked(found, label, axis, legend)
    tables = [
        folded(
            f"{model['name']}: every class under every column, %",
            table(
                ["class", *model["columns"]],
                [
                    [names[index], *(interval(entry["per_class"][index]) for entry in model["columns"].values())]
                    for index in found["order"]
                ],
            ),
        )
        for model in models
    ]
    return [element("div", chart, class_="figures"), *tables]


def _ranked(found: Mapping[str, Any], label: str, axis: Axis, legend: Sequence[tuple[str, int]]) -> Element:
    """Many classes as dots, from the hardest to the easiest of the first model under the column shown."""
    column = found["column"]
    hard = found["models"][0]["columns"][column]["per_class"]
    ranked = sorted((i for i in found["order"] if hard[i]["value"] is not None), key=lambda index: hard[index]["value"])
    places = list(range(1, len(ranked) + 1))
    shown = [(found["models"][0]["columns"]["clean"], _CLEAN)]
    shown += [(model["columns"][column], place) for place, model in enumerate(found["models"])]
    series = [
        Series("", places, [100 * entry["per_class"][i]["value"] for i in ranked], style, dots=True, joined=False)
        for entry, style in shown
    ]
    x = Axis(f"rank of the class, 1: hardest under {column}", 1, len(ranked))
    return figure("Classes by difficulty", charts.lines(label, series, x, axis), charts.legend(legend, "dot"))


def spread(found: Mapping[str, Any]) -> list[Element]:
    """Measures over classes under every column, and means over groups of classes."""
    parts = []
    for model in found["models"]:
        columns = model["columns"]
        rows = [
            [title, *(_measure(entry, measure) for entry in columns.values())] for measure, title in MEASURES.items()
        ]
        groups = columns["clean"]["groups"]
        rows += [["means over groups of classes, %"]] if groups else []
        rows += [[name, *(interval(entry["groups"][name]) for entry in columns.values())] for name in groups]
        parts += [element("h3", model["name"]), table(["", *columns], rows)]
    return parts


def consistency(found: Mapping[str, Any]) -> list[Element]:
    """Rank correlations of class accuracies between columns of a model, and between models."""
    parts = [
        paragraph(
            "Rank correlations of class accuracies: 1 means the same order of classes, 0 none in common. Above the "
            "diagonal Spearman's, below it Kendall's tau-b.",
            class_="note",
        )
    ]
    for model in found["models"]:
        names = list(model["columns"])
        values: dict[tuple[str, str], str] = {}
        for pair in model["consistency"]:
            first, second = pair["first"], pair["second"]
            values[first, second], values[second, first] = (
                NOTHING if pair[kind]["value"] is None else f"{pair[kind]['value']:.2f}"
                for kind in ("spearman", "kendall")
            )
        matrix = [[row, *(values.get((row, name), "1") for name in names)] for row in names]
        pairs = [
            [f"{pair['first']}, {pair['second']}", number(pair["spearman"]), number(pair["kendall"])]
            for pair in model["consistency"]
        ]
        parts += [
            element("h3", model["name"]),
            table(["", *names], matrix),
            folded("With intervals", table(["columns", "Spearman", "Kendall"], pairs)),
        ]
    if found["between"]:
        rows = [
            [
                entry["column"],
                f"{entry['first']}, {entry['second']}",
                number(entry["spearman"]),
                number(entry["kendall"]),
                number(entry["rho"], 3) if "rho" in entry else NOTHING,
            ]
            for entry in found["between"]
        ]
        header = ["column", "models", "Spearman", "Kendall", "rho of the second"]
        parts += [element("h3", "Between models"), table(header, rows)]
    return parts


def text(found: Mapping[str, Any]) -> str:
    """The tables that a terminal shows."""
    parts = []
    for model in found["models"]:
        header = ["", "all", "mean", "worst", "range", "sd", "nsd", "asymmetry", "to favourite"]
        rows = [
            [
                column,
                percent(entry["overall"]["value"], 2),
                *(percent(entry["spread"][name]["value"], 2) for name in ("mean", "worst", "range", "sd")),
                *(NOTHING if value is None else f"{value:.3f}" for value in _ratios(entry)),
                percent(entry["favourites"]["share"]["value"], 1) if "favourites" in entry else NOTHING,
            ]
            for column, entry in model["columns"].items()
        ]
        parts.append(f"{model['name']}, percent:\n{tables.align([header, *rows])}")
        parts += attacks.text(found, model)
    if found["between"]:
        rows = [
            [
                f"{entry['second']} and {entry['first']}",
                *(number(entry[kind]) for kind in ("spearman", "kendall")),
                number(entry["rho"], 3) if "rho" in entry else NOTHING,
            ]
            for entry in found["between"]
            if entry["column"] == found["column"]
        ]
        header = [f"between models, {found['column']}", "Spearman", "Kendall", "rho"]
        parts.append(tables.align([header, *rows]))
    return "\n\n".join(parts)


def _ratios(column: Mapping[str, Any]) -> list[float | None]:
    """nsd and asymmetry."""
    return [column["spread"]["nsd"]["value"], column["asymmetry"]["value"]]
