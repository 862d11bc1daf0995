"""The README's one table of results, from committed cards. No JAX.

`python -m tools.summary` writes it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ltrobust.analysis import seeds
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column
from ltrobust.report.numbers import NOTHING, markdown
from tools import study_page
from tools.committed import MARK, failures, read_card

LAST = "student/last"
BEST = "standard"  # the protocol that is shown where there are cards of it
METHODS = {"pgd_at": "PGD-AT", "at_bsl": "AT-BSL", "self_distillation": "self-distillation"}
PROTOCOLS = {
    "quick": "PGD-20, CW-20 and LSA-20 (protocol `quick`; AutoAttack was not run)",
    "standard": "AutoAttack (protocol `standard`)",
}
HEADER = ("method", "clean", "robust", "robust, most frequent classes", "robust, rarest classes", "robust, worst class")


class Source(NamedTuple):
    """Cards of one data set.

    Attributes:
      title: of the data set.
      folder: below `results/`.
      place: part of the files' names between variant and seed.
    """

    title: str
    folder: str
    place: str = ""


SOURCES = (
    Source("CIFAR-10-LT", "sweeps/controls_cifar10_cpu", "-imbalance_ratio100.0"),
    Source("Digits", "sweeps/controls_digits"),
)


def table(root: Path) -> str:
    """Markdown: for each data set what the numbers are of, and a row for each method.

    Raises:
      ValueError: the cards of a data set are of several protocols.
    """
    parts = []
    for source in SOURCES:
        result = {method: _cards(root / "results" / source.folder, method + source.place) for method in METHODS}
        rows, notes = [], []
        for method, group in result.items():
            found = list(_remarks(METHODS[method], group))
            if group:
                rows.append([METHODS[method] + (MARK if found else ""), *_cells(group)])
            notes += found
        group = [card for group in result.values() for card in group]
        if group:
            number = min(len(own) for own in result.values() if own)
            _, _, sweep = source.folder.partition("/")
            planned = study_page.planned_seeds(root, sweep) if sweep else number
            interim = f" Interim: {planned} seeds are planned." if number < planned else ""
            parts += [f"{_described(source, group, number)}{interim}\n\n{markdown([HEADER, *rows])}", *notes]
    return "\n".join(parts)


def _remarks(title: str, group: Sequence[Card]) -> Iterator[str]:
    """What to read under the table of a marked row: each check that failed, with its seeds."""
    seeds_of: dict[str, list[int]] = {}
    for card in group:
        for item in failures(card.networks[LAST]):
            seeds_of.setdefault(f"{item.check} ({item.id})", []).append(card.seed)
    for check, numbers in seeds_of.items():
        which = f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        yield f"† {title}, {which}: not trustworthy, {check}. [What the check found](docs/study.md#the-controls).\n"


def _cards(folder: Path, name: str) -> list[Card]:
    """One card for each seed, of the best protocol that it has."""
    by_seed: dict[int, Card] = {}
    for path in sorted(folder.glob("*.json")):
        if re.fullmatch(re.escape(name) + r"-seed\d+(-.*)?", path.stem):
            card = read_card(path)
            if card.seed not in by_seed or card.protocol.name == BEST:
                by_seed[card.seed] = card
    return [by_seed[seed] for seed in sorted(by_seed)]


def _cells(group: Sequence[Card]) -> list[str]:
    """Clean accuracy, and the protocol's headline number over all, frequent, rare and worst classes."""
    columns = [card.networks[LAST].columns for card in group]
    clean = [own["clean"] for own in columns]
    robust = [own[card.protocol.headline] for own, card in zip(columns, group, strict=True)]
    counts = group[0].data.class_counts
    views = ("overall", "head_third", "tail_third", "worst")
    return [_cell(clean, "overall", counts), *(_cell(robust, view, counts) for view in views)]


def _cell(columns: Sequence[Column], view: str, counts: Sequence[int]) -> str:
    """Mean over seeds with its interval, or one run's number with that over test images; a dash where there is none."""
    if any(column.view(view) is None for column in columns):
        return NOTHING
    if len(columns) > 1:
        result = seeds.of_columns(columns, view, counts)
        mean, low, high = result.mean, result.low, result.high
    else:
        estimate = columns[0].view(view)
        assert estimate is not None
        mean, low, high = estimate.value, estimate.low, estimate.high
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _described(source: Source, group: Sequence[Card], number: int) -> str:
    """What the numbers depend on, in one line; `number` of seeds that every method has."""
    card = group[0]
    data, threat = card.data, card.threat
    names = sorted({card.protocol.name for card in group})
    if len(names) > 1:
        raise ValueError(f"the cards in results/{source.folder} are of {', '.join(names)}; one table has one protocol.")
    images = f"{data.evaluated:,}"
    if data.evaluated < data.test_images:
        images += f" of {data.test_images:,}"
    return (
        f"**{source.title}**, imbalance ratio {data.imbalance_ratio:g}, {sum(data.class_counts):,} training images, "
        f"{card.model.parameters:,} parameters, {number} seeds; {threat.norm} {threat.radius:g}/255, "
        f"{images} test images; robust: correct under {PROTOCOLS.get(names[0], f'`{names[0]}`')}."
    )
