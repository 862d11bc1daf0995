"""Sections of a report on accuracy: networks side by side, classes, tail. No JAX."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.analysis.evaluations import GROUPS, Evaluation
from ltrobust.report import charts
from ltrobust.report.charts import Axis, Row, Series
from ltrobust.report.markup import NOTHING, Element, element, figure, folded, interval, paragraph, table
from ltrobust.report.material import FEW_CLASSES

_VIEWS = {
    "overall": "all images",
    "head_third": "head",
    "medium_third": "middle",
    "tail_third": "tail",
    "worst": "worst class",
}
_PERCENT = Axis("right, % of the images", 0, 100)
_CLEAN, _ATTACKED = 6, 0
_MANY = "A dot is a class; lines are means of head, middle and tail classes."


def headline(evaluation: Evaluation) -> list[Element]:
    """Numbers of all networks side by side."""
    rows = []
    for column in _quoted(evaluation):
        rows.append([evaluation.column(column)])
        for view, title in _VIEWS.items():
            found = [network["columns"][column].get(view) for network in evaluation.distinct.values()]
            if any(found):
                cells = [interval(estimate) if estimate else NOTHING for estimate in found]
                rows.append([title, *cells])
    chart = charts.rows(
        "Accuracy of each network: clean, and under the headline for all images, tail and worst class. "
        "The numbers are in the table below.",
        [
            Row(
                name,
                [
                    charts.in_percent(network["columns"]["clean"]["overall"], _CLEAN),
                    charts.in_percent(network["columns"][evaluation.headline]["overall"], 0),
                    charts.in_percent(network["columns"][evaluation.headline].get("tail_third"), 1),
                    charts.in_percent(network["columns"][evaluation.headline]["worst"], 3),
                ],
            )
            for name, network in evaluation.distinct.items()
        ],
        _PERCENT,
        bars=False,
    )
    attacked = evaluation.column(evaluation.headline)
    names = [("clean, all", _CLEAN), (f"{attacked}, all", 0), (f"{attacked}, tail", 1), (f"{attacked}, worst class", 3)]
    return [
        figure("Networks side by side", chart, charts.legend(names, "dot")),
        element("h3", "In numbers"),
        paragraph("Percent of the test images that are right, with 95 % intervals over test images.", class_="note"),
        table(["", *evaluation.distinct], rows),
    ]


def classes(evaluation: Evaluation) -> list[Element]:
    """Clean and robust accuracy of every class of the main network, most training images first."""
    columns = evaluation.networks[evaluation.main]["columns"]
    clean, attacked = columns["clean"]["per_class"], columns[evaluation.headline]["per_class"]
    names = [("clean", _CLEAN), (evaluation.column(evaluation.headline), _ATTACKED)]
    groups = [
        Row(title, [charts.in_percent(columns[column].get(view), style) for column, style in _two(evaluation)])
        for view, title in (GROUPS | {"overall": "all images"}).items()
    ]
    label = f"Accuracy of {evaluation.main}, clean and attacked, by"
    pictures = [
        figure(
            "Groups of classes",
            charts.rows(f"{label} group of classes.", groups, _PERCENT, bars=True),
            charts.legend(names, "bar"),
        )
    ]
    if len(evaluation.classes) <= FEW_CLASSES:
        rows = [
            Row(
                evaluation.class_name(index),
                [charts.in_percent(clean[index], _CLEAN), charts.in_percent(attacked[index], _ATTACKED)],
            )
            for index in evaluation.classes
        ]
        chart = charts.rows(f"{label} class.", rows, _PERCENT, bars=True)
        pictures.append(figure("Classes (training images)", chart, charts.legend(names, "bar")))
    else:
        places = {index: rank for rank, index in enumerate(evaluation.classes, start=1)}
        rank = Axis("rank of the class, 1: most training images", 1, len(places))
        series = [
            entry for column, style in _two(evaluation) for entry in _many(evaluation, columns[column], places, style)
        ]
        chart = charts.lines(f"{label} rank of the class.", series, rank, _PERCENT)
        pictures.append(figure("Classes by rank", chart, charts.legend(names), paragraph(_MANY, class_="note")))
    counts = columns[evaluation.headline]
    rows = [
        [
            evaluation.class_name(index),
            interval(clean[index]),
            interval(attacked[index]),
            f"{counts['correct'][index]:,} of {counts['total'][index]:,}",
        ]
        for index in evaluation.classes
    ]
    header = ["class (training images)", "clean, %", f"{names[1][0]}, %", "right when attacked"]
    return [
        paragraph(
            f"{evaluation.main}; bars are per cent right, whiskers 95 % intervals (classes: Wilson; groups: normal).",
            class_="note",
        ),
        element("div", *pictures, class_="figures"),
        folded("The numbers", table(header, rows)),
    ]


def tail(evaluation: Evaluation) -> list[Element]:
    """Robust and clean accuracy against the number of training images."""
    shown = [name for name in evaluation.distinct if name.endswith("/last")] or [evaluation.main]
    figures = [_tail_curve(evaluation, column, shown) for column in (evaluation.headline, "clean")]
    note = "Bands: 95 % intervals. A class may be hard or easy for other reasons than its number of images."
    few = len(evaluation.classes) <= FEW_CLASSES
    header = ["class (training images)", *(f"{name}, %" for name in shown)]
    rows = [
        [
            evaluation.class_name(index),
            *(
                interval(evaluation.networks[name]["columns"][evaluation.headline]["per_class"][index])
                for name in shown
            ),
        ]
        for index in evaluation.classes
    ]
    return [
        element("div", *figures, class_="figures"),
        paragraph(note if few else f"{_MANY} {note}", class_="note"),
        folded("The numbers", table(header, rows)),
    ]


def _tail_curve(evaluation: Evaluation, column: str, shown: Sequence[str]) -> Element:
    """Accuracy in a column against the number of training images, which has a logarithmic axis."""
    counts = evaluation.card["data"]["class_counts"]
    places = {index: max(counts[index], 1) for index in reversed(evaluation.classes)}
    series = []
    for style, name in enumerate(shown):
        found = evaluation.networks[name]["columns"][column]
        if len(places) <= FEW_CLASSES:
            series.append(_by_class(name, found, places, style))
        else:
            series += _many(evaluation, found, places, style)
    low, high = min(places.values()), max(places.values())
    x = Axis("training images of the class", low, high if high > low else low + 1, logarithmic=True)
    title = evaluation.column(column)
    chart = charts.lines(f"{title}: accuracy of a class against its training images.", series, x, _PERCENT)
    return figure(f"{title}, by training images", chart, charts.legend([(name, n) for n, name in enumerate(shown)]))


def _quoted(evaluation: Evaluation) -> list[str]:
    """Columns of the headline table: clean, PGD-20 where there is one, and combinations."""
    combined = [name for name, _ in evaluation.card["protocol"]["combined"]]
    present = evaluation.networks[evaluation.main]["columns"]
    wanted = dict.fromkeys(("clean", "pgd20", *combined, evaluation.headline))
    return [column for column in wanted if column in present]


def _two(evaluation: Evaluation) -> list[tuple[str, int]]:
    return [("clean", _CLEAN), (evaluation.headline, _ATTACKED)]


def _by_class(name: str, column: Mapping[str, Any], places: Mapping[int, float], style: int) -> Series:
    """A line over classes at their places, without those that have no test images."""
    kept = [(place, column["per_class"][index]) for index, place in places.items()]
    kept = [(place, estimate) for place, estimate in kept if estimate["value"] is not None]
    value, low, high = ([100 * estimate[key] for _, estimate in kept] for key in ("value", "low", "high"))
    return Series(name, [place for place, _ in kept], value, style, low, high, dots=True)


def _many(evaluation: Evaluation, column: Mapping[str, Any], places: Mapping[int, float], style: int) -> list[Series]:
    """A dot per class, and the means of head, middle and tail over the places of their classes."""
    dots = dataclasses.replace(_by_class("", column, places, style), low=(), high=(), joined=False)
    means = []
    for view, members in evaluation.groups.items():
        found, ends = column[view], [places[index] for index in members]
        if found["value"] is None:
            continue
        value, low, high = ([100 * found[key]] * 2 for key in ("value", "low", "high"))
        means.append(Series("", [min(ends), max(ends)], value, style, low, high))
    return [dots, *means]
