"""Which images flip between two models, and which attack made the difference. NumPy only.

Both models have verdict stores of the same images, protocol and threat. `model` is compared with
`reference`: an image is won where only the model is right, lost where only the reference is.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis import compare, intervals
from ltrobust.analysis.schema.comparison import Breaker, Flip, Flips
from ltrobust.analysis.schema.paired import ColumnDifference
from ltrobust.evaluation import store
from ltrobust.evaluation.lines import AttackVerdicts

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
    won, lost = (
        [_flip(int(ids[place]), int(labels[place]), wrong, names) for place in np.flatnonzero(which)]
        for which, wrong in ((right & ~other, reference), (other & ~right, model))
    )
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


def _flip(image: int, label: int, wrong: Verdicts, names: list[str]) -> Flip:
    """One image that `wrong` does not get right."""
    breaking = list(_breaking(image, label, wrong, names))
    return Flip(image, label, [name for name, _ in breaking], prediction=breaking[0][1])


def _breaking(image: int, label: int, verdicts: Verdicts, names: list[str]) -> Iterator[tuple[str, int]]:
    """Each column that an image is wrong in, with the prediction."""
    for name in ("clean", *names):
        line = verdicts[name].get(image) if name in verdicts else None
        # No line: an earlier attack of a sequence had broken the image, and this one never saw it.
        if line is not None and line.prediction != label:
            yield name, line.prediction
