"""Section of a report: differences between networks, paired image by image. No JAX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltrobust.analysis.evaluations import GROUPS, Evaluation
from ltrobust.report import charts, comparison
from ltrobust.report.charts import Axis, Row
from ltrobust.report.markup import NOTHING, Element, element, figure, folded, interval, paragraph, percent, table
from ltrobust.report.material import FEW_CLASSES, Comparison

NOTE = (
    "Whiskers: 95 % paired intervals. A filled dot: one network is ahead; a hollow one: no difference shown. A class "
    "is filled where p < 0.05 after Holm's correction over classes."
)
View = tuple[str, Mapping[str, Any]]


def section(evaluation: Evaluation, comparisons: Sequence[Comparison]) -> list[Element]:
    """Differences between networks, paired image by image."""
    figures, below = [], []
    for entry in comparisons:
        if entry.result is None:
            below.append(paragraph(f"{entry.first} minus {entry.second}: they are the same weights.", class_="note"))
            continue
        views = views_of(entry.result, evaluation.classes, evaluation.class_name)
        drawn, numbers = shown((entry.first, entry.second), views, "group and class")
        figures.append(drawn)
        below.append(numbers)
    if not comparisons:
        return []
    return [
        paragraph(
            f"Under {evaluation.column(evaluation.headline)}, the same images for both. {NOTE}",
            class_="note",
        ),
        element("div", *figures, class_="figures"),
        *below,
    ]


def shown(names: tuple[str, str], views: Sequence[View], by: str) -> tuple[Element, Element]:
    """A chart of paired differences, first minus second, by what `by` names, and its numbers."""
    title = f"{names[0]} minus {names[1]}"
    views = [(name, view) for name, view in views if view["difference"] is not None]
    ends = [100 * view[key] for _, view in views for key in ("low", "high")]
    low, high = charts.around(ends, floor=0, ceiling=0)
    rows = [
        Row(name, [charts.in_percent({**view, "value": view["difference"]}, 0, hollow=not comparison.differs(view))])
        for name, view in views
    ]
    axis = Axis("difference, percentage points", low, high)
    header = ["", *names, "difference", f"only {names[0]}", f"only {names[1]}", "p", "corrected p"]
    numbers = table(header, [_difference(name, view) for name, view in views])
    chart = charts.rows(f"{title}, by {by}.", rows, axis, bars=False)
    return figure(title, chart), folded(f"{title}, by {by}: the numbers", numbers)


def views_of(result: Mapping[str, Any], order: Sequence[int], class_name: Callable[[int], str]) -> list[View]:
    """All images, groups, and the classes in order: all of few, otherwise those that differ."""
    views = [("all images", result["overall"]), ("mean of classes", result["balanced"])]
    views += [(title, result[view]) for view, title in GROUPS.items() if view in result]
    entries = [result["per_class"][index] for index in order]
    few = len(entries) <= FEW_CLASSES
    kept = [entry for entry in entries if few or (entry["images"] and comparison.differs(entry))]
    return views + [(class_name(entry["class"]), entry) for entry in kept]


def _difference(name: str, view: Mapping[str, Any]) -> list[str]:
    """Cells of a comparison's view; the p-value of a class, or of a column, is corrected as well."""
    test = view.get("pooled", view)
    return [
        name,
        percent(view["first"]),
        percent(view["second"]),
        interval({**view, "value": view["difference"]}, sign=True),
        str(test["b"]),
        str(test["c"]),
        p_value(test["p"]),
        p_value(view["p_holm"]) if "p_holm" in view else NOTHING,
    ]


def p_value(p: float) -> str:
    """A p-value; a tiny one as a bound."""
    return f"{p:.4f}" if p >= 1e-4 else "<0.0001"
