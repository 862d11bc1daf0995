"""An evaluation in progress: verdicts so far, and the images that an attack still has to see."""

import numpy as np

from ltrobust.evaluation import identity, judge, verdict
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.judge import Judgement
from ltrobust.evaluation.lines import AttackVerdicts
from ltrobust.evaluation.progress import AttackProgress
from ltrobust.evaluation.protocols import Attack
from ltrobust.evaluation.store import Store
from ltrobust.runtime import processes


class Session:
    """Verdicts on one subject, as they come: from the store where it has them, else from the driver.

    Attributes:
      driver, subject: what attacks run with and on.
      clean: the exact network on the images themselves.
      predictions: column -> int64 [N], see `Evaluation`.
      records: attack -> verdicts [N] of type `verdict.DTYPE`.
      clean_record: the verdicts [N] on the images themselves.
    """

    def __init__(
        self, driver: Driver, subject: Subject, clean: Judgement, store: Store | None, progress: AttackProgress
    ) -> None:
        self.driver, self.subject, self.clean = driver, subject, clean
        self._store, self._progress = store, progress
        # Only process 0 reads the store, and all processes must attack the same images.
        self.clean_record = processes.share(self._keep_clean())
        self.predictions: dict[str, np.ndarray] = {"clean": self.clean_record["prediction"].copy()}
        self.records: dict[str, np.ndarray] = {}

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

    def attack(self, attack: Attack, rows: np.ndarray, of: int | None = None) -> np.ndarray:
        """The verdicts [N] of an attack on the images at `rows`; adds to no column.

        `of`: of how many images the accuracy is that the progress shows, where not of all.
        """
        labels = self.subject.labels
        record = verdict.unseen(len(labels))
        # Only process 0 has the store.
        waiting, record = processes.share((self._recall(attack.name, rows, record), record))
        broken = int(np.sum(record["prediction"][rows] != labels[rows])) - len(waiting)
        self._progress.begin(attack.name, of or len(labels), len(rows))
        self._progress.advance(len(rows) - len(waiting), broken)
        for judged in self.driver.attack(self.subject, attack, waiting, self.clean.logits):
            seen = judged.rows
            record[seen] = judged.verdicts
            if self._store is not None:
                self._store.append(attack.name, self.subject.ids[seen], labels[seen], judged.verdicts, judged.images)
            self._progress.advance(len(seen), int(np.sum(judged.verdicts["prediction"] != labels[seen])))
        return record

    def _recall(self, name: str, rows: np.ndarray, record: np.ndarray) -> np.ndarray:
        """Copies stored verdicts into the record; returns the rows without one."""
        return recall(self._store.verdicts(name), self.subject.ids, rows, record) if self._store else rows

    def _keep_clean(self) -> np.ndarray:
        """The verdicts [N] on clean images: those that the store has, and this network's, which are then written."""
        subject = self.subject
        record = judge.verdicts(
            self.clean, subject.labels, evaluations=0, target=-1, non_finite=False, rejected_claims=0
        )
        if self._store is None:
            return record
        known = self._store.verdicts("clean")
        self._check_known(known)
        # The stored verdict wins over today's. On an image at a boundary another machine may round differently, and
        # a resumed evaluation must attack the same images as the one that began it.
        missing = recall(known, subject.ids, np.arange(len(record)), record)
        self._store.append("clean", subject.ids[missing], subject.labels[missing], record[missing])
        return record

    def _check_known(self, known: AttackVerdicts) -> None:
        """Refuses a store whose network classifies clean images differently from this one.

        Raises:
          ValueError: says how many images differ, and the first one.
        """
        ids, margins = self.subject.ids, np.asarray(self.clean.margins, float)
        places = known.places(ids)
        rows = np.flatnonzero(places >= 0)
        if not len(rows) or self._store is None:
            return
        there, there_margins = (known.rows[name][places[rows]] for name in ("prediction", "margin"))
        here = np.asarray(self.clean.predictions, np.int64)[rows]
        other = identity.other_answers(there, there_margins, self.clean.logits[rows], margins[rows], here)
        if np.any(other):
            first = int(np.flatnonzero(other)[0])
            raise ValueError(
                f"verdict store {self._store.folder} is of another network: it answers {int(other.sum())} of "
                f"{len(rows)} clean images otherwise, such as image {ids[rows[first]]} (class {there[first]} with "
                f"margin {there_margins[first]:.4g} there, class {here[first]} with {margins[rows[first]]:.4g} here). "
                "Give another folder."
            )


def recall(known: AttackVerdicts, ids: np.ndarray, rows: np.ndarray, record: np.ndarray) -> np.ndarray:
    """Copies what a store knows of an attack into its record; returns the rows that it does not know.

    Args:
      known: from a store.
      ids: of all images, by row.
      rows: of the images that the attack has to see.
      record: verdicts [N] of type `verdict.DTYPE`; changed in place.
    """
    places = known.places(ids[rows])
    record[rows[places >= 0]] = known.rows[list(verdict.FIELDS)][places[places >= 0]]
    return rows[places < 0]
