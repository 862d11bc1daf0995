"""The page of a comparison: one HTML file in the look of a run's. No JAX, no script, nothing from a network."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.report import charts, differences, flips, frame, over_seeds
from ltrobust.report.charts import Axis, Row
from ltrobust.report.markup import NOTHING, Element, element, figure, folded, interval, paragraph, table, words

_PERCENT = Axis("right, % of the images", 0, 100)


def render(
    found: Mapping[str, Any],
    pictures: Sequence[Sequence[flips.Flipped]] = (),
    missing: Sequence[str] = (),
) -> str:
    """The page's text.

    Args:
      found: of `analysis.compare_runs.compare_all`, or the same read from JSON.
      pictures: of each entry of `found["comparisons"]`; `missing` says why an entry has none.
    """
    counts, plain = found["training_counts"], found["class_names"]
    names = [f"{name} ({counts[n]:,})" for n, name in enumerate(plain)] if counts else list(plain)
    order = sorted(range(len(plain)), key=lambda index: -counts[index]) if counts else list(range(len(plain)))
    sections = [("summary", "Summary", _summary(found))]
    if found["seeds"]:
        sections.append(("seeds", "Over seeds", over_seeds.section(found["seeds"], found["sides"], order, names)))
    for number, pair in enumerate(found["comparisons"]):
        shown = pictures[number] if number < len(pictures) else ()
        why = missing[number] if number < len(missing) else ""
        content = _pair(found, pair, order, names, shown, why)
        sections.append((f"pair{number + 1}", f"{pair['model']} minus {pair['reference']}", content))
    title = " / ".join(found["sides"]) if found["seeds"] else " / ".join(model["name"] for model in found["models"])
    return frame.whole(title, "comparison", sections)


def _summary(found: Mapping[str, Any]) -> list[Element]:
    """Who is compared, on what, and what came out."""
    threat, protocol = found["threat"], found["protocol"]
    models = found["models"]
    rows = [
        Row(
            _ends(model["name"]),
            [charts.in_percent(model["columns"]["clean"], 6), charts.in_percent(model["robust"], 0)],
        )
        for model in models
    ]
    legend = charts.legend([("clean", 6), (found["column"], 0)], "dot")
    chart = charts.rows("Accuracy of each network.", rows, _PERCENT, bars=False)
    header = ["network", "of the run", "training seed", *(f"{name}, %" for name in models[0]["columns"])]
    cells = [
        [
            model["name"],
            model["network"] or NOTHING,
            NOTHING if model["seed"] is None else str(model["seed"]),
            *(interval(estimate) for estimate in model["columns"].values()),
        ]
        for model in models
    ]
    drawn = figure("Networks side by side", chart, legend)
    differ = [
        [
            f"{pair['model']} minus {pair['reference']}",
            interval({**pair["result"]["overall"], "value": pair["result"]["overall"]["difference"]}, sign=True),
            *(str(pair["result"]["overall"][key]) for key in ("b", "c")),
            differences.p_value(pair["result"]["overall"]["p"]),
        ]
        for pair in found["comparisons"]
    ]
    return [
        paragraph(
            f"{found['images']:,} test images, the same for all; protocol {protocol['name']}, {threat['norm']} "
            f"{threat['radius']:g}/255; compared in the column {found['column']}. "
            + ("" if found["seeds"] else f"The reference is {models[0]['name']}.")
        ),
        *(paragraph(note, class_="missing") for note in found["notes"]),
        element("div", drawn, class_="figures"),
        folded("Every column of each network", table(header, cells)),
        element("h3", "Differences, all images"),
        table(["", "difference", "won", "lost", "p"], differ),
        paragraph(
            words(
                "Percentage points with 95 % paired intervals; won: images that only the first of the two resists, "
                "lost: only the second; p: exact McNemar test. It speaks of these trained networks on this test set, "
                "not of what training them again would give: for that give several seeds, with --against."
            ),
            class_="note",
        ),
    ]


def _pair(
    found: Mapping[str, Any],
    pair: Mapping[str, Any],
    order: Sequence[int],
    names: Sequence[str],
    pictures: Sequence[flips.Flipped],
    missing: str,
) -> list[Element]:
    """Everything on two networks."""
    views = differences.views_of(pair["result"], order, names.__getitem__)
    drawn, numbers = differences.shown((pair["model"], pair["reference"]), views, "group and class")
    return [
        paragraph(f"In the column {found['column']}. {differences.NOTE}", class_="note"),
        element("div", drawn, figure("Images that flip", flips.counts(pair, views)), class_="figures"),
        numbers,
        *flips.section(pair, order, names, found["class_names"], pictures, missing),
    ]


def _ends(name: str) -> str:
    """A name for a chart, which has room for 22 letters: runs differ at either end."""
    return name if len(name) <= 22 else f"{name[:11]}…{name[-10:]}"
