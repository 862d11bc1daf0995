"""Model cards: Markdown with YAML front matter, as model hubs read it, made from a run's result cards. No JAX."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltrobust.analysis import results
from ltrobust.analysis.evaluated_networks import EvaluatedNetworks
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.training import TrainingRecord
from ltrobust.report import tables
from ltrobust.report.numbers import markdown
from ltrobust.runtime.names import nearest

_NO_LICENSE = "# license: not known to this program; add one, such as license: mit"
_TRAINED = """## Use

The network takes float32 images [B,H,W,C] in [0,1], of shape {shape}, and returns logits. It does not normalise its
input. `ltrobust export RUN --to=torch|safetensors|stablehlo` writes it:

```python
state_dict = torch.load("model.pt", weights_only=True)  # or safetensors.torch.load_file("model.safetensors")
logits_fn = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes())).call
```"""
_FILE = """## Use

The weights are those of the file that the configuration below names. The network takes float32 images [B,H,W,C] in
[0,1], of shape {shape}, and returns logits. It does not normalise its input."""
_MODULE = """## Use

The network is the PyTorch module that the configuration below names. It takes float32 images [B,C,H,W] in [0,1], where
[H,W,C] is {shape}, and returns logits. Where it normalises its input, it does so itself."""
_USES = {"file": _FILE, "torch": _MODULE}  # by the first word of the network's name; any other can be exported


def render(workdir: Path, network: str) -> str:
    """The model card of a network, with all of its evaluations, the weightiest first.

    Args:
      workdir: folder of the run.
      network: such as `student/last`.

    Raises:
      ValueError: the network was not evaluated.
    """
    missing: dict[str, list[str]] = defaultdict(list)
    evaluations = results.evaluations(workdir, missing)
    result = [each for each in evaluations if network in each.networks]
    if not result:
        known = dict.fromkeys(name for each in evaluations for name in each.networks)
        raise ValueError(
            f"{workdir} has no evaluation of {network!r}, so there is nothing to say on its card; "
            f"{nearest(network, known)}evaluated networks: {', '.join(known) or 'none yet'}."
        )
    # One name may have had several networks, such as a function's whose code changed: the newest counts.
    newest = _digests(max(result, key=lambda each: each.card.created), network)
    result = [each for each in result if _digests(each, network) == newest]
    name = f"{workdir.resolve().name}-{network.replace('/', '-')}"
    lines = ["---", *_yaml(_front_matter(name, network, result)), _NO_LICENSE, "---", "", *_text(name, network, result)]
    return "\n".join(lines) + "\n"


def _digests(evaluation: EvaluatedNetworks, network: str) -> tuple[str | None, str | None]:
    """Of the network's parameters and running statistics."""
    result = evaluation.networks[network]
    return result.params_sha256, result.batch_stats_sha256


def _front_matter(name: str, network: str, evaluations: Sequence[EvaluatedNetworks]) -> dict[str, Any]:
    """What hubs read of a model."""
    card = evaluations[0].card
    tags = ["adversarial-robustness", "long-tailed-recognition", "ltrobust", card.model.name, _method(card, network)]
    return {
        "library_name": "ltrobust",
        "pipeline_tag": "image-classification",
        "tags": list(dict.fromkeys(filter(None, tags))),
        "datasets": [card.data.name],
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [_result(each, network) for each in evaluations]}],
    }


def _result(evaluation: EvaluatedNetworks, network: str) -> dict[str, Any]:
    """One evaluation in the form of a hub's `model-index`; values are shares of 1."""
    card, columns = evaluation.card, evaluation.networks[network].columns
    metrics = []
    for column in tables.shown_columns(card):
        attack = {} if column == "clean" else {"norm": card.threat.norm, "radius": f"{card.threat.radius:g}/255"}
        for view, words in tables.VIEWS.items():
            estimate = columns[column].view(view)
            if estimate is None or math.isnan(estimate.value):
                continue
            title = f"{evaluation.column(column)}, {words}"
            args = {"attack": column, **attack, "interval": [round(estimate.low, 6), round(estimate.high, 6)]}
            metrics.append({"type": "accuracy", "name": title, "value": round(estimate.value, 6), "args": args})
    data = {
        "type": card.data.name,
        "name": f"{card.data.name}, imbalance ratio {card.data.imbalance_ratio:g}",
        "split": "test",
        "args": {"images": card.data.evaluated, "protocol": card.protocol.name},
    }
    return {"task": {"type": "image-classification", "name": evaluation.title}, "dataset": data, "metrics": metrics}


def _text(name: str, network: str, evaluations: Sequence[EvaluatedNetworks]) -> Iterator[str]:
    """What people read."""
    card = evaluations[0].card
    data = card.data
    yield from (f"# {_cell(name)}", "")
    yield (
        f"{_cell(card.model.name)} with {card.model.parameters:,} parameters for the {len(data.class_names)} classes "
        f"of {_cell(data.name)}. These are the weights {_cell(network)}."
    )
    if trained := _training(card, network):
        threat = f" against {_cell(trained.threat.norm)} {trained.threat.radius:g}/255" if trained.threat else ""
        yield (
            f"They were trained by {_cell(_method(card, network))}{threat} on {sum(data.class_counts):,} images "
            f"(imbalance ratio {data.imbalance_ratio:g}, {min(data.class_counts):,} to {max(data.class_counts):,} per "
            "class)."
        )
    yield from ("", "## Accuracy", "", "In percent, with 95 % intervals. `tail` are the rarest third of the classes.")
    for evaluation in evaluations:
        yield from ("", f"### {_cell(evaluation.title)}", "", *_evaluation(evaluation, network))
    yield from ("", f"### Classes under {_cell(evaluations[0].title)}", "", *_classes(evaluations[0], network))
    yield from (
        "",
        _USES.get(network.partition("/")[0], _TRAINED).format(shape=list(data.image_shape or ())),
        "",
        "## Provenance",
        "",
    )
    yield from _provenance(network, evaluations)


def _evaluation(evaluation: EvaluatedNetworks, network: str) -> Iterator[str]:
    """The table of one evaluation, and what limits it."""
    card, result = evaluation.card, evaluation.networks[network]
    rows = [
        [evaluation.column(name), *(tables.percent(result.columns[name].view(view)) for view in tables.VIEWS)]
        for name in tables.shown_columns(card)
    ]
    yield from _table(["attack", *tables.VIEWS.values()], rows)
    if result.sanity_verdict:
        yield from ("", f"Sanity checks: {_cell(result.sanity_verdict)}.")
    if card.protocol.note:
        yield from ("", f"{_cell(card.protocol.note)}.")
    for warning in card.data.overlap.warnings if card.data.overlap else ():
        yield from ("", f"Warning: {_cell(warning)}.")


def _classes(evaluation: EvaluatedNetworks, network: str) -> Iterator[str]:
    """The table of classes; of many classes a part."""
    columns = {name: evaluation.networks[network].columns[name] for name in tables.shown_columns(evaluation.card)}
    counts, names = evaluation.card.data.class_counts, evaluation.names
    rows = [
        [names[index], f"{counts[index]:,}", *(tables.percent(column.per_class[index]) for column in columns.values())]
        for index in tables.shown_classes(len(names))
    ]
    return _table(["class", "training images", *(evaluation.column(name) for name in columns)], rows)


def _provenance(network: str, evaluations: Sequence[EvaluatedNetworks]) -> Iterator[str]:
    """Where the numbers and the weights come from."""
    card, result = evaluations[0].card, evaluations[0].networks[network]
    trained = _training(card, network)
    facts = {
        "seed": card.seed,
        "trained by commit": trained.software.get("commit", "unknown") if trained else "unknown",
        "evaluated by commit": card.software.get("commit", "unknown"),
        "software": ", ".join(f"{key} {value}" for key, value in card.software.items() if key != "commit"),
        "device": f"{card.numerics.devices} x {card.numerics.device} ({card.numerics.backend})",
        "command": card.command,
        "SHA-256 of parameters": result.params_sha256,
        "SHA-256 of running statistics": result.batch_stats_sha256,
        "SHA-256 of training images": card.data.fingerprints.get("pixels", "unknown"),
        "SHA-256 of the test split": card.data.test_images_sha256 or "unknown",
    }
    facts |= {f"result card, {each.title}": _digest(each.card) for each in evaluations}
    yield from _table(["what", "value"], [[key, str(value)] for key, value in facts.items()])
    configuration = json.dumps(card.config, indent=1, sort_keys=True)
    yield from ("", "<details><summary>Configuration</summary>", "", "```json", configuration, "```", "", "</details>")


def _training(card: Card, network: str) -> TrainingRecord | None:
    """How a network was trained; None for a file of weights."""
    return card.training.get(network.partition("/")[0])


def _method(card: Card, network: str) -> str:
    """By which method; empty for a file of weights."""
    return card.config[network.partition("/")[0]]["method"] if _training(card, network) else ""


def _digest(card: Card) -> str:
    """A card's date and digest."""
    return f"{card.created}, SHA-256 {card.sha256}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield from markdown([[_cell(cell) for cell in row] for row in (header, *rows)]).rstrip("\n").split("\n")


def _cell(text: str) -> str:
    """Text that neither ends a cell or a line nor is taken for HTML or Markdown: names of classes come from files."""
    text = tables.printable(" ".join(text.splitlines())).replace("<", "&lt;")
    return re.sub(r"[\\`\[\]|]", r"\\\g<0>", text)


def _json(item: Any) -> str:
    """JSON in ASCII, so that no control character, line separator or byte of another encoding stands in YAML."""
    return json.dumps(tables.printable(item) if isinstance(item, str) else item).replace("\x7f", "\\u007f")


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Lines of YAML, block style around JSON's texts and numbers, which YAML has too."""
    lines = []
    for key, item in value.items() if isinstance(value, Mapping) else ((None, item) for item in value):
        mark = "- " if key is None else f"{key}:"
        if not isinstance(item, Mapping | list):
            lines.append(f"{indent}{mark}{'' if key is None else ' '}{_json(item)}")
        elif key is None:
            first, *others = _yaml(item, f"{indent}  ")
            lines += [f"{indent}- {first.lstrip()}", *others]
        else:
            lines += [f"{indent}{mark}", *_yaml(item, f"{indent}  ")]
    return lines
