"""Sections of a run's page that support its numbers: pictures, effort of the attacks, radii, sanity checks. No JAX."""

from collections.abc import Sequence
from typing import Any

from ltrobust.analysis.evaluated_networks import EvaluatedNetworks
from ltrobust.report import charts
from ltrobust.report.charts import BLUE
from ltrobust.report.frame import Figure, Table, record, triple
from ltrobust.report.material import Effort, Picture
from ltrobust.report.numbers import NOTHING, Interval, interval, percent
from ltrobust.sanity.rules import Item

_RIGHT = "right, % of the images"
_MARKS = {"pass": "✓ pass", "warn": "! warn", "fail": "✗ fail", "skipped": "skipped"}


def pictures(evaluation: EvaluatedNetworks, found: Sequence[Picture]) -> list[list[dict[str, Any]]]:
    """Images before and after an attack: those that survive, then those that break; each list is a line of the page."""
    lines = []
    for survives in (True, False):
        shown = [entry for entry in found if (entry.adv_prediction == entry.label) == survives]
        if shown:
            lines.append([_picture(evaluation, entry) for entry in shown])
    return lines


def _picture(evaluation: EvaluatedNetworks, entry: Picture) -> dict[str, Any]:
    """One image and its caption."""
    names = evaluation.names
    images = triple(entry.image, entry.adv_image)
    under = [
        _prediction(names[entry.clean_prediction], entry.clean_confidence),
        _prediction(names[entry.adv_prediction], entry.adv_confidence),
        images[-1][1],
    ]
    what = "survives" if entry.adv_prediction == entry.label else "breaks"
    return {
        "images": images,
        "under": under,
        "title": f"{entry.group} {what}: {evaluation.class_name(entry.label)}",
        "caption": f"test image {entry.image_id}, {evaluation.column(entry.attack)}",
    }


def _prediction(name: str, probability: float) -> str:
    """A predicted class with its probability."""
    return f"{name}: {percent(probability)}\u00a0%"


def effort(evaluation: EvaluatedNetworks, efforts: Sequence[Effort]) -> list[Figure]:
    """Accuracy after each attack, and survivors against network evaluations."""
    columns = evaluation.networks[evaluation.main].columns
    images = evaluation.card.data.evaluated
    members = ["clean", *(attack.name for attack in evaluation.card.protocol.attacks)]
    members += [name for name, _ in evaluation.card.protocol.combined]
    remaining = {entry.attack: percent(entry.remaining / images) for entry in efforts}
    rows = [
        [evaluation.column(name), interval(columns[name].overall), remaining.get(name, NOTHING)] for name in members
    ]
    records = [record(columns[name].overall, evaluation.column(name)) for name in members]
    spec = charts.rows(records, _RIGHT, (BLUE,), domain=(0, 100), bars=True)
    table = Table(["", "right, %", "under it and all above, %"], rows)
    figures = [Figure("attacks", "Accuracy after each attack", spec, table)]
    # An attack that is judged at its last step only gives a number, not a curve.
    curves = [entry for entry in efforts if len(set(entry.survivors)) > 2]
    if not curves:
        return figures
    points = [
        {"x": spent, "x_text": f"{spent:,} evaluations", "series": evaluation.column(entry.attack)}
        | {"value": 100 * survivors / images, "text": f"{percent(survivors / images)} %"}
        for entry in curves
        for spent, survivors in zip(entry.evaluations, entry.survivors, strict=True)
    ]
    x_title = "network evaluations spent on an image"
    spec = charts.lines(points, x_title, _RIGHT, domain=(0, 100), log_x=True, steps=True)
    # A single curve has no legend.
    title = "Survivors against effort" + (f": {evaluation.column(curves[0].attack)}" if len(curves) == 1 else "")
    return [*figures, Figure("survivors", title, spec, _survivors(evaluation, efforts))]


def needs_curves(evaluation: EvaluatedNetworks, efforts: Sequence[Effort]) -> bool:
    """Whether there are efforts and all of them are judged at their last step only."""
    early = any(attack.after for attack in evaluation.card.protocol.attacks)  # such an attack ends at its success
    return bool(efforts) and not early and not any(len(set(entry.survivors)) > 2 for entry in efforts)


def _survivors(evaluation: EvaluatedNetworks, efforts: Sequence[Effort]) -> Table:
    """Survivors at powers of ten and at the end."""
    places = [1, 10, 100, 1000]
    rows = []
    for entry in efforts:
        known = dict(zip(entry.evaluations, entry.survivors, strict=True))
        cells = [f"{known[place]:,}" if place in known else NOTHING for place in places]
        rows.append([evaluation.column(entry.attack), f"{entry.seen:,}", *cells, f"{entry.survivors[-1]:,}"])
    return Table(["images right after", "0", *(f"{place:,}" for place in places), "the end"], rows)


def radii(evaluations: Sequence[EvaluatedNetworks]) -> list[Figure]:
    """Accuracy against the radius, for networks that were evaluated at several."""
    curves: dict[tuple[str, ...], dict[float, Interval]] = {}
    titles = {}
    for evaluation in evaluations:
        card = evaluation.card
        for name, network in evaluation.distinct.items():
            labels = card.data.test_labels_sha256
            key = (card.protocol.name, card.threat.norm, labels, name, network.params_sha256)
            curves.setdefault(key, {})[card.threat.radius] = network.columns[evaluation.headline].overall
            titles[key] = f"{name}, {evaluation.column(evaluation.headline)}"
    several = {key: dict(sorted(result.items())) for key, result in curves.items() if len(result) > 1}
    if not several:
        return []
    points = [
        record(estimate, titles[key], titles[key]) | {"x": radius, "x_text": f"radius {radius:g}/255"}
        for key, result in several.items()
        for radius, estimate in result.items()
    ]
    rows = [[titles[key], f"{r:g}", interval(e)] for key, result in several.items() for r, e in result.items()]
    spec = charts.lines(points, "radius, 1/255", _RIGHT, domain=(0, 100), dots=True)
    table = Table(["", "radius, 1/255", "right, %"], rows)
    return [Figure("radius-curve", "Accuracy against the radius", spec, table)]


def sanity(evaluations: Sequence[EvaluatedNetworks]) -> list[dict[str, Any]]:
    """Every panel that was run: verdict, then its items, doubtful ones first."""
    panels = []
    for evaluation in evaluations:
        for name, network in evaluation.distinct.items():
            if not network.sanity:
                continue
            items = [_item(evaluation, item) for item in network.sanity]
            doubtful = [item for item in items if item["status"] in ("fail", "warn")]
            others = [item for item in items if item not in doubtful]
            passed = sum(item["status"] == "pass" for item in others)
            parts = [(f"{len(doubtful)} failed or with a warning", doubtful)] if doubtful else []
            parts.append((f"{passed} passed, {len(others) - passed} skipped", others))
            verdict, kind = verdict_of(network.sanity_verdict)
            panels.append(
                {"name": name, "title": evaluation.title, "verdict": verdict, "kind": kind}
                | {"doubtful": bool(doubtful), "parts": parts}
            )
    return panels


def verdict_of(verdict: str | None) -> tuple[str, str]:
    """A panel's verdict, or `not run`, and its kind for the style sheet."""
    kind = "none" if verdict is None else {"trustworthy": "pass", "not trustworthy": "fail"}.get(verdict, "warn")
    return verdict or "not run in this protocol", kind


def _item(evaluation: EvaluatedNetworks, item: Item) -> dict[str, Any]:
    """One check, with its results in single classes."""
    result = [f"{evaluation.names[index]}: {status}, {what}" for index, status, what in item.per_class]
    shown = {"id": item.id, "check": item.check, "status": item.status, "evidence": item.evidence}
    mark = _MARKS.get(item.status, item.status) + ("" if item.required or item.status != "fail" else ", not required")
    return shown | {"mark": mark, "by_class": result}
