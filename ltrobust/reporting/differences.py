"""Section of a report: differences between networks, paired image by image. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.reporting import charts, comparison
from ltrobust.reporting.charts import Axis, Row
from ltrobust.reporting.markup import Element, element, figure, folded, interval, paragraph, percent, table
from ltrobust.reporting.material import FEW_CLASSES, GROUPS, Comparison, Evaluation


def section(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> list[Element]:
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
            Row(
                name, [charts.in_percent({**view, "value": view["difference"]}, 0, hollow=not comparison.differs(view))]
            )
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
