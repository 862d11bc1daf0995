"""Two methods over several seeds: text, and a section of a page. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.analysis.evaluations import GROUPS
from ltrobust.report import charts, differences, tables
from ltrobust.report.charts import Axis, Row, Value
from ltrobust.report.markup import Element, element, figure, folded, paragraph, table
from ltrobust.report.material import FEW_CLASSES

_VIEWS = {"overall": "all images", "balanced": "mean of classes", **GROUPS, "worst": "worst class"}
_FEW_SEEDS = 3


def text(seeds: Mapping[str, Any], sides: Sequence[str], class_names: Sequence[str]) -> str:
    """Differences of every seed with mean, deviation and t-interval, for a terminal.

    Args:
      seeds: of `evaluation.seeds.over_seeds`.
      sides: what the two methods are called.
      class_names: one per class.
    """
    title = f"{sides[0]} minus {sides[1]} over {seeds['seeds']} seeds, percentage points"
    blocks = []
    for name, entries in _blocks(seeds, class_names, list(range(len(class_names)))):
        rows = [[what, *_cells(entry)] for what, entry in entries]
        blocks.append(tables.align([[name, *_header(seeds)], *rows]))
    return "\n\n".join([title, *blocks, _said(seeds)])


def section(
    seeds: Mapping[str, Any], sides: Sequence[str], order: Sequence[int], names: Sequence[str]
) -> list[Element]:
    """Charts of the means with their t-intervals and a dot for each seed, and the numbers."""
    figures, numbers = [], []
    for name, entries in _blocks(seeds, names, order):
        shown = entries if len(entries) <= FEW_CLASSES else [e for e in entries if e[1]["p_holm"] < 0.05]
        rows = [[what, *_cells(entry)] for what, entry in entries]
        numbers.append(folded(f"By {name}: the numbers", table([name, *_header(seeds)], rows)))
        if not shown:
            continue
        title = f"{sides[0]} minus {sides[1]}, by {name}"
        axis = Axis("difference, percentage points", *charts.around(_ends(shown), floor=0, ceiling=0))
        figures.append(figure(title, charts.rows(f"{title}.", [_row(*entry) for entry in shown], axis, bars=False)))
    note = "Above: the mean over seeds with its 95 % t-interval, filled where that excludes 0. Below it: each seed."
    return [
        paragraph(f"{note} {_said(seeds)}", class_="note"),
        element("div", *figures, class_="figures"),
        *numbers,
    ]


def _blocks(
    seeds: Mapping[str, Any], class_names: Sequence[str], order: Sequence[int]
) -> list[tuple[str, list[tuple[str, Mapping[str, Any]]]]]:
    """What is listed: views, columns, classes."""
    views = [(title, seeds["views"][name]) for name, title in _VIEWS.items() if name in seeds["views"]]
    by_class = {entry["class"]: entry for entry in seeds["per_class"]}
    classes = [(class_names[index], by_class[index]) for index in order if index in by_class]
    return [("view", views), ("column", list(seeds["columns"].items())), ("class", classes)]


def _header(seeds: Mapping[str, Any]) -> list[str]:
    """Titles of `_cells`."""
    return [*(f"pair {n}" for n in range(1, seeds["seeds"] + 1)), "mean ± sd", "95 % interval", "p", "corrected p"]


def _cells(entry: Mapping[str, Any]) -> list[str]:
    """Each seed, mean ± sd, interval, p; only classes have a corrected p."""
    return [
        *(f"{100 * value:+.2f}" for value in entry["values"]),
        f"{100 * entry['mean']:+.2f} ± {100 * entry['sd']:.2f}",
        f"[{100 * entry['low']:+.2f}, {100 * entry['high']:+.2f}]",
        differences.p_value(entry["p"]),
        differences.p_value(entry["p_holm"]) if "p_holm" in entry else "-",
    ]


def _said(seeds: Mapping[str, Any]) -> str:
    """What the numbers are, and how far they carry."""
    overall = seeds["views"]["overall"]
    shown = "excludes 0" if overall["low"] > 0 or overall["high"] < 0 else "holds 0: no difference shown"
    few = f" Fewer than {_FEW_SEEDS} seeds: one run and its repetition, not a result." * (seeds["seeds"] < _FEW_SEEDS)
    return (
        "p: paired t-test over seeds; corrected p: Holm over classes. The interval over all images "
        f"{shown}.{few} Seeds share one test set and one long-tailed split, whose variation is not in the interval."
    )


def _ends(entries: Sequence[tuple[str, Mapping[str, Any]]]) -> list[float]:
    """All that a chart has to hold, in percent; intervals of few seeds may leave what a difference can be."""
    return [100 * min(1.0, max(-1.0, value)) for _, e in entries for value in (e["low"], e["high"], *e["values"])]


def _row(name: str, entry: Mapping[str, Any]) -> Row:
    """The mean with its interval, and the seeds."""
    open_ = not (entry["p_holm"] < 0.05 if "p_holm" in entry else entry["low"] > 0 or entry["high"] < 0)
    mean = charts.in_percent({**entry, "value": entry["mean"]}, 0, hollow=open_)
    return Row(name, [mean, *(Value(100 * value, None, None, 6, hollow=True) for value in entry["values"])])
