"""Statements about differences in docs/, each with the paired differences over seeds that it rests on. No JAX.

`docs/claims.toml` holds the sentences, what they compare, and what must come out. `python -m tools.summary` writes each
sentence with its numbers between the markers of its page; `python -m tools.check_pages` fails where the cards do not
bear one out.
"""

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ltrobust.analysis import seeds
from ltrobust.analysis.intervals import SeedMean, t_interval
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column
from tools.committed import failures, read_card

FILE = Path("docs") / "claims.toml"
LAST = "student/last"


@dataclasses.dataclass(frozen=True)
class Difference:
    """First minus second over the seeds that both have.

    Attributes:
      folder: of the cards, below `results/`.
      first, second: variants with their place on the axes, such as `at_bsl-imbalance_ratio50.0`; a network other than
        the student's last weights follows a colon.
      column, view: of the cards.
      expected: `above` or `below`, where the interval must not hold 0; `open`, where it must; `any`.
      base_first, base_second: the difference of these is subtracted, if they are given.
    """

    folder: str
    first: str
    second: str
    column: str
    view: str
    expected: str
    base_first: str = ""
    base_second: str = ""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence: `{0}` stands for the first difference, `{0.mean}` for its mean alone.

    Attributes:
      page, marker: where it is written.
      text: of the sentence.
      differences: what it rests on.
      despite: a further sentence, which names seed and check of every network below it that is not trustworthy.
    """

    page: str
    marker: str
    text: str
    differences: Sequence[Difference]
    despite: str = ""


class Points:
    """A difference in percentage points, as a sentence shows it: `+1.7 [0.7, 2.7]`."""

    def __init__(self, found: SeedMean) -> None:
        self.mean = f"{100 * found.mean:+.1f}"
        self._ends = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"

    def __str__(self) -> str:
        return f"{self.mean} {self._ends}"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def read(root: Path) -> list[Claim]:
    """The claims of `docs/claims.toml`."""
    entries = tomllib.loads((root / FILE).read_text())["claim"]
    return [_claim(entry) for entry in entries]


def _claim(entry: dict[str, Any]) -> Claim:
    differences = [Difference(**result) for result in entry["differences"]]
    text, despite = (" ".join(entry.get(name, "").split()) for name in ("text", "despite"))
    return Claim(entry["page"], entry["marker"], text, differences, despite)


def computed(root: Path, difference: Difference) -> SeedMean:
    """The difference from the committed cards.

    Raises:
      ValueError: fewer than two common seeds.
    """
    result, errors = _values(root, difference, difference.first, difference.second)
    if difference.base_first:
        base, base_errors = _values(root, difference, difference.base_first, difference.base_second)
        common = sorted(result.keys() & base.keys())
        joined = [math.hypot(errors[seed], base_errors[seed]) for seed in common]
        return t_interval([result[seed] - base[seed] for seed in common], joined)
    return t_interval(list(result.values()), list(errors.values()), least=-1.0, most=1.0)


def _values(root: Path, difference: Difference, first: str, second: str) -> tuple[dict[int, float], dict[int, float]]:
    """Seed -> difference, and seed -> its least standard error over test images."""
    (one, counts), (two, _) = (_columns(root, difference, name) for name in (first, second))
    common = sorted(one.keys() & two.keys())
    view = difference.view
    values = {seed: one[seed].value(view) - two[seed].value(view) for seed in common}
    return values, {seed: seeds.least_error(one[seed], two[seed], view, counts) for seed in common}


def _columns(root: Path, difference: Difference, name: str) -> tuple[dict[int, Column], Sequence[int]]:
    """Seed -> column of a variant's network, and the training images per class."""
    cards, network = _cards(root, difference, name)
    columns = {card.seed: card.networks[network].columns[difference.column] for card in cards}
    return columns, cards[0].data.class_counts


def _cards(root: Path, difference: Difference, name: str) -> tuple[list[Card], str]:
    """The cards of a variant, and which of their networks is meant."""
    variant, _, network = name.partition(":")
    folder = root / "results" / difference.folder
    result = [read_card(path) for path in sorted(folder.glob(f"{variant}-seed*.json"))]
    if not result:
        raise ValueError(f"{folder} holds no card of {variant}; name a variant of the sweep.")
    return result, network or LAST


def block(root: Path, page: str, marker: str) -> str:
    """The sentences between a marker of a page, with their numbers."""
    lines = []
    for claim in read(root):
        if (claim.page, claim.marker) == (page, marker):
            points = [Points(computed(root, difference)) for difference in claim.differences]
            lines.append(f"- {claim.text.format(*points)} {claim.despite}".rstrip())
    return "\n".join(lines)


def markers(root: Path) -> list[tuple[str, str]]:
    """Every page with one of its markers, in the order of the file."""
    return list(dict.fromkeys((claim.page, claim.marker) for claim in read(root)))


def contradicted(root: Path) -> Iterator[tuple[Claim, Difference, SeedMean]]:
    """Claims that the cards do not bear out."""
    for claim in read(root):
        for difference in claim.differences:
            result = computed(root, difference)
            if difference.expected != "any" and _outcome(result) != difference.expected:
                yield claim, difference, result


def unmentioned(root: Path) -> Iterator[tuple[Claim, str]]:
    """Claims that rest on a network that is not trustworthy, whose seed or failed check they do not name."""
    for claim in read(root):
        for difference in claim.differences:
            names = (difference.first, difference.second, difference.base_first, difference.base_second)
            for name in filter(None, names):
                cards, network = _cards(root, difference, name)
                for card in cards:
                    for item in failures(card.networks[network]):
                        if not {f"seed {card.seed}", item.id} <= _named(claim.despite):
                            yield claim, f"{name}, seed {card.seed}, is not trustworthy: {item.id}, {item.details}"


def _named(text: str) -> set[str]:
    """Seeds and checks that a sentence names: `seed 3`, `P17`."""
    return set(re.findall(r"seed \d+|P\d+", text))


def _outcome(found: SeedMean) -> str:
    """On which side of 0 an interval lies, or `open`."""
    return "above" if found.low > 0 else "below" if found.high < 0 else "open"
