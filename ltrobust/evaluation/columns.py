"""Columns of a protocol: which attacks each consists of, and which prediction counts in it. No JAX."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.runtime.names import nearest


@dataclasses.dataclass(frozen=True)
class Columns:
    """What a protocol reports: `clean`, each attack, and each combination.

    Attributes:
      attacks: attack -> the attacks whose survivors it sees, in order; none for one that sees every image.
      combined: combination -> its attacks. An image is right in it if it is right under each of them.
    """

    attacks: Mapping[str, Sequence[str]]
    combined: Mapping[str, Sequence[str]]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return ("clean", *self.attacks, *self.combined)

    @property
    def headline(self) -> str:
        """The column that stands for the protocol's robust accuracy, the last one."""
        return self.names[-1]

    def members(self, column: str | None = None) -> list[str]:
        """The attacks that a column consists of, in order; None for the headline.

        Raises:
          ValueError: no such column.
        """
        column = column or self.headline
        if column not in self.names:
            raise ValueError(f"no column {column!r}; {nearest(column, self.names)}columns are {', '.join(self.names)}.")
        alone = {"clean": [], **{name: [*after, name] for name, after in self.attacks.items()}}
        return list({**alone, **self.combined}[column])

    def final(self, predictions: Mapping[str, np.ndarray], labels: np.ndarray, column: str | None = None) -> np.ndarray:
        """The prediction that counts in a column, int64 [N]: that of its first attack that broke the image.

        Args:
          predictions: `clean` and each attack of the column -> [N].
          labels: [N].
          column: None for the headline.

        Raises:
          ValueError: no such column.
        """
        result = np.array(predictions["clean"], np.int64)
        for name in self.members(column):
            # Once wrong, an image keeps the prediction of the first attack that broke it.
            result = np.where(result == labels, predictions[name], result)
        return result


def from_plain(protocol: Mapping[str, Any]) -> Columns:
    """The columns of a protocol as JSON has it, in a store's provenance or on a card."""
    return Columns({attack["name"]: attack["after"] for attack in protocol["attacks"]}, dict(protocol["combined"]))
