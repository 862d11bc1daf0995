"""Tables for README and docs, made from committed cards alone, between markers that a test checks. No JAX.

python -m ltrobust.reporting.summary        rewrites the tables in README.md and docs/reproducing.md
"""

import collections
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NUMBERS = (
    ("clean, all", "clean", "overall"),
    ("PGD-20, all", "pgd20", "overall"),
    ("PGD-20, tail", "pgd20", "tail_third"),
    ("worst of attacks, tail", "worst", "tail_third"),
    ("PGD-20, worst class", "pgd20", "worst"),
)


def over_seeds(values: Sequence[float]) -> str:
    """Mean of a number over training seeds, in percent: `62.60 ± 3.10 [58.75, 66.45]`.

    ± is the sample deviation (n - 1), the bracket the 95 % t-interval of the mean.
    """
    percent = 100 * np.asarray(values, np.float64)
    deviation = float(np.std(percent, ddof=1))
    half = float(stats.t.ppf(0.975, len(percent) - 1)) * deviation / math.sqrt(len(percent))
    mean = float(np.mean(percent))
    return f"{mean:.2f} ± {deviation:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def one_run(estimate: Mapping[str, float]) -> str:
    """A number of a single run, in percent, with its 95 % interval over test images: `28.41 [27.53, 29.30]`."""
    return f"{100 * estimate['value']:.2f} [{100 * estimate['low']:.2f}, {100 * estimate['high']:.2f}]"


def load(folder: Path) -> list[dict[str, Any]]:
    """The cards in a folder, by name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def network_table(cards: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one row per student's method and network, numbers over seeds."""
    groups: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = collections.defaultdict(dict)
    for card in cards:
        for name, network in card["networks"].items():
            groups[card["config"]["student"]["method"], name][card["config"]["seed"]] = network
    rows = [["student's method", "network", "seeds", *(title for title, _, _ in NUMBERS)]]
    for (method, name), networks in sorted(groups.items()):
        found = [[network["columns"][c][v] for network in networks.values()] for _, c, v in NUMBERS]
        several = len(networks) > 1
        cells = [over_seeds([e["value"] for e in es]) if several else one_run(es[0]) for es in found]
        rows.append([method, name, str(len(networks)), *cells])
    return markdown(rows)


def difference_table(cards: Sequence[Mapping[str, Any]], first: str, second: str, network: str) -> str:
    """Markdown: `first` minus `second` by method, for one network, paired by training seed."""
    by_method: dict[str, dict[int, Mapping[str, Any]]] = collections.defaultdict(dict)
    for card in cards:
        by_method[card["config"]["student"]["method"]][card["config"]["seed"]] = card["networks"][network]["columns"]
    seeds = sorted(by_method[first].keys() & by_method[second].keys())
    rows = [["difference", "seeds", *(title for title, _, _ in NUMBERS)]]
    differences = [
        over_seeds([by_method[first][s][c][v]["value"] - by_method[second][s][c][v]["value"] for s in seeds])
        for _, c, v in NUMBERS
    ]
    rows.append([f"{first} minus {second}, {network}", str(len(seeds)), *differences])
    return markdown(rows)


def results(root: Path) -> str:
    """Everything between the markers."""
    parts = []
    for folder in sorted(path for path in (root / "results").iterdir() if path.is_dir()):
        cards = load(folder)
        card = cards[0]
        data, threat = card["data"], card["threat"]
        devices = sorted({f"{c['numerics']['device']} ({c['numerics']['backend']})" for c in cards})
        commits = sorted({run["software"]["commit"][:12] for c in cards for run in c["training"].values()})
        parts.append(
            f"**`configs/{folder.name}.py`**: {data['name']}, imbalance ratio {data['imbalance_ratio']:g} "
            f"({sum(data['class_counts'])} training images), {card['model']['name']} "
            f"({card['model']['parameters']:,} parameters), {threat['norm']} {threat['radius']:g}/255, "
            f"all {data['evaluated']} test images, protocol `{card['protocol']['name']}`; device {', '.join(devices)}; "
            f"trained at commit {', '.join(commits)}. Percent; tail: the last "
            f"{card['networks']['student/last']['columns']['clean']['tail_third']['classes']} classes.\n"
        )
        parts.append(network_table(cards))
        if {c["config"]["student"]["method"] for c in cards} >= {"self_distillation", "at_bsl"}:
            parts.append(difference_table(cards, "self_distillation", "at_bsl", "student/last"))
    return "\n".join(parts)


def inserted(text: str, block: str) -> str:
    """The text with the block between the markers.

    Raises:
      ValueError: the text lacks the markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the page must hold {BEGIN} and {END} once each.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def main(root: Path) -> None:
    """Rewrites the tables of the pages under `root`."""
    for page in (root / "README.md", root / "docs" / "reproducing.md"):
        page.write_text(inserted(page.read_text(), results(root)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
