"""Statements about differences in docs/, each with the paired differences over seeds that it rests on. No JAX.

`docs/claims.toml` holds the sentences, what they compare, and what must come out. `python -m tools.summary` writes each
sentence with its numbers between the markers of its page; `python -m tools.check_pages` fails where the cards do not
bear one out.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltrobust.analysis import seeds
from ltrobust.analysis.intervals import ALPHA, SeedMean, holm, t_interval
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column, NetworkResult
from tools import evidence_files
from tools.claim_file import Claim, Difference, read
from tools.committed import failures, read_card

LAST, TEACHER = "student/last", "teacher/last"
MARK = " ‡"  # behind a difference whose p is below 0.05 after the correction


class Result(NamedTuple):
    """A difference as the cards have it.

    Attributes:
      points: over seeds.
      seeds: that both have.
    """

    points: SeedMean
    seeds: Sequence[int]


class Points:
    """A difference in percentage points, as a sentence shows it: `+1.7 [0.7, 2.7]`, with a mark or without."""

    def __init__(self, found: SeedMean, mark: str = "") -> None:
        self.mean = f"{100 * found.mean:+.1f}"
        self._ends = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]{mark}"

    def __str__(self) -> str:
        return f"{self.mean} {self._ends}"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


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
    for card in cards:
        if network not in card.networks or difference.column not in card.networks[network].columns:
            raise ValueError(f"the card of {name}, seed {card.seed}, has no column `{difference.column}` of {network}.")
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
        each = [difference for claim in shown for difference in claim.differences]
        numbers = sorted({len(results[difference].seeds) for difference in each})
        primary = any(difference.primary for difference in each)
        lines.append(f"\n{_note(corrected, numbers, primary=primary)}{_panels(root, shown)}")
    return "\n".join(lines)


def _corrected(results: Mapping[Difference, Result]) -> dict[Difference, float]:
    """Exploratory difference -> p after Holm's correction over all of a page; those without a test are left out."""
    family = [each for each, found in results.items() if not each.primary and not math.isnan(found.points.p)]
    values = holm(np.array([results[each].points.p for each in family]))
    return dict(zip(family, values.tolist(), strict=True))


def _note(corrected: Mapping[Difference, float], numbers: Sequence[int], *, primary: bool) -> str:
    """What the exploratory statements of a page rest on."""
    below = sum(p < ALPHA for p in corrected.values())
    found = (
        f"{below} {'has' if below == 1 else 'have'} p below {ALPHA} (marked{MARK})"
        if below
        else f"none has p below {ALPHA}"
    )
    return (
        f"Exploratory{' but for the primary comparison' * primary}, {' or '.join(map(str, numbers))} pairs of seeds. "
        "Each interval is that of one comparison; the deviation over seeds is taken to be at least the error over test "
        "images, of independent verdicts where predictions are not kept. After Holm's correction over this page's "
        f"statements ({len(corrected)} tests) {found}. So few seeds hardly allow it: read unmarked ones as suggestions."
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
        for name, card, network in _networks(root, claim):
            for item in failures(network):
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


def _networks(root: Path, claim: Claim) -> Iterator[tuple[str, Card, NetworkResult]]:
    """Every network below a claim, with its variant and card."""
    for difference in claim.differences:
        for name in difference.variants:
            found, network = _cards(root, difference, name)
            yield from ((name, card, card.networks[network]) for card in found)


def _panels(root: Path, claims: Iterable[Claim]) -> str:
    """A sentence on networks whose gradients nobody checked, or nothing."""
    checked = {bool(network.sanity) for claim in claims for _, _, network in _networks(root, claim)}
    if checked == {True}:
        return ""
    return f" {'Not all' if True in checked else 'None'} of these networks had the panel of sanity checks."


def _named(text: str) -> set[str]:
    """Seeds and checks that a sentence names: `seed 3`, `P17`."""
    return set(re.findall(r"seed \d+|P\d+", text))


def _outcome(found: SeedMean) -> str:
    """On which side of 0 an interval lies, or `open`."""
    return "above" if found.low > 0 else "below" if found.high < 0 else "open"
