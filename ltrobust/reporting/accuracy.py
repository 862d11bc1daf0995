"""Sections of a report on accuracy: headline, classes, tail, confusion, comparison of networks. No JAX."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ltrobust.reporting import charts, comparison
from ltrobust.reporting.charts import Axis, Row, Series, Value
from ltrobust.reporting.markup import NOTHING, Element, element, figure, folded, interval, paragraph, percent, table
from ltrobust.reporting.material import FEW_CLASSES, GROUPS, Comparison, Evaluation

_VIEWS = {
    "overall": "all images",
    "head_third": "head",
    "medium_third": "middle",
    "tail_third": "tail",
    "worst": "worst class",
}
_PERCENT = Axis("right, % of the images", 0, 100, unit="")
_CLEAN, _ATTACKED = 6, 0
# A heat map's ink, drawn over any background; the same as the style sheet's.
_INK = (0, 114, 178)


def headline(evaluation: Evaluation) -> list[Element]:
    """Numbers of all networks side by side."""
    rows = []
    for column in _quoted(evaluation):
        for view, title in _VIEWS.items():
            found = [network["columns"][column].get(view) for network in evaluation.networks.values()]
            if any(found):
                cells = [interval(estimate) if estimate else NOTHING for estimate in found]
                rows.append([f"{evaluation.column(column)}: {title}", *cells])
    chart = charts.rows(
        "Accuracy of each network: clean, and under the headline for all images, tail and worst class. "
        "The numbers are in the table below.",
        [
            Row(
                name,
                [
                    _value(network["columns"]["clean"]["overall"], _CLEAN),
                    _value(network["columns"][evaluation.headline]["overall"], 0),
                    _value(network["columns"][evaluation.headline].get("tail_third"), 1),
                    _value(network["columns"][evaluation.headline]["worst"], 3),
                ],
            )
            for name, network in evaluation.networks.items()
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
        table(["", *evaluation.networks], rows),
    ]


def classes(evaluation: Evaluation) -> list[Element]:
    """Clean and robust accuracy of every class of the main network, most training images first."""
    columns = evaluation.networks[evaluation.main]["columns"]
    clean, attacked = columns["clean"]["per_class"], columns[evaluation.headline]["per_class"]
    names = [("clean", _CLEAN), (evaluation.column(evaluation.headline), _ATTACKED)]
    groups = [
        Row(title, [_value(columns[column].get(view), style) for column, style in _two(evaluation)])
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
            Row(evaluation.class_name(index), [_value(clean[index], _CLEAN), _value(attacked[index], _ATTACKED)])
            for index in evaluation.classes
        ]
        chart = charts.rows(f"{label} class.", rows, _PERCENT, bars=True)
        pictures.append(figure("Classes (training images)", chart, charts.legend(names, "bar")))
    else:
        rank = Axis("rank of the class, 1: most training images", 1, len(evaluation.classes))
        series = [
            _by_class(
                name, range(1, len(evaluation.classes) + 1), [found[index] for index in evaluation.classes], style
            )
            for found, (name, style) in zip((clean, attacked), names, strict=True)
        ]
        chart = charts.lines(f"{label} rank of the class.", series, rank, _upright())
        pictures.append(figure("Classes by rank", chart, charts.legend(names)))
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
        paragraph(f"{evaluation.main}; bars are per cent right, whiskers 95 % Wilson intervals.", class_="note"),
        element("div", *pictures, class_="figures"),
        folded("The numbers", table(header, rows)),
    ]


def tail(evaluation: Evaluation) -> list[Element]:
    """Robust accuracy against the number of training images."""
    counts = evaluation.card["data"]["class_counts"]
    shown = [name for name in evaluation.networks if name.endswith("/last")] or [evaluation.main]
    series = [
        _by_class(
            name,
            [max(counts[index], 1) for index in reversed(evaluation.classes)],
            [
                evaluation.networks[name]["columns"][evaluation.headline]["per_class"][index]
                for index in reversed(evaluation.classes)
            ],
            style,
        )
        for style, name in enumerate(shown)
    ]
    low, high = max(min(counts), 1), max(counts)
    x = Axis("training images of the class", low, high if high > low else low + 1, logarithmic=True)
    attacked = evaluation.column(evaluation.headline)
    chart = charts.lines(f"{attacked}: accuracy of a class against its training images.", series, x, _upright())
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
        figure(f"{attacked}, by training images", chart, charts.legend([(name, n) for n, name in enumerate(shown)])),
        paragraph(
            "Bands: 95 % Wilson intervals. A class may be hard or easy for other reasons than its number of images.",
            class_="note",
        ),
        folded("The numbers", table(header, rows)),
    ]


def confusion(evaluation: Evaluation) -> list[Element]:
    """Who takes whose images under attack."""
    network = evaluation.networks[evaluation.main]
    matrix, names = np.array(network["confusion"][evaluation.headline]), evaluation.card["data"]["class_names"]
    few = len(names) <= FEW_CLASSES
    order = evaluation.classes
    heat = _heat_table(matrix, order, names) if few else _heat_image(matrix, order)
    thieves = [(index, taken) for index, taken in enumerate(network["thief"]) if taken is not None]
    thieves.sort(key=lambda entry: order.index(entry[0]) if few else -entry[1][1])
    rows = [[evaluation.class_name(index), evaluation.class_name(by), percent(share)] for index, (by, share) in thieves]
    title = "Each class's thief" if few else f"The {min(FEW_CLASSES, len(rows))} largest thefts"
    thefts = table(["class (training images)", "taken by", "share, %"], rows[:FEW_CLASSES])
    note = paragraph("The most frequent wrong prediction and its share of the class's test images.", class_="note")
    attacked = evaluation.column(evaluation.headline)
    return [
        paragraph(
            f"{evaluation.main} under {attacked}: images of a class (row) by what they are taken for (column), both "
            "with most training images first. The stronger the colour, the larger the share of the row.",
            class_="note",
        ),
        element("div", figure("Test images", heat), figure(title, thefts, note), class_="figures"),
    ]


def compared(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> list[Element]:
    """Differences between networks, paired image by image."""
    figures, below = [], []
    for entry in comparisons:
        title = f"{entry.first} minus {entry.second}"
        if entry.result is None:
            below.append(paragraph(f"{title}: they are the same weights.", class_="note"))
            continue
        views = _views_of(evaluation, entry.result)
        values = [view[key] for _, view in views for key in ("low", "high") if view[key] is not None]
        low, high = charts.around([100 * value for value in values], floor=0, ceiling=0)
        rows = [
            Row(name, [_value({**view, "value": view["difference"]}, 0, hollow=not comparison.differs(view))])
            for name, view in views
            if view["difference"] is not None
        ]
        axis = Axis("difference, percentage points", low, high)
        figures.append(figure(title, charts.rows(f"{title}, by group and class.", rows, axis, bars=False)))
        cells = [_difference(name, view) for name, view in views if view["difference"] is not None]
        header = ["", entry.first, entry.second, "difference", "only first", "only second", "p"]
        below.append(folded(f"{title}: the numbers", table(header, cells)))
    if not comparisons:
        return []
    return [
        paragraph(
            f"Under {evaluation.column(evaluation.headline)}, the same images for both. Whiskers: 95 % paired "
            "intervals. A filled dot: one network is ahead; a hollow one: no difference shown. A class is filled where "
            "p < 0.05 after Holm's correction over classes.",
            class_="note",
        ),
        element("div", *figures, class_="figures"),
        *below,
    ]


def _views_of(evaluation: Evaluation, result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """All images, groups, and the classes: all of few, otherwise those that differ."""
    views = [("all images", result["overall"]), ("mean of classes", result["balanced"])]
    views += [(title, result[view]) for view, title in GROUPS.items() if view in result]
    entries = [result["per_class"][index] for index in evaluation.classes]
    few = len(entries) <= FEW_CLASSES
    shown = [entry for entry in entries if few or (entry["images"] and comparison.differs(entry))]
    return views + [(evaluation.class_name(entry["class"]), entry) for entry in shown]


def _difference(name: str, view: Mapping[str, Any]) -> list[str]:
    """Cells of a comparison's view; the p-value of a class is corrected."""
    test = view.get("pooled", view)
    p = view.get("p_holm", test["p"])
    return [
        name,
        percent(view["first"]),
        percent(view["second"]),
        interval({**view, "value": view["difference"]}, sign=True),
        str(test["b"]),
        str(test["c"]),
        f"{p:.4f}" if p >= 1e-4 else "<0.0001",
    ]


def _heat_table(matrix: np.ndarray, order: Sequence[int], names: Sequence[str]) -> Element:
    """A matrix of few classes as a table whose cells are tinted."""
    totals = matrix.sum(axis=1)
    rows = []
    for true in order:
        cells = []
        for taken in order:
            share = float(matrix[true, taken] / max(totals[true], 1))
            kind = "right" if true == taken else None
            tint = f"background:rgba({','.join(map(str, _INK))},{share:.3f})"
            cells.append(element("td", f"{matrix[true, taken]:,}", style=tint, class_=kind))
        rows.append(element("tr", element("th", names[true], scope="row"), *cells))
    head = element("tr", element("th", "true"), *(element("th", names[index], scope="col") for index in order))
    whole = element("table", element("thead", head), element("tbody", *rows), class_="heat")
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label="confusion under attack")


def _heat_image(matrix: np.ndarray, order: Sequence[int]) -> Element:
    """A matrix of many classes as a picture whose ink's opacity is the share of the row."""
    sorted_matrix = matrix[np.ix_(order, order)]
    shares = sorted_matrix / np.maximum(sorted_matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    # A square root shows small shares, which most off-diagonal cells are.
    pixels[..., :3], pixels[..., 3] = _INK, np.round(255 * np.sqrt(shares))
    description = f"{len(order)} by {len(order)} classes; opacity is the square root of the share of the row"
    return element(
        "div",
        element("img", src=png(pixels), alt=f"Confusion under attack, {description}.", class_="pixels wide"),
        paragraph(f"{description}.", class_="note"),
    )


def png(pixels: np.ndarray) -> str:
    """A picture, uint8 [H,W,C] of 1, 3 or 4 channels, as a data URI."""
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _quoted(evaluation: Evaluation) -> list[str]:
    """Columns of the headline table: clean, PGD-20 where there is one, and combinations."""
    combined = [name for name, _ in evaluation.card["protocol"]["combined"]]
    present = evaluation.networks[evaluation.main]["columns"]
    wanted = dict.fromkeys(("clean", "pgd20", *combined, evaluation.headline))
    return [column for column in wanted if column in present]


def _two(evaluation: Evaluation) -> list[tuple[str, int]]:
    return [("clean", _CLEAN), (evaluation.headline, _ATTACKED)]


def _value(estimate: Mapping[str, Any] | None, style: int, *, hollow: bool = False) -> Value:
    """An estimate in percent."""
    found = [(estimate or {}).get(key) for key in ("value", "low", "high")]
    return Value(*(None if number is None else 100 * number for number in found), style=style, hollow=hollow)


def _by_class(name: str, x: Sequence[float], estimates: Sequence[Mapping[str, Any]], style: int) -> Series:
    """A line over classes, without those that have no test images."""
    kept = [(place, e) for place, e in zip(x, estimates, strict=True) if e["value"] is not None]
    places = [place for place, _ in kept]
    value, low, high = ([100 * e[key] for _, e in kept] for key in ("value", "low", "high"))
    return Series(name, places, value, style, low, high, dots=len(kept) <= FEW_CLASSES)


def _upright() -> Axis:
    return Axis("right, % of the images", 0, 100)
