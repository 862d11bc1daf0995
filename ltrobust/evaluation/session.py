"""An evaluation in progress: which images an attack still has to see, and what is known of each."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltrobust.evaluation import identity
from ltrobust.evaluation.drive import Driver, Subject, Verdicts
from ltrobust.evaluation.judge import Judgement, true_probabilities
from ltrobust.evaluation.progress import Progress
from ltrobust.evaluation.protocols import Attack
from ltrobust.evaluation.store import Store
from ltrobust.runtime import processes

# In place of an infinite margin, which JSON does not have: a resumed evaluation is to have the same records.
_LARGEST = float(np.finfo(np.float32).max)
# Field of a record -> its value where an attack did not see the image.
FIELDS: dict[str, Any] = {
    "prediction": -1,
    "rounded": -1,
    "evaluations": -1,
    "target": -1,
    "margin": np.nan,
    "probability": np.nan,
    "norm": np.nan,
    "tied": False,
    "undefined": False,
    "refuted": 0,
    "violation": 0.0,
}


class Session:
    """Verdicts on one subject, as they come: from the store where it has them, else from the driver.

    Attributes:
      driver, subject: what attacks run with and on.
      clean: the exact network on the images themselves.
      predictions: column -> int64 [N], see `Evaluation`.
      records: attack -> field -> [N], see `FIELDS`.
    """

    def __init__(
        self, driver: Driver, subject: Subject, clean: Judgement, store: Store | None, progress: Progress
    ) -> None:
        self.driver, self.subject, self.clean = driver, subject, clean
        self._store, self._progress = store, progress
        self.predictions: dict[str, np.ndarray] = {"clean": np.asarray(clean.predictions, np.int64)}
        self.records: dict[str, dict[str, np.ndarray]] = {}
        self._keep_clean()
        # Only process 0 reads the store, and all processes must attack the same images.
        self.predictions["clean"] = processes.share(self.predictions["clean"])

    @property
    def right(self) -> np.ndarray:
        """Positions of the images that are right when clean."""
        return np.flatnonzero(self.predictions["clean"] == self.subject.labels)

    def run(self, attack: Attack) -> None:
        """Attacks every image that the attack has to see, and fills its column."""
        # The last attack before this one has seen the survivors of all others, so its column has everything broken so
        # far.
        column = self.predictions[attack.after[-1] if attack.after else "clean"].copy()
        rows = np.flatnonzero(column == self.subject.labels)
        record = self.attack(attack, rows)
        column[rows] = record["prediction"][rows]
        self.predictions[attack.name] = column
        self.records[attack.name] = record

    def attack(self, attack: Attack, rows: np.ndarray, of: int | None = None) -> dict[str, np.ndarray]:
        """The record [N] of an attack on the images at `rows`; adds to no column.

        `of`: of how many images the accuracy is that the progress shows, where not of all.
        """
        record = empty_record(len(self.subject.labels))
        # Only process 0 has the store.
        waiting, record = processes.share((self._recall(attack.name, rows, record), record))
        broken = int(np.sum(record["prediction"][rows] != self.subject.labels[rows])) - len(waiting)
        self._progress.begin(attack.name, of or len(self.subject.labels), len(rows))
        self._progress.advance(len(rows) - len(waiting), broken)
        for verdicts in self.driver.attack(self.subject, attack, waiting, self.clean.logits):
            fields = _fields(verdicts, self.subject.labels[verdicts.rows])
            for name, values in fields.items():
                record[name][verdicts.rows] = values
            wrong = fields["prediction"] != self.subject.labels[verdicts.rows]
            self._keep(attack.name, verdicts, fields)
            self._progress.advance(len(verdicts.rows), int(np.sum(wrong)))
        return record

    def _recall(self, name: str, rows: np.ndarray, record: dict[str, np.ndarray]) -> np.ndarray:
        """Copies what the store knows into the record; the rows that it does not know."""
        return recall(self._store.verdicts.get(name, {}) if self._store else {}, self.subject.ids, rows, record)

    def _keep(self, name: str, verdicts: Verdicts, fields: dict[str, np.ndarray]) -> None:
        """Writes verdicts to the store."""
        if self._store is None:
            return
        ids = self.subject.ids[verdicts.rows]
        records = [
            {"image": int(identity), **{field: values[position].item() for field, values in fields.items()}}
            for position, identity in enumerate(ids)
        ]
        self._store.append(name, records, verdicts.images)

    def _keep_clean(self) -> None:
        """Writes clean predictions to the store, or takes the ones that it has."""
        if self._store is None:
            return
        ids = [int(identity) for identity in self.subject.ids]
        known = self._store.verdicts.get("clean", {})
        predictions, labels = self.predictions["clean"], self.subject.labels
        missing = [row for row, image in enumerate(ids) if image not in known]
        margins = np.asarray(self.clean.margins, float)
        self._check_known(known, ids, margins)
        probabilities = true_probabilities(self.clean.logits, labels)
        self._store.append(
            "clean",
            [
                {
                    "image": ids[row],
                    "label": int(labels[row]),
                    "prediction": int(predictions[row]),
                    "margin": float(margins[row]),
                    "probability": float(probabilities[row]),
                }
                for row in missing
            ],
        )
        # The stored prediction wins over today's. On an image at a boundary another machine may round differently, and
        # a resumed evaluation must attack the same images as the one that began it.
        for row, image in enumerate(ids):
            predictions[row] = self._store.verdicts["clean"][image]["prediction"]

    def _check_known(self, known: Mapping[int, Mapping[str, Any]], ids: list[int], margins: np.ndarray) -> None:
        """Refuses a store whose network answered clean images otherwise than this one does.

        Raises:
          ValueError: says how many images differ, and the first one.
        """
        rows = np.array([row for row, image in enumerate(ids) if image in known], int)
        if not len(rows) or self._store is None:
            return
        records = [known[ids[row]] for row in rows]
        there = np.array([record["prediction"] for record in records], np.int64)
        there_margins = np.array([np.nan if record.get("margin") is None else record["margin"] for record in records])
        here = self.predictions["clean"][rows]
        other = identity.other_answers(there, there_margins, self.clean.logits[rows], margins[rows], here)
        if np.any(other):
            first = int(np.flatnonzero(other)[0])
            raise ValueError(
                f"verdict store {self._store.folder} is of another network: it answers {int(other.sum())} of "
                f"{len(rows)} clean images otherwise, such as image {ids[rows[first]]} (class {there[first]} with "
                f"margin {there_margins[first]:.4g} there, class {here[first]} with {margins[rows[first]]:.4g} here). "
                "Give another folder."
            )


def empty_record(number: int) -> dict[str, np.ndarray]:
    """The record of an attack that saw none of so many images."""
    return {name: np.full(number, missing) for name, missing in FIELDS.items()}


def recall(
    known: Mapping[int, Mapping[str, Any]], ids: np.ndarray, rows: np.ndarray, record: dict[str, np.ndarray]
) -> np.ndarray:
    """Copies what a store knows of an attack into its record; returns the rows that it does not know.

    Args:
      known: image id -> verdict, from a store.
      ids: of all images, by row.
      rows: of the images that the attack has to see.
      record: field -> [N]; changed in place.
    """
    waiting = []
    for row in rows:
        kept = known.get(int(ids[row]))
        if kept is None:
            waiting.append(row)
            continue
        for field in FIELDS:
            # JSON has null for NaN.
            if kept.get(field) is not None:
                record[field][row] = kept[field]
    return np.array(waiting, int)


def _fields(verdicts: Verdicts, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of a record; a target is named only where the image was broken."""
    broken = verdicts.predictions != labels
    return {
        "prediction": verdicts.predictions.astype(np.int64),
        "rounded": verdicts.rounded.astype(np.int64),
        "evaluations": verdicts.evaluations.astype(np.int64),
        "target": np.where(broken, verdicts.targets, -1).astype(np.int64),
        "margin": np.clip(verdicts.margins.astype(float), -_LARGEST, _LARGEST),
        "probability": verdicts.probabilities,
        "norm": verdicts.norms.astype(float),
        "tied": verdicts.tied,
        "undefined": verdicts.undefined,
        "refuted": verdicts.refuted.astype(np.int64),
        "violation": verdicts.violations.astype(float),
    }
