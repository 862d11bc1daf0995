"""Sections of a report that tell how the numbers came about: pictures, effort of the attacks, sanity panel. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis.evaluations import Evaluation
from ltrobust.report import charts
from ltrobust.report.charts import Axis, Row, Series
from ltrobust.report.confusion import png
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
from ltrobust.report.material import Effort, Picture

_MARKS = {"pass": "✓ pass", "warn": "! warn", "fail": "✗ fail", "skipped": "skipped"}


def pictures(evaluation: Evaluation, found: Sequence[Picture]) -> list[Element]:
    """Images before and after, with the change magnified."""
    if not found:
        return []
    return [
        paragraph(
            f"{evaluation.main}: of up to three classes of each group the first test image that is right when clean "
            "and broken under the headline. From left to right: image, adversarial image, change; grey is no change. "
            "Drawn with 8 bits; predictions are of the exact images.",
            class_="note",
        ),
        *(
            element("div", *(_picture(evaluation, entry) for entry in found if entry.group == group), class_="pictures")
            for group in dict.fromkeys(entry.group for entry in found)
        ),
    ]


def _picture(evaluation: Evaluation, entry: Picture) -> Element:
    """One triple and its caption."""
    names = evaluation.card["data"]["class_names"]
    images, times = triple(entry.image, entry.adv_image)
    said = [
        element("strong", f"{entry.group}: {evaluation.class_name(entry.label)}"),
        f"test image {entry.image_id}; predicted {names[entry.clean_prediction]}, "
        f"after {evaluation.column(entry.attack)} {names[entry.adv_prediction]}; change times {times:.3g}",
    ]
    return element("figure", images, element("figcaption", said[0], " ", said[1]))


def triple(image: np.ndarray, adv_image: np.ndarray) -> tuple[Element, float]:
    """An image, the same after an attack, and the change with what it is magnified by; float [H,W,C] in [0,1]."""
    change = adv_image - image
    # Without a change there is nothing to magnify.
    times = 0.5 / max(float(np.abs(change).max()), 1 / 255)
    shown = (
        ("image", image),
        ("adversarial image", adv_image),
        (f"change, {times:.3g} times", 0.5 + times * change),
    )
    return element("div", *(pixels_of(pixels, what) for what, pixels in shown), class_="triple"), times


def pixels_of(image: np.ndarray, what: str) -> Element:
    """An image, float [H,W,C] in [0,1], drawn with 8 bits."""
    return element("img", src=png(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)), class_="pixels", alt=what)


def effort(evaluation: Evaluation, efforts: Sequence[Effort]) -> list[Element]:
    """Accuracy after each attack, and survivors against network evaluations."""
    columns = evaluation.networks[evaluation.main]["columns"]
    number = evaluation.card["data"]["evaluated"]
    members = ["clean", *(attack["name"] for attack in evaluation.card["protocol"]["attacks"])]
    members += [name for name, _ in evaluation.card["protocol"]["combined"]]
    rows = [Row(evaluation.column(name), [charts.in_percent(columns[name]["overall"], 0)]) for name in members]
    label = f"Accuracy of {evaluation.main} in each column of the protocol."
    axis = Axis("right, % of the images", 0, 100)
    parts = [figure("Accuracy after each attack", charts.rows(label, rows, axis, bars=True))]
    remaining = {entry.attack: entry.remaining for entry in efforts}
    cells = [
        [
            evaluation.column(name),
            interval(columns[name]["overall"]),
            percent(remaining[name] / number) if name in remaining else NOTHING,
        ]
        for name in members
    ]
    note = (
        "Some attacks of a protocol see only the survivors of those before them; their columns count those as broken."
    )
    numbers = [
        folded(
            "Accuracy after each attack: the numbers",
            paragraph(note, class_="note"),
            table(["", "right, %", "under it and all above, %"], cells),
        )
    ]
    # What is judged at its last step only is a number, not a curve.
    curves = [entry for entry in efforts if len(set(entry.survivors)) > 2]
    if curves:
        series = [
            Series(evaluation.column(e.attack), e.evaluations, [100 * s / number for s in e.survivors], n, steps=True)
            for n, e in enumerate(curves)
        ]
        longest = max(max(entry.evaluations) for entry in curves)
        x = Axis("network evaluations spent on an image", 1, max(longest, 2), logarithmic=True)
        label = f"Images of {evaluation.main} that are still right against evaluations spent on each, by attack."
        chart = charts.lines(label, series, x, axis)
        parts.append(figure("Survivors against effort", chart, charts.legend([(s.name, s.style) for s in series])))
    if efforts:
        numbers.append(folded("Survivors against effort: the numbers", _effort_table(evaluation, efforts)))
    if efforts and not curves:
        line = (
            "All attacks of this protocol are judged at their last step: a curve needs --config.eval.protocol=standard."
        )
        numbers.append(paragraph(words(line), class_="missing"))
    return [
        paragraph(
            f"{evaluation.main}. An evaluation is a pass of the search; PGD counts at its last step, the attacks of "
            "AutoAttack at the first verified success.",
            class_="note",
        ),
        element("div", *parts, class_="figures"),
        *numbers,
    ]


def radii(evaluations: Sequence[Evaluation]) -> list[Element]:
    """Accuracy against the radius, for a network that was evaluated at several."""
    curves: dict[tuple[str, ...], dict[float, Mapping[str, Any]]] = {}
    titles = {}
    for evaluation in evaluations:
        card = evaluation.card
        for name, network in evaluation.distinct.items():
            column = network["columns"][evaluation.headline]["overall"]
            key = (
                card["protocol"]["name"],
                card["threat"]["norm"],
                card["data"]["test_labels_sha256"],
                name,
                network["params_sha256"],
            )
            curves.setdefault(key, {})[card["threat"]["radius"]] = column
            titles[key] = f"{name}, {evaluation.column(evaluation.headline)}"
    several = {key: dict(sorted(found.items())) for key, found in curves.items() if len(found) > 1}
    if not several:
        return []
    series = []
    for style, (key, found) in enumerate(several.items()):
        value, low, high = ([100 * estimate[name] for estimate in found.values()] for name in ("value", "low", "high"))
        series.append(Series(titles[key], list(found), value, style, low, high, dots=True))
    largest = max(max(entry.x) for entry in series)
    x, y = Axis("radius, 1/255", 0, largest), Axis("right, % of the images", 0, 100)
    rows = [[titles[key], f"{r:g}", interval(e)] for key, found in several.items() for r, e in found.items()]
    chart = charts.lines("Accuracy against the radius of the threat.", series, x, y)
    legend = charts.legend([(entry.name, entry.style) for entry in series])
    return [
        figure("Accuracy against the radius", chart, legend),
        folded("Accuracy against the radius: the numbers", table(["", "radius, 1/255", "right, %"], rows)),
    ]


def sanity(evaluations: Sequence[Evaluation]) -> list[Element]:
    """Every panel that was run: verdict, then its items."""
    parts = []
    for evaluation in evaluations:
        for name, network in evaluation.distinct.items():
            if not network["sanity"]:
                continue
            parts += [
                element("h3", name),
                paragraph(f"{evaluation.title}: ", badge(network["sanity_verdict"])),
                *_panel(evaluation, network["sanity"]),
            ]
    return parts


def _panel(evaluation: Evaluation, items: Sequence[Mapping[str, Any]]) -> list[Element]:
    """Items that failed or warn; the others are folded."""
    header = ["item", "verdict", "evidence"]
    doubtful = [item for item in items if item["status"] in ("fail", "warn")]
    others = [item for item in items if item not in doubtful]
    passed = sum(item["status"] == "pass" for item in others)
    title = f"{passed} items passed, {len(others) - passed} were skipped"
    shown = [table(header, [_item(evaluation, item) for item in doubtful], "words")] if doubtful else []
    return [*shown, folded(title, table(header, [_item(evaluation, item) for item in others], "words"))]


def badge(verdict: str | None) -> Element:
    """A panel's verdict, or that there is none."""
    kind = "none" if verdict is None else {"trustworthy": "pass", "not trustworthy": "fail"}.get(verdict, "warn")
    return element("span", verdict or "no sanity panel in this protocol", class_=f"badge {kind}")


def _item(evaluation: Evaluation, item: Mapping[str, Any]) -> list[str | Element]:
    """Cells of one item; what was found in single classes is folded."""
    names = evaluation.card["data"]["class_names"]
    mark = element("span", _MARKS.get(item["status"], item["status"]), class_=f"badge {item['status']}")
    found = [f"{names[index]}: {status}, {what}" for index, status, what in item["per_class"]]
    lines = element("ul", *(element("li", line) for line in found))
    evidence = element("div", item["evidence"], folded("class by class", lines) if found else None)
    return [f"{item['check']} ({item['id']})", mark, evidence]


def _effort_table(evaluation: Evaluation, efforts: Sequence[Effort]) -> Element:
    """Survivors at powers of ten and at the end."""
    points = [1, 10, 100, 1000]
    rows = []
    for entry in efforts:
        known = dict(zip(entry.evaluations, entry.survivors, strict=True))
        cells = [f"{known[point]:,}" if point in known else NOTHING for point in points]
        rows.append([evaluation.column(entry.attack), f"{entry.seen:,}", *cells, f"{entry.survivors[-1]:,}"])
    return table(["images right after", "0", *(f"{point:,}" for point in points), "the end"], rows)
