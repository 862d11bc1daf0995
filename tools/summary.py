"""Tables for README and docs, made from committed cards alone, between markers. No JAX.

python -m tools.summary        rewrites the tables in README.md and docs/
python -m tools.check_pages    names the pages that are older than the cards

A page of docs/results/ shows the cards of `results/NAME/` between the markers `recipe-NAME`, and those of
`results/sweeps/NAME/` between the markers `sweep-NAME`.
"""

import collections
import dataclasses
import functools
import re
import runpy
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ltrobust.analysis import diagnose_runs
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import NetworkResult
from ltrobust.report import diagnosis, grid
from ltrobust.report.numbers import differences, markdown, of_columns
from tools import claims, gradients, headline, study_page
from tools.committed import read_card, remarks

README = "README.md"
PAGES = Path("docs") / "results"  # the folder of the pages of cards
CONFIGS = "../.."  # from there to the root
# Of `results/`: the folder of the folders of sweeps.
SWEEPS = "sweeps"
AGREEMENT = "agreement"
DIAGNOSIS = "diagnosis"  # what `ltrobust diagnose` wrote
EVIDENCE = "evidence"  # weights and predictions (tools/evidence.py)
OFFSETS = "offset"  # folders of what `ltrobust offset` wrote of the networks of sweeps
# What a sweep's other variants are compared with: adversarial training without class counts, and with them in its loss.
BASELINE, COUNTING = "pgd_at", "at_bsl"
# What the others' gains by class are compared with: distillation from the balanced teacher.
REFERENCE = "self_distillation"


def load(folder: Path) -> list[Card]:
    """The cards in a folder, by name."""
    return [read_card(path) for path in sorted(folder.glob("*.json"))]


def network_table(cards: Sequence[Card], wanted: Collection[str] | None = None) -> str:
    """Markdown: one row per student's method and network (None: all), numbers over seeds."""
    groups: dict[tuple[str, str], dict[int, NetworkResult]] = collections.defaultdict(dict)
    for card in cards:
        for name in card.networks if wanted is None else wanted:
            groups[card.method, name][card.seed] = card.networks[name]
    quoted = of_columns(cards[0].networks[grid.LAST].columns)
    rows = [["student's method", "network", "seeds", *(title for title, _, _ in quoted)]]
    counts = cards[0].data.class_counts
    for (method, name), networks in sorted(groups.items()):
        cells = [grid.cell([network.columns[c] for network in networks.values()], v, counts) for _, c, v in quoted]
        rows.append([method, name, str(len(networks)), *cells])
    return markdown(rows)


def difference_table(cards: Sequence[Card], first: str, second: str, network: str) -> str:
    """Markdown: `first` minus `second` by method, for one network, paired by training seed."""
    pairs = _pairs([(card.method, card) for card in cards], first, second, network)
    quoted = of_columns(cards[0].networks[network].columns)
    result = grid.differences_of([(one.columns, two.columns) for one, two in pairs], quoted, cards[0].data.class_counts)
    row = (f"{first} minus {second}, {network}", len(pairs), result)
    return differences([title for title, _, _ in quoted], [row])


def _pairs(
    cards: Sequence[tuple[str, Card]], first: str, second: str, network: str = grid.LAST
) -> list[tuple[NetworkResult, NetworkResult]]:
    """A network of two variants, by the seeds that both have."""
    by_variant: dict[str, dict[int, NetworkResult]] = collections.defaultdict(dict)
    for variant, card in cards:
        by_variant[variant][card.seed] = card.networks[network]
    common = sorted(by_variant[first].keys() & by_variant[second].keys())
    return [(by_variant[first][seed], by_variant[second][seed]) for seed in common]


def recipes(root: Path) -> list[str]:
    """Recipes with cards: the folders of `results/` that hold JSON files and are of no other kind."""
    folders = {path.parent.name for path in (root / "results").glob("*/*.json")}
    return sorted(folders - {SWEEPS, AGREEMENT, DIAGNOSIS, EVIDENCE, OFFSETS})


def sweeps(root: Path) -> list[str]:
    """Sweeps with cards: the folders of `results/sweeps/`."""
    return sorted(path.name for path in (root / "results" / SWEEPS).glob("*/"))


def recipe(root: Path, name: str, networks: Collection[str] | None = None, up: str = CONFIGS) -> str:
    """Markdown of the cards in `results/NAME/`: what they depend on, networks, and the differences of two methods.

    Args:
      networks: the rows; None: all, and the differences after them.
      up: path from the page to the root.
    """
    cards = load(root / "results" / name)
    file = f"configs/{name}.py"
    parts = [f"[`{file}`]({up}/{file}): {_described(cards)}\n", network_table(cards, networks)]
    if networks is None and {card.method for card in cards} >= {REFERENCE, COUNTING}:
        parts.append(grid.render_primary([(card.method, card) for card in cards]))
        parts.append(difference_table(cards, REFERENCE, COUNTING, grid.LAST))
    return "\n".join(parts)


def short(root: Path) -> str:
    """README's table."""
    return headline.table(root)


def sweep(root: Path, name: str) -> str:
    """Markdown of the cards in `results/sweeps/NAME/`: a row for each variant, then differences.

    A card's file is named as the sweep names its cell, `at_bsl-imbalance_ratio50.0-seed0`: the variant, the place on
    the axes, each of which has separate tables, and the seed.

    Raises:
      ValueError: cards that differ in data set, test images, protocol or threat (names the card).
    """
    paths = sorted((root / "results" / SWEEPS / name).glob("*.json"), key=lambda path: path.stem.split("-seed"))
    cards = [read_card(path) for path in paths]
    places: dict[str, list[tuple[str, Card]]] = collections.defaultdict(list)
    for path, card in zip(paths, cards, strict=True):
        if _shared(card) != _shared(cards[0]):
            raise ValueError(
                f"{path} was not evaluated as {paths[0].name} was ({_shared(card)} and {_shared(cards[0])}); "
                "cards of one sweep have the same data set, test images, protocol and threat."
            )
        variant, _, place = path.stem.split("-seed")[0].partition("-")
        places[place].append((variant, card))
    file = f"configs/{SWEEPS}/{name}.py"
    parts = []
    declared = _declared(root / file)
    for place, group in sorted(places.items(), key=lambda item: item[1][0][1].data.imbalance_ratio):
        if len(places) > 1:
            parts.append(f"### {re.sub('(?<=[a-z])(?=[0-9])', ' ', place).replace('_', ' ')}\n")
        described = _described([card for _, card in group])
        parts.append(f"[`{file}`]({CONFIGS}/{file}), {len(group)} runs: {described}\n")
        parts.append(grid.render(("variant",), [((variant,), card) for variant, card in group]))
        for variant, card in group:
            parts += remarks(variant, {card.seed: card.networks[grid.LAST]})
        if name in study_page.SWEEPS:  # one comparison has one corrected p
            parts.append("Differences from AT-BSL: [study](../study.md).\n")
        else:
            parts.append(grid.render_primary(group, declared))
            parts.append(grid.render_differences(group, BASELINE))
            parts.append(grid.render_differences([pair for pair in group if pair[0] != BASELINE], COUNTING))
        parts.append(grid.render_gains(group, BASELINE, REFERENCE))
    if (alike := root / "results" / AGREEMENT / name).is_dir():
        parts.append("Input gradients of student and teacher on test images (`ltrobust agree`)\n")
        parts.append(gradients.render(alike))
    return "\n".join(parts) or "No card is here yet.\n"


def _declared(file: Path) -> tuple[str, str]:
    """The variants of a sweep's primary comparison: the file's own, or the default."""
    return runpy.run_path(str(file)).get("PRIMARY", grid.PRIMARY) if file.is_file() else grid.PRIMARY


def diagnoses(root: Path) -> str:
    """Each diagnosis in `results/diagnosis/` as the terminal shows it, and what it is of."""
    parts = []
    for path in sorted((root / "results" / DIAGNOSIS).glob("*.json")):
        result = diagnose_runs.read(path)
        # JSON on disk has sorted keys; the terminal shows columns in the protocol's order.
        columns = [
            "clean",
            *(attack.name for attack in result.protocol.attacks),
            *(n for n, _ in result.protocol.combined),
        ]
        models = [
            dataclasses.replace(model, columns={column: model.columns[column] for column in columns})
            for model in result.models
        ]
        result = dataclasses.replace(result, models=models)
        caption = (
            f"{', '.join(model.name for model in models)}; {result.threat.norm} {result.threat.radius:g}/255, "
            f"{result.images.number} test images, protocol `{result.protocol.name}`; written at commit "
            f"{result.software['commit'][:12]}."
        )
        parts.append(f"## {path.stem}\n\n{caption}\n\n```text\n{diagnosis.text(result)}\n```\n")
    return "\n".join(parts) or "No diagnosis is here yet.\n"


def _shared(card: Card) -> tuple[str | float, ...]:
    """What cards of one table have in common."""
    data, threat = card.data, card.threat
    return data.name, data.test_labels_sha256[:8], card.protocol.name, threat.norm, threat.radius


def _described(cards: Sequence[Card]) -> str:
    """What the numbers of a table depend on."""
    card = cards[0]
    data, threat = card.data, card.threat
    devices = sorted({f"{c.numerics.device} ({c.numerics.backend})" for c in cards})
    commits = sorted({run.software["commit"][:12] for c in cards for run in c.training.values()})
    tail = next(iter(card.networks.values())).columns["clean"].tail_third
    some = data.evaluated < data.test_images
    images = f"{data.evaluated} of {data.test_images}" if some else f"all {data.evaluated}"
    return (
        f"{data.name}, imbalance ratio {data.imbalance_ratio:g} "
        f"({sum(data.class_counts)} training images), {card.model.name} "
        f"({card.model.parameters:,} parameters), {threat.norm} {threat.radius:g}/255, "
        f"{images} test images, protocol `{card.protocol.name}`; device {', '.join(devices)}; "
        f"trained at commit {', '.join(commits)}. Percent; tail: the {tail.classes if tail else 0} rarest classes."
    )


def inserted(text: str, block: str, name: str = "results") -> str:
    """The text with the block between the markers `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

    Raises:
      ValueError: the text lacks the markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the page must hold {begin} and {end} once each.")
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n{block}\n{end}{after}"


def rewrite(page: Path, block: str, name: str) -> None:
    """Replaces what a page has between the markers NAME.

    Raises:
      ValueError: see `inserted`.
    """
    page.write_text(inserted(page.read_text(), block, name))


def blocks(root: Path) -> list[tuple[str, str, Callable[[], str]]]:
    """Page, marker and content of everything that this module writes."""
    result: list[tuple[str, str, Callable[[], str]]] = [
        (README, "results", functools.partial(short, root)),
        ("docs/results/classes.md", "results", functools.partial(diagnoses, root)),
        (study_page.PAGE, "controls", functools.partial(study_page.controls, root)),
        (study_page.PAGE, "passes", functools.partial(study_page.passes, root)),
    ]
    for page, marker in _of_cards(root):
        kind, _, name = marker.partition("-")
        result.append((page, marker, functools.partial(recipe if kind == "recipe" else sweep, root, name)))
    for page, marker in claims.markers(root):
        result.append((page, marker, functools.partial(claims.block, root, page, marker)))
    return result


def _of_cards(root: Path) -> list[tuple[str, str]]:
    """Every page of docs/results/ with one of its markers of cards."""
    pages = sorted((root / PAGES).glob("*.md"))
    pattern = re.compile(r"<!-- ((?:recipe|sweep)-[^\s:]+):begin -->")
    return [(str(PAGES / page.name), marker) for page in pages for marker in pattern.findall(page.read_text())]


def unshown(root: Path) -> list[str]:
    """Markers that no page has although there are cards for them."""
    needed = {f"recipe-{name}" for name in recipes(root)} | {f"sweep-{name}" for name in sweeps(root)}
    return sorted(needed - {marker for _, marker in _of_cards(root)})


def main(root: Path) -> None:
    """Rewrites the tables of the pages under `root`."""
    for name, marker, content in blocks(root):
        rewrite(root / name, content(), marker)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
