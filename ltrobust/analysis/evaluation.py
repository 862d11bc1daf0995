"""What an evaluation found, image by image."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ltrobust.analysis import metrics
from ltrobust.analysis.summary import summarise
from ltrobust.evaluation import protocols
from ltrobust.sanity.panel import Item
from ltrobust.threat import Threat


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Verdicts on N images: what `ltrobust.evaluate` returns, and what `Run.evaluation` reads from a store.

    Attributes:
      ids: int64 [N], of the images in their test set.
      labels: int64 [N].
      num_classes: C.
      protocol: what was run.
      threat: at which radius.
      predictions: column -> int64 [N]; `clean`, then each attack. An image that is wrong when clean is never attacked,
        and one that an earlier attack of a sequence broke is not attacked again: that prediction stands in the column.
      records: `clean` and each attack -> its verdicts [N], an array of type `verdict.DTYPE`: each field of
        `verdict.Verdict` by its name, as in `records["pgd20"]["margin"]`. An image that was not seen has the defaults.
      sanity: items of the sanity panel (`sanity/panel.py`), where it was run.
    """

    ids: np.ndarray
    labels: np.ndarray
    num_classes: int
    protocol: protocols.Protocol
    threat: Threat
    predictions: Mapping[str, np.ndarray]
    records: Mapping[str, np.ndarray]
    sanity: tuple[Item, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """`clean`, each attack, and each combination."""
        return self.protocol.columns.names

    @property
    def clean(self) -> np.ndarray:
        """Whether each image is predicted right, bool [N]."""
        return self.correct("clean")

    @property
    def robust(self) -> np.ndarray:
        """Whether each image is still predicted right under the protocol's headline column, bool [N]."""
        return self.correct(self.protocol.headline)

    @property
    def per_attack(self) -> dict[str, np.ndarray]:
        """`correct` of every column but `clean`."""
        return {column: self.correct(column) for column in self.columns if column != "clean"}

    def final_predictions(self, column: str) -> np.ndarray:
        """The prediction that counts in a column, int64 [N]; a combination: the first attack that broke it."""
        return self.protocol.columns.final(self.predictions, self.labels, column)

    def correct(self, column: str) -> np.ndarray:
        """Whether each image is (still) predicted right, bool [N]; a combination: under each of its attacks."""
        return self.final_predictions(column) == self.labels

    def counts(self, column: str) -> metrics.ClassCounts:
        """Correct and all images per class."""
        return metrics.count(self.correct(column), self.labels, self.num_classes)

    @property
    def max_violation(self) -> float:
        """The largest excess over ball or bounds that was measured, pixel units."""
        return max((float(np.nanmax(record["violation"], initial=0)) for record in self.records.values()), default=0.0)

    @property
    def rejected_claims(self) -> int:
        """How many images had a claim of an attack that the exact network did not confirm."""
        return int(sum(np.sum(record["rejected_claims"] > 0) for record in self.records.values()))

    @property
    def clean_tied(self) -> np.ndarray:
        """Whether the label shares the highest clean logit with another class, bool [N]."""
        return self.records["clean"]["tied"]

    def correct_after_rounding(self, column: str) -> np.ndarray:
        """`correct`, where a broken image counts only if its adversarial image rounded to 8 bits still breaks it."""
        robust, columns = self.clean, self.protocol.columns
        for name in {before for member in columns.members(column) for before in columns.members(member)}:
            rounded = self.records[name]["rounded"]
            # Below 0: the attack did not see the image, because it was broken before.
            robust = robust & ((rounded < 0) | (rounded == self.labels))
        return robust

    def summary(self) -> str:
        """A readable table: every column overall, balanced and in the worst class, and what the sanity panel says."""
        return summarise(self)
