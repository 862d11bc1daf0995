"""What an evaluation found, image by image."""

import dataclasses

import numpy as np

from ltrobust.analysis import metrics
from ltrobust.evaluation import protocols
from ltrobust.evaluation.summary import summarise
from ltrobust.sanity.panel import Item
from ltrobust.threat import Threat


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Verdicts on N images.

    Attributes:
      labels: int64 [N].
      num_classes: C.
      protocol: what was run.
      threat: at which radius.
      predictions: column -> int64 [N]; `clean`, then each attack. An image that is wrong when clean is never attacked,
        and one that an earlier attack of a sequence broke is not attacked again: that prediction stands in the column.
      records: attack -> field of `drive.Verdicts` -> [N]; NaN or -1 where the attack did not see the image.
      clean_tied: bool [N], whether the label shares the highest clean logit with another class.
      sanity: items of the sanity panel (`sanity/panel.py`), where it was run.
    """

    labels: np.ndarray
    num_classes: int
    protocol: protocols.Protocol
    threat: Threat
    predictions: dict[str, np.ndarray]
    records: dict[str, dict[str, np.ndarray]]
    clean_tied: np.ndarray
    sanity: tuple[Item, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """`clean`, each attack, and each combination."""
        return (*self.predictions, *(name for name, _ in self.protocol.combined))

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

    def correct(self, column: str) -> np.ndarray:
        """Whether each image is (still) predicted right, bool [N]; a combination: under each of its attacks."""
        names = dict(self.protocol.combined).get(column, (column,))
        return np.all([self.predictions[name] == self.labels for name in names], axis=0)

    def counts(self, column: str) -> metrics.ClassCounts:
        """Correct and all images per class."""
        return metrics.count(self.correct(column), self.labels, self.num_classes)

    @property
    def max_violation(self) -> float:
        """The largest excess over ball or bounds that was measured, pixel units."""
        return max((float(np.nanmax(record["violation"], initial=0)) for record in self.records.values()), default=0.0)

    @property
    def refuted(self) -> int:
        """How many images had a claim of an attack that the exact network did not confirm."""
        return int(sum(np.sum(record["refuted"] > 0) for record in self.records.values()))

    def final_predictions(self, column: str) -> np.ndarray:
        """The prediction that counts in a column, int64 [N]; a combination: the first attack that broke it."""
        final = self.predictions["clean"].copy()
        for name in dict(self.protocol.combined).get(column, (column,)):
            # Once wrong, an image keeps the prediction of the first attack that broke it.
            final = np.where(final == self.labels, self.predictions[name], final)
        return final

    def correct_after_rounding(self, column: str) -> np.ndarray:
        """`correct`, where a broken image counts only if its adversarial image rounded to 8 bits still breaks it."""
        attacks = {attack.name: attack for attack in self.protocol.attacks}
        members = dict(self.protocol.combined).get(column, (column,))
        robust = self.clean
        for name in {before for member in members for before in (*attacks[member].after, member)}:
            rounded = self.records[name]["rounded"]
            # Below 0: the attack did not see the image, because it was broken before.
            robust = robust & ((rounded < 0) | (rounded == self.labels))
        return robust

    def summary(self) -> str:
        """A readable table: every column overall, balanced and in the worst class, and what the sanity panel says."""
        return summarise(self)
