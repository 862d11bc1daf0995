"""Statements about differences in docs/, each with the paired differences over seeds that it rests on. No JAX.

`docs/claims.toml` holds the sentences, what they compare, and what must come out. `python -m tools.summary` writes each
sentence with its numbers between the markers of its page; `python -m tools.check_pages` fails where the cards do not
bear one out.
"""

import dataclasses
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ltrobust.analysis import seeds
from ltrobust.analysis.intervals import ALPHA, SeedMean, holm, t_interval
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column, NetworkResult
from tools import evidence_files
from tools.committed import failures, read_card

FILE = Path("docs") / "claims.toml"
LAST, TEACHER = "student/last", "teacher/last"
MARK = " ‡"  # behind a difference whose p is below 0.05 after the correction


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
      primary: whether this is the study's primary comparison, which no correction includes.
    """

    folder: str
    first: str
    second: str
    column: str
    view: str
    expected: str
    base_first: str = ""
    base_second: str = ""
    primary: bool = False


class Result(NamedTuple):
    """A difference as the cards have it.

    Attributes:
      points: over seeds.
      seeds: that both have.
    """

    points: SeedMean
    seeds: Sequence[int]


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
    """A difference in percentage points, as a sentence shows it: `+1.7 [0.7, 2.7]`, with a mark or without."""

    def __init__(self, found: SeedMean, mark: str = "") -> None:
        self.mean = f"{100 * found.mean:+.1f}"
        self._ends = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]{mark}"

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


def computed(root: Path, difference: Difference) -> Result:
    """The difference from the committed cards.

    Raises:
      ValueError: fewer than two common seeds.
    """
    if difference.base_first:
        result, errors = _values(root, difference, difference.first, difference.second)
        base, base_errors = _values(root, difference, difference.base_first, difference.base_second)
        common = sorted(result.keys() & base.keys())
        joined = [math.hypot(errors[seed], base_errors[seed]) for seed in common]
        return Result(t_interval([result[seed] - base[seed] for seed in common], joined), common)
    pairs, counts = _pairs(root, difference, difference.first, difference.second)
    differ = [_differing(root, difference, seed) for seed in pairs]
    return Result(seeds.of_differences(list(pairs.values()), difference.view, counts, differ), list(pairs))


def _differing(root: Path, difference: Difference, seed: int) -> np.ndarray | None:
    """Images per class that only one of the two networks of a seed gets right, if their predictions are kept."""
    if ":" in difference.first + difference.second:
        return None  # predictions are kept of the student's last weights
    folder = root / "results" / difference.folder
    first, second = (folder / f"{name}-seed{seed}.json" for name in (difference.first, difference.second))
    return evidence_files.differing(first, second, difference.column)


def _values(root: Path, difference: Difference, first: str, second: str) -> tuple[dict[int, float], dict[int, float]]:
    """Seed -> difference, and seed -> its standard error over test images."""
    (pairs, counts), view = _pairs(root, difference, first, second), difference.view
    values = {seed: one.value(view) - two.value(view) for seed, (one, two) in pairs.items()}
    return values, {seed: seeds.error_of_difference(*pair, view, counts) for seed, pair in pairs.items()}


def _pairs(
    root: Path, difference: Difference, first: str, second: str
) -> tuple[dict[int, tuple[Column, Column]], Sequence[int]]:
    """Seed -> columns of two variants, for the seeds that both have, and the training images per class."""
    (one, counts), (two, _) = (_columns(root, difference, name) for name in (first, second))
    return {seed: (one[seed], two[seed]) for seed in sorted(one.keys() & two.keys())}, counts


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
    """The sentences between a marker of a page, with their numbers, and what holds for all of them."""
    own = [claim for claim in read(root) if claim.page == page]
    results = {difference: computed(root, difference) for claim in own for difference in claim.differences}
    corrected = _corrected(results)
    lines, shown = [], [claim for claim in own if claim.marker == marker]
    for claim in shown:
        points = [
            Points(results[difference].points, MARK if corrected.get(difference, 1.0) < ALPHA else "")
            for difference in claim.differences
        ]
        lines.append(f"- {claim.text.format(*points)} {claim.despite}".rstrip())
    if shown:
        numbers = {len(results[each].seeds) for claim in shown for each in claim.differences if not each.primary}
        lines.append(f"\n{_note(corrected, sorted(numbers))}{_panels(root, shown)}")
    return "\n".join(lines)


def _corrected(results: Mapping[Difference, Result]) -> dict[Difference, float]:
    """Exploratory difference -> p after Holm's correction over all of a page; those without a test are left out."""
    family = [each for each, found in results.items() if not each.primary and not math.isnan(found.points.p)]
    values = holm(np.array([results[each].points.p for each in family]))
    return dict(zip(family, values.tolist(), strict=True))


def _note(corrected: Mapping[Difference, float], numbers: Sequence[int]) -> str:
    """What the exploratory statements of a page rest on."""
    seeds_of = " or ".join(str(number) for number in numbers)
    below = sum(p < ALPHA for p in corrected.values())
    found = f"{below} have p below {ALPHA} (marked{MARK})" if below else f"none has p below {ALPHA}"
    return (
        f"Exploratory, {seeds_of} pairs of seeds. Each interval is that of one comparison. After Holm's correction "
        f"over the {len(corrected)} tests of this page's statements {found}: read the others as suggestions."
    )


def markers(root: Path) -> list[tuple[str, str]]:
    """Every page with one of its markers, in the order of the file."""
    return list(dict.fromkeys((claim.page, claim.marker) for claim in read(root)))


def contradicted(root: Path) -> Iterator[tuple[Claim, Difference, SeedMean]]:
    """Claims that the cards do not bear out."""
    for claim in read(root):
        for difference in claim.differences:
            result = computed(root, difference).points
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


def strangers(root: Path) -> Iterator[tuple[Claim, str]]:
    """Claims on a student and its teacher, where the teacher's numbers are of another network than the student had."""
    for claim in read(root):
        for difference in claim.differences:
            if not difference.second.endswith(f":{TEACHER}"):
                continue
            (students, _), (teachers, name) = (
                _cards(root, difference, n) for n in (difference.first, difference.second)
            )
            by_seed = {card.seed: card.networks[name].params_sha256 for card in teachers}
            for card in students:
                had = card.training["student"].teachers
                if had and by_seed.get(card.seed) not in (None, had["teacher"].params_sha256):
                    yield claim, f"{difference.second}, seed {card.seed}, is not the teacher of {difference.first}"


def _networks(root: Path, claims: Iterable[Claim]) -> Iterator[NetworkResult]:
    """Every network below some claims."""
    for claim in claims:
        for difference in claim.differences:
            names = (difference.first, difference.second, difference.base_first, difference.base_second)
            for name in filter(None, names):
                found, network = _cards(root, difference, name)
                yield from (card.networks[network] for card in found)


def _panels(root: Path, claims: Iterable[Claim]) -> str:
    """A sentence on networks whose gradients nobody checked, or nothing."""
    without = {not network.sanity for network in _networks(root, claims)}
    if without == {False}:
        return ""
    return f" {'Some' if len(without) > 1 else 'All'} of these networks had no panel of sanity checks."


def _named(text: str) -> set[str]:
    """Seeds and checks that a sentence names: `seed 3`, `P17`."""
    return set(re.findall(r"seed \d+|P\d+", text))


def _outcome(found: SeedMean) -> str:
    """On which side of 0 an interval lies, or `open`."""
    return "above" if found.low > 0 else "below" if found.high < 0 else "open"
