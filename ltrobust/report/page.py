"""The page of a run: one HTML file that needs nothing else. No JAX, no script, nothing from a network.

Sections are functions from what was read (`material.py`) to elements; a section that lacks something says what to run.
"""

import re
from collections.abc import Mapping
from typing import Any

from ltrobust.analysis.evaluations import Evaluation
from ltrobust.report import accuracy, confusion, differences, evidence, frame, history, teaching
from ltrobust.report.markup import NOTHING, Element, element, folded, interval, paragraph, table, words
from ltrobust.report.material import Material

_EVALUATE = "Nothing is evaluated yet: let training come to its end, or run ltrobust evaluate --workdir=DIR."
# Why a section may be empty although everything went well.
_NOTHING = {
    "comparison": "One network only: run ltrobust evaluate --workdir=DIR with --config.eval.checkpoint=teacher, and "
    "=student, under the same protocol.",
    "teacher": "No teacher was trained in this folder.",
    "pictures": "No image was broken.",
    "radius": "One radius only: run ltrobust evaluate with another --config.threat.radius to have a curve.",
    "training": "No metrics.jsonl: nothing was trained in this folder.",
    "sanity": "The panel was not run: run ltrobust evaluate --workdir=DIR with --config.eval.protocol=standard.",
    "cost": "No times were recorded: train or evaluate in this folder.",
}


def render(material: Material) -> str:
    """The page's text."""
    sections = [
        ("summary", "Summary", _summary(material)),
        ("classes", "Classes", _of_first(material, accuracy.classes)),
        ("tail", "Tail robustness", _of_first(material, accuracy.tail)),
        ("confusion", "Confusion under attack", _of_first(material, confusion.section)),
        (
            "comparison",
            "Networks compared",
            _of_first(material, lambda e: differences.section(e, material.comparisons)),
        ),
        ("teacher", "Teacher and student", _of_first(material, lambda e: teaching.section(e, material.teaching))),
        ("pictures", "Adversarial images", _of_first(material, lambda e: evidence.pictures(e, material.pictures))),
        ("effort", "Effort of the attacks", _of_first(material, lambda e: evidence.effort(e, material.efforts))),
        ("radius", "Radius", evidence.radii(material.evaluations)),
        ("training", "Training", history.training(material.records)),
        ("sanity", "Sanity panel", evidence.sanity(material.evaluations)),
        ("cost", "Cost", history.cost(material.records, material.evaluations)),
    ]
    made = [(identity, title, _with_missing(material, identity, content)) for identity, title, content in sections]
    return frame.whole(_name(material), "report", made)


def _with_missing(material: Material, identity: str, content: list[Element]) -> list[Element]:
    """A section's content, with a line for everything that it lacks."""
    lines = list(material.missing.get(identity, []))
    if not content and not lines:
        needs_card = identity not in ("training", "cost")
        lines = [_EVALUATE if needs_card and not material.evaluations else _NOTHING.get(identity, _EVALUATE)]
    return [*content, *(paragraph(words(line), class_="missing") for line in lines)]


def _of_first(material: Material, make) -> list[Element]:
    """A section of the evaluation that is shown in full."""
    return make(material.evaluations[0]) if material.evaluations else []


def _name(material: Material) -> str:
    """The configuration that the card's command names, and the folder."""
    command = material.evaluations[0].card["command"] if material.evaluations else ""
    found = re.search(r"--config[= ](\S+)", command)
    config = found[1].rsplit("/", 1)[-1].removesuffix(".py") if found else ""
    return " / ".join(dict.fromkeys(part for part in (config, material.name) if part))


def _summary(material: Material) -> list[Element]:
    """What was run, what came out, and whether to believe it."""
    if not material.evaluations:
        return []
    first, *others = material.evaluations
    data = first.card["data"]
    verdicts = [_believed(evaluation) for evaluation in material.evaluations]
    what = (
        f"{data['name']}, imbalance ratio {data['imbalance_ratio']:g}, {sum(data['class_counts']):,} training images "
        f"in {len(data['class_names'])} classes; {first.card['model']['name']}; {first.title}."
    )
    return [
        paragraph(what),
        *(
            paragraph(f"Warning: {sentence}.", class_="missing")
            for sentence in data.get("overlap", {}).get("warnings", ())
        ),
        *accuracy.headline(first),
        element("h3", "To be believed?"),
        element("ul", *verdicts),
        element("h3", "Passport"),
        _passport(first),
        folded("Attacks and their settings", _attacks(first)),
        *([element("h3", "Other evaluations in this folder"), _others(others)] if others else []),
    ]


def _believed(evaluation: Evaluation) -> Element:
    """An evaluation's sanity verdicts in a line."""
    judged = {name: network["sanity_verdict"] for name, network in evaluation.distinct.items()}
    if not any(judged.values()):
        return element("li", f"{evaluation.title}: ", evidence.badge(None))
    pieces = [piece for name, verdict in judged.items() for piece in (f" {name} ", evidence.badge(verdict), ";")]
    return element("li", f"{evaluation.title}:", *pieces[:-1])


def _passport(evaluation: Evaluation) -> Element:
    """What the numbers depend on."""
    card = evaluation.card
    data, threat, numerics = card["data"], card["threat"], card["numerics"]
    entries = {
        "command": words(card["command"]),
        "card": f"version {card['card_version']}, {card['created']}",
        "data": f"{data['name']}, profile {data['profile']}, split seed {data['split_seed']}"
        + "".join(f"; {note}" for note in (*data["notes"], *data["test_notes"])),
        "compared with the official data": _claims(data),
        "model": f"{card['model']['name']}, {card['model']['parameters']:,} parameters",
        "threat": f"{threat['norm']}, radius {threat['radius']:g}/255, pixels in [{threat['lower']:g}, "
        f"{threat['upper']:g}]",
        "protocol": f"{card['protocol']['name']}; headline: {evaluation.column(evaluation.headline)}"
        + (f"; {card['protocol']['note']}" if card["protocol"]["note"] else ""),
        "test images": f"{data['evaluated']:,} of {data['test_images']:,} evaluated, "
        f"{'balanced' if data['test_balanced'] else 'not balanced'}",
        "images in two parts": _overlap(data),
        "seeds": f"evaluation {card['protocol']['seed']}"
        + "".join(f", {phase} {run['seed']}" for phase, run in card["training"].items()),
        "selection": card["selection_rule"],
        **{
            f"{phase} starts from": f"{start['phase']}/{start['weights']} of {start['path']} (step {start['step']}), "
            f"{'the same' if start['same_images'] else 'other'} images; {start['schedule']}"
            for phase, run in card["training"].items()
            if (start := run.get("initial"))
        },
        "commit": _commits(card),
        "device": f"{numerics['devices']} x {numerics['device']} ({numerics['backend']})",
        "precision": f"{numerics['compute_dtype']}, search matmul {numerics['search_matmul_precision']}; verdicts "
        f"{numerics['verdicts']}",
        "software": ", ".join(f"{name} {version}" for name, version in card["software"].items() if name != "commit"),
    }
    parts = [part for name, value in entries.items() for part in (element("dt", name), element("dd", value))]
    return element("dl", *parts)


def _claims(data: Mapping[str, Any]) -> str:
    """What was compared with the official data, of both splits."""
    if "claim" not in data:
        return "not recorded"
    return f"training split: {data['claim'] or 'not recorded'}; test split: {data['test_claim']}"


def _overlap(data: Mapping[str, Any]) -> str:
    """Which images the parts share."""
    found = data.get("overlap")
    if not found:
        return "not compared"
    numbers = " with ".join(f"{number:,} {part}" for part, number in found["images"].items())
    return f"compared: {numbers} images; " + ("; ".join((*found["warnings"], *found["remarks"])) or "none found")


def _commits(card: Mapping[str, Any]) -> str:
    """Which commit did what, each commit once."""
    done = {"evaluation": card["software"]["commit"]}
    done |= {phase: run["software"]["commit"] for phase, run in card["training"].items()}
    by_commit: dict[str, list[str]] = {}
    for what, commit in done.items():
        by_commit.setdefault(commit, []).append(what)
    return "; ".join(f"{commit} ({', '.join(what)})" for commit, what in by_commit.items())


def _attacks(evaluation: Evaluation) -> Element:
    """Every attack with all of its settings, then what is combined."""
    protocol = evaluation.card["protocol"]
    rows = [[evaluation.column(attack["name"]), _settings(attack)] for attack in protocol["attacks"]]
    rows += [[evaluation.column(name), f"right under each of {', '.join(of)}"] for name, of in protocol["combined"]]
    return table(["column", "settings"], rows)


def _settings(attack: Mapping[str, Any]) -> str:
    """Settings in one line; a radius of None is the threat's."""
    plain = {key: value for key, value in attack.items() if key != "name" and value not in (None, [], "")}
    return ", ".join(f"{key} {', '.join(value) if isinstance(value, list) else value}" for key, value in plain.items())


def _others(evaluations: list[Evaluation]) -> Element:
    """One line per network of the evaluations that are not shown in full."""
    rows = []
    for evaluation in evaluations:
        for name, network in evaluation.distinct.items():
            attacked = network["columns"][evaluation.headline]
            tail = attacked.get("tail_third")
            cells = [interval(network["columns"]["clean"]["overall"]), interval(attacked["overall"])]
            rows.append(
                [
                    evaluation.title,
                    name,
                    evaluation.column(evaluation.headline),
                    *cells,
                    interval(tail) if tail else NOTHING,
                    evidence.badge(network["sanity_verdict"]),
                ]
            )
    return table(["evaluation", "network", "headline", "clean, %", "headline, %", "headline, tail, %", "panel"], rows)
