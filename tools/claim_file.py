"""The sentences of `docs/claims.toml`, and what each compares. No JAX."""

import dataclasses
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.analysis import metrics

FILE = Path("docs") / "claims.toml"
OUTCOMES = ("above", "below", "open", "any")
VIEWS = ("overall", "balanced", "worst", "worst10", *metrics.groups(np.arange(10, 0, -1)))


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
      primary: whether this is the primary comparison of its data, which no correction of statements includes.
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

    @property
    def variants(self) -> tuple[str, ...]:
        """All that are named, with their networks."""
        return tuple(filter(None, (self.first, self.second, self.base_first, self.base_second)))


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


def read(root: Path) -> list[Claim]:
    """The claims of `docs/claims.toml`.

    Raises:
      ValueError: a claim or a difference has an unknown key or value, or lacks one (names the claim).
    """
    entries = tomllib.loads((root / FILE).read_text()).get("claim", [])
    return [_claim(entry) for entry in entries]


def _claim(entry: dict[str, Any]) -> Claim:
    where = f"{FILE}, `{' '.join(str(entry.get('text', '')).split())[:50]}...`"
    _check_keys(Claim, entry, where)
    for found in entry["differences"]:
        _check_keys(Difference, found, where)
    differences = [Difference(**found) for found in entry["differences"]]
    for difference in differences:
        _check_one_of("expected", difference.expected, OUTCOMES, where)
        _check_one_of("view", difference.view, VIEWS, where)
        if bool(difference.base_first) != bool(difference.base_second):
            raise ValueError(f"{where}: base_first or base_second is missing; give both or neither.")
        if difference.base_first and difference.view.startswith("worst"):
            raise ValueError(f"{where}: view {difference.view} with a base; changes of minima have no valid interval.")
    text, despite = (" ".join(entry.get(name, "").split()) for name in ("text", "despite"))
    numbers = {int(number) for number in re.findall(r"{(\d+)", text)}
    if numbers != set(range(len(differences))):
        raise ValueError(
            f"{where}: the text names {sorted(numbers)} of {len(differences)} differences; name each, from 0."
        )
    return Claim(entry["page"], entry["marker"], text, differences, despite)


def _check_keys(record: type, found: dict[str, Any], where: str) -> None:
    """Refuses keys that a record does not have, and missing ones."""
    fields = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(record)}
    unknown, missing = found.keys() - fields.keys(), {name for name, needed in fields.items() if needed} - found.keys()
    if unknown or missing:
        named = f"{record.__name__.lower()} has {', '.join(fields)}"
        raise ValueError(f"{where}: unknown {sorted(unknown)}, missing {sorted(missing)}; a {named}.")


def _check_one_of(name: str, value: str, allowed: Sequence[str], where: str) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {name} is {value!r}; choose one of {', '.join(allowed)}.")
