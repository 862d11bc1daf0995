"""The result of an evaluation: verdicts image by image."""

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

    A column is `clean`, an attack, or a combination of attacks of the protocol.

    Attributes:
      ids: int64 [N], positions of the images in their test set.
      labels: int64 [N], true classes.
      num_classes: number of classes K.
      protocol: the attacks that were run.
      threat: norm and radius.
      predictions: `clean` and each attack -> int64 [N]. Images that are misclassified when clean are not attacked, nor
        are images that an earlier attack of a sequence broke; they keep that earlier prediction.
      records: `clean` and each attack -> verdicts [N], a structured array with the fields of `verdict.Verdict`, as in
        `records["pgd20"]["margin"]`. Images that were not attacked have default values.
      sanity: results of the sanity panel, if the protocol has one.
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
        """Names of the columns: `clean`, each attack, and each combination."""
        return self.protocol.columns.names

    @property
    def clean(self) -> np.ndarray:
        """Whether each clean image is classified correctly, bool [N]."""
        return self.correct("clean")

    @property
    def robust(self) -> np.ndarray:
        """Whether each image is classified correctly in the protocol's main column, bool [N]."""
        return self.correct(self.protocol.headline)

    @property
    def per_attack(self) -> dict[str, np.ndarray]:
        """`correct` for every column except `clean`: column -> bool [N]."""
        return {column: self.correct(column) for column in self.columns if column != "clean"}

    def final_predictions(self, column: str) -> np.ndarray:
        """Predictions in a `column`, int64 [N]; in a combination, that of the first attack that broke the image."""
        return self.protocol.columns.final(self.predictions, self.labels, column)

    def correct(self, column: str) -> np.ndarray:
        """Whether each image is classified correctly in a `column`, bool [N]; in a combination, under all attacks."""
        return self.final_predictions(column) == self.labels

    def counts(self, column: str) -> metrics.ClassCounts:
        """Counts of correct and of all images per class in a `column`."""
        return metrics.count(self.correct(column), self.labels, self.num_classes)

    @property
    def max_violation(self) -> float:
        """Largest measured distance of an adversarial image outside of ball or bounds, in pixel units."""
        return max((float(np.nanmax(record["violation"], initial=0)) for record in self.records.values()), default=0.0)

    @property
    def rejected_claims(self) -> int:
        """Number of images for which an attack claimed success and the exact network did not confirm it."""
        return int(sum(np.sum(record["rejected_claims"] > 0) for record in self.records.values()))

    @property
    def clean_tied(self) -> np.ndarray:
        """Whether the true class shares the highest clean logit with another class, bool [N]."""
        return self.records["clean"]["tied"]

    def correct_after_rounding(self, column: str) -> np.ndarray:
        """`correct` of a `column` after rounding adversarial images to 8 bits, bool [N]."""
        robust, columns = self.clean, self.protocol.columns
        for name in {before for member in columns.members(column) for before in columns.members(member)}:
            rounded = self.records[name]["rounded"]
            # Below 0: the attack did not see the image, because it was broken before.
            robust = robust & ((rounded < 0) | (rounded == self.labels))
        return robust

    def summary(self) -> str:
        """Table as text: every column overall, balanced and in the worst class, and the results of the sanity panel."""
        return summarise(self)
