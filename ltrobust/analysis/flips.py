"""Which images flip between two models, and which attack made the difference. NumPy only.

Both models have verdict stores of the same images, protocol and threat. `model` is compared with
`reference`: an image is won where only the model is right, lost where only the reference is.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis import compare, intervals
from ltrobust.analysis.schema.comparison import Breaker, Flip, Flips
from ltrobust.analysis.schema.paired import ColumnDifference
from ltrobust.evaluation import store
from ltrobust.evaluation.lines import AttackVerdicts
from ltrobust.evaluation.verdict import Verdict

Provenance = Mapping[str, Any]
Verdicts = Mapping[str, AttackVerdicts]


def by_column(provenance: Provenance, model: Verdicts, reference: Verdicts) -> dict[str, ColumnDifference]:
    """`compare.overall` of every column of the protocol, model minus reference, with `p_holm` over the columns.

    Raises:
      ValueError: an image without a verdict.
    """
    result = {
        column: compare.overall(
            store.correct(provenance, model, column)[2], store.correct(provenance, reference, column)[2]
        )
        for column in store.columns(provenance)
    }
    corrected = intervals.holm(np.array([view.test.p for view in result.values()]))
    return {
        name: ColumnDifference(**vars(view), p_holm=float(p))
        for (name, view), p in zip(result.items(), corrected, strict=True)
    }


def flips(provenance: Provenance, model: Verdicts, reference: Verdicts, column: str | None = None) -> Flips:
    """The images that only one of the two resists in a column (None: the headline).

    Raises:
      ValueError: no such column, or an image without a verdict.
    """
    names = store.members(provenance, column)
    ids, labels, right = store.correct(provenance, model, column)
    _, _, other = store.correct(provenance, reference, column)
    won = _flips(ids, labels, right & ~other, reference, names)
    lost = _flips(ids, labels, other & ~right, model, names)
    return Flips(won, lost)


def breakers(provenance: Provenance, entries: Sequence[Flip], column: str | None = None) -> list[Breaker]:
    """What `clean` and each attack of the column did to the images of one direction of `flips`.

    An attack that sees only the survivors of others broke all of its images alone.
    """
    result = []
    for name in ("clean", *store.members(provenance, column)):
        broken = [list(entry.broken_by) for entry in entries if name in entry.broken_by]
        first, alone = sum(by[0] == name for by in broken), sum(by == [name] for by in broken)
        result.append(Breaker(name, len(broken), first, alone))
    return result


def _flips(ids: np.ndarray, labels: np.ndarray, which: np.ndarray, wrong: Verdicts, names: list[str]) -> list[Flip]:
    """The images `which` [N], that `wrong` does not get right."""
    ids, labels = ids[which], labels[which]
    # No verdict: an earlier attack of a sequence had broken the image, and this one never saw it.
    columns = {name: wrong[name].predictions(ids) for name in ("clean", *names) if name in wrong}
    predictions = np.stack(list(columns.values()), axis=1)
    broken = (predictions != labels[:, None]) & (predictions != Verdict().prediction)
    first = predictions[np.arange(len(ids)), broken.argmax(axis=1)]
    return [
        Flip(image, label, list(itertools.compress(columns, by)), prediction)
        for image, label, by, prediction in zip(*map(np.ndarray.tolist, (ids, labels, broken, first)), strict=True)
    ]
