"""The page of a run: one self-contained HTML file. No JAX.

This module gathers what `templates/run.html.jinja` shows. A section without data is one line at the end of the page.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from ltrobust.analysis.evaluated_networks import EvaluatedNetworks
from ltrobust.analysis.schema.card import AttackRecord, Card, DataRecord
from ltrobust.data.overlap import Overlap
from ltrobust.report import accuracy, evidence, frame, history
from ltrobust.report.frame import Figure, Table
from ltrobust.report.material import Material
from ltrobust.report.numbers import NOTHING, Interval, interval, percent

_SECTIONS = {
    "summary": "Summary",
    "tail": "Head to tail",
    "pictures": "Adversarial images",
    "confusion": "Confusion",
    "networks": "Networks",
    "comparison": "Image by image",
    "teacher": "Teacher and student",
    "effort": "Attacks",
    "radius": "Radius",
    "training": "Training",
    "sanity": "Sanity checks",
    "provenance": "Provenance",
    "cost": "Cost",
}
# Reasons why a section may be empty in a correct run.
_EMPTY = {
    "comparison": "one network only: run ltrobust evaluate --workdir=DIR with --config.eval.checkpoint=teacher, and "
    "=student, under the same protocol.",
    "teacher": "no teacher was trained in this folder.",
    "pictures": "no adversarial image was kept.",
    "radius": "one radius only: run ltrobust evaluate --workdir=DIR with another --config.threat.radius for a curve.",
    "training": "no metrics.jsonl: nothing was trained in this folder.",
    "sanity": "the checks were not run: run ltrobust evaluate --workdir=DIR with --config.eval.protocol=standard.",
    "cost": "no times were recorded: train or evaluate in this folder.",
}
_NOT_EVALUATED = "nothing is evaluated yet: let training come to its end, or run ltrobust evaluate --workdir=DIR."
_CURVES = "all attacks of this protocol are judged at their last step: a curve needs --config.eval.protocol=standard."


def render(material: Material) -> str:
    """The page's text."""
    content = _content(material)
    shown = [(key, title) for key, title in _SECTIONS.items() if content[key]]
    missing = _missing(material, content)
    first = material.evaluations[0] if material.evaluations else None
    names = [(index, first.class_name(index)) for index in first.classes] if first else []
    return frame.render(
        "run.html.jinja",
        title=_name(material),
        kind="report",
        sections=shown + ([("missing", "Not recorded")] if missing else []),
        class_names=names,
        main=first.main if first else "",
        attacked=first.column(first.headline) if first else "",
        searched=(material.searched or first).title if first else "",
        missing=missing,
        shown_pictures=content.pop("pictures"),
        **content,
    )


def figures(material: Material) -> list[Figure]:
    """Every figure of the page, in its order."""
    content = _content(material)
    result: list[Figure] = []
    for part in content.values():
        result += _figures_of(part)
    return result


def _figures_of(part: Any) -> list[Figure]:
    """Figures in a section's content, at any depth."""
    if isinstance(part, Figure):
        return [part]
    inside = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else []
    return [figure for entry in inside for figure in _figures_of(entry)]


def _content(material: Material) -> dict[str, Any]:
    """Content of every section; empty or None for a section without data."""
    content: dict[str, Any] = dict.fromkeys(_SECTIONS)
    if material.evaluations:
        first, *others = material.evaluations
        content["summary"] = _summary(material, first, others)
        content["tail"] = accuracy.tail(first)
        content["pictures"] = evidence.pictures(first, material.pictures)
        content["confusion"] = accuracy.confusion(first)
        content["networks"] = accuracy.networks(first)
        content["comparison"] = accuracy.compared(first, material.comparisons)
        content["teacher"] = history.teaching(first, material.teaching)
        content["effort"] = evidence.effort(material.searched or first, material.efforts)
        content["radius"] = evidence.radii(material.evaluations)
        content["sanity"] = evidence.sanity(material.evaluations)
        content["provenance"] = {"entries": _provenance(first), "attacks": _attacks(first)}
    content["training"] = history.training(material.records)
    content["cost"] = history.cost(material.records, material.evaluations)
    return content


def _missing(material: Material, content: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Section -> what it lacks and how to have it."""
    lines = [] if material.evaluations else [("Evaluation", [_NOT_EVALUATED])]
    for key, title in _SECTIONS.items():
        # Cards that are not shown are a warning in the summary, if there is one.
        result = [] if key == "summary" and content[key] else list(material.missing.get(key, []))
        if key == "effort" and material.searched and evidence.needs_curves(material.searched, material.efforts):
            result.append(_CURVES)
        if not result and not content[key] and key in _EMPTY and (material.evaluations or key in ("training", "cost")):
            result = [_EMPTY[key]]
        if result:
            lines.append((title, result))
    return lines


def _name(material: Material) -> str:
    """The configuration that the card's command names, and the folder."""
    command = material.evaluations[0].card.command if material.evaluations else ""
    result = re.search(r"--config[= ](\S+)", command)
    config = result[1].rsplit("/", 1)[-1].removesuffix(".py") if result else ""
    return " / ".join(dict.fromkeys(part for part in (config, material.name) if part))


def _summary(material: Material, first: EvaluatedNetworks, others: list[EvaluatedNetworks]) -> dict[str, Any]:
    """Main results, in words and large numbers."""
    data, threat = first.card.data, first.card.threat
    columns = first.networks[first.main].columns
    clean, attacked = columns["clean"], columns[first.headline]
    title = first.column(first.headline)
    index, rarest = attacked.worst.class_index, attacked.tail_third
    worst = f"class {first.names[index]}, {data.class_counts[index]:,} training images"
    tiles = [_tile("clean", clean.overall, "test images without attack")]
    tiles.append(_tile(f"robust: {title}", attacked.overall, "test images under attack"))
    if rarest:
        number = len(first.groups["tail_third"])
        tiles.append(_tile("robust, tail", rarest, f"mean of the {number} rarest classes"))
    tiles.append(_tile("robust, worst class", attacked.worst, worst))
    if first.headline != "autoattack":
        result = [evaluation for evaluation in (first, *others) if first.same_subject(evaluation)]
        tiles += [_autoattack(first, e) for e in result if "autoattack" in e.networks[first.main].columns][:1]
    tail = f", and {percent(rarest.value)} % in the tail" if rarest else ""
    sentence = (
        f"Trained on {sum(data.class_counts):,} images of {data.name} in {len(data.class_names)} classes with "
        f"imbalance ratio {data.imbalance_ratio:g}, {first.main} ({first.card.model.name}) classifies "
        f"{percent(clean.overall.value)} % of the test images correctly. Under attack ({title}; "
        f"{threat.norm}, radius {threat.radius:g}/255) it is "
        f"{percent(attacked.overall.value)} %{tail}."
    )
    overlap = data.overlap.warnings if data.overlap else ()
    evaluations = [first, *others]
    return {
        "sentence": sentence,
        "tiles": tiles,
        "cost": _cost(material, first),
        "warnings": [*material.missing.get("summary", ()), *(f"{warning}." for warning in overlap)],
        "checks": [
            (e.title, [(name, *evidence.verdict_of(n.sanity_verdict)) for name, n in e.distinct.items()])
            for e in evaluations
            if any(network.sanity_verdict for network in e.distinct.values())
        ],
        "others": _others(others) if others else None,
    }


def _tile(what: str, estimate: Interval, note: str) -> dict[str, str]:
    """A large number with its interval."""
    if math.isnan(estimate.value):
        return {"what": what, "value": NOTHING, "spread": NOTHING, "note": note}
    spread = f"{percent(estimate.low)} to {percent(estimate.high)} %"
    return {"what": what, "value": percent(estimate.value), "spread": spread, "note": note}


def _autoattack(first: EvaluatedNetworks, other: EvaluatedNetworks) -> dict[str, str]:
    """AutoAttack's number; a part of the test images is named."""
    data = other.card.data
    part = f"{data.evaluated:,} of {data.test_images:,} " if data.evaluated < data.test_images else ""
    note = f"{part}test images under attack"
    return _tile("AutoAttack", other.networks[first.main].columns["autoattack"].overall, note)


def _cost(material: Material, first: EvaluatedNetworks) -> str:
    """Cost of the numbers, in a sentence."""
    numerics = first.card.numerics
    parts = [
        f"training the {phase} took {_time(result)}" for phase, result in history.seconds_of(material.records).items()
    ]
    parts.append(f"the command that wrote the newest card took {_time(first.card.seconds)}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}, on {numerics.devices} x {numerics.device}. Protocol {first.title}."


def _time(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _others(evaluations: list[EvaluatedNetworks]) -> Table:
    """One line per network of the evaluations that are not shown in full."""
    header = ["evaluation", "network", "clean, %", "headline, %", "headline, tail, %", "sanity checks"]
    rows = []
    for evaluation in evaluations:
        for name, network in evaluation.distinct.items():
            attacked = network.columns[evaluation.headline]
            cells = [interval(network.columns["clean"].overall), interval(attacked.overall)]
            cells += [interval(attacked.tail_third), network.sanity_verdict or NOTHING]
            rows.append([f"{evaluation.title}: {evaluation.column(evaluation.headline)}", name, *cells])
    return Table(header, rows)


def _provenance(evaluation: EvaluatedNetworks) -> list[tuple[str, str]]:
    """Everything that the numbers depend on."""
    card = evaluation.card
    data, threat, numerics = card.data, card.threat, card.numerics
    entries = {
        "command": card.command,
        "card": f"version {card.card_version}, {card.created}",
        "data": f"{data.name}, profile {data.profile}, split seed {data.split_seed}"
        + (f", class order {order}" if (order := card.config.get("data", {}).get("class_order")) else "")
        + "".join(f"; {note}" for note in (*data.notes, *data.test_notes)),
        "compared with the official data": _claims(data),
        "model": f"{card.model.name}, {card.model.parameters:,} parameters",
        "threat": f"{threat.norm}, radius {threat.radius:g}/255, pixels in [{threat.lower:g}, {threat.upper:g}]",
        "protocol": f"{card.protocol.name}; headline: {evaluation.column(evaluation.headline)}"
        + (f"; {card.protocol.note}" if card.protocol.note else ""),
        "test images": f"{data.evaluated:,} of {data.test_images:,} evaluated, "
        f"{'balanced' if data.test_balanced else 'not balanced'}",
        "images in two parts": _overlap(data.overlap),
        "seeds": f"evaluation {card.protocol.seed}"
        + "".join(f", {phase} {run.seed}" for phase, run in card.training.items()),
        "selection": card.selection_rule,
        **{
            f"{phase} starts from": f"{start.phase}/{start.weights} of {start.path} (step {start.step}), "
            f"{'the same' if start.same_images else 'other'} images; {start.schedule}"
            for phase, run in card.training.items()
            if (start := run.initial)
        },
        "commit": _commits(card),
        "device": f"{numerics.devices} x {numerics.device} ({numerics.backend})",
        "precision": f"{numerics.compute_dtype}, search matmul {numerics.search_matmul_precision}; verdicts "
        f"{numerics.verdicts}",
        "software": ", ".join(f"{name} {version}" for name, version in card.software.items() if name != "commit"),
    }
    return list(entries.items())


def _claims(data: DataRecord) -> str:
    """Results of the comparison with the official data, for both splits."""
    if data.claim is None and data.test_claim is None:
        return "not recorded"
    return f"training split: {data.claim or 'not recorded'}; test split: {data.test_claim}"


def _overlap(found: Overlap | None) -> str:
    """Which images the parts share."""
    if found is None:
        return "not compared"
    numbers = " with ".join(f"{number:,} {part}" for part, number in found.images.items())
    return f"compared: {numbers} images; " + ("; ".join((*found.warnings, *found.remarks)) or "none found")


def _commits(card: Card) -> str:
    """Commits and what each of them did, each commit once."""
    done = {"evaluation": card.software["commit"]}
    done |= {phase: run.software["commit"] for phase, run in card.training.items()}
    by_commit: dict[str, list[str]] = {}
    for what, commit in done.items():
        by_commit.setdefault(commit, []).append(what)
    return "; ".join(f"{commit} ({', '.join(what)})" for commit, what in by_commit.items())


def _attacks(evaluation: EvaluatedNetworks) -> Table:
    """Every attack with all of its settings, then the combinations."""
    protocol = evaluation.card.protocol
    rows = [[evaluation.column(attack.name), _settings(attack)] for attack in protocol.attacks]
    rows += [[evaluation.column(name), f"right under each of {', '.join(of)}"] for name, of in protocol.combined]
    return Table(["column", "settings"], rows)


def _settings(attack: AttackRecord) -> str:
    """Settings in one line; a radius of None is the threat's."""
    settings = {key: value for key, value in attack.settings.items() if value not in (None, [], "")}
    plain = ({"after": list(attack.after)} if attack.after else {}) | settings
    return ", ".join(f"{key} {', '.join(value) if isinstance(value, list) else value}" for key, value in plain.items())
