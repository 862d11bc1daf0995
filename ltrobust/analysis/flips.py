"""Which images flip between two models, and which attack made the difference. NumPy only.

Both models have verdict stores of the same images, protocol and threat. `model` is compared with
`reference`: an image is won where only the model is right, lost where only the reference is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ltrobust.analysis import compare
from ltrobust.evaluation import store

Passport = Mapping[str, Any]
Verdicts = Mapping[str, Mapping[int, Mapping[str, Any]]]


def by_column(passport: Passport, model: Verdicts, reference: Verdicts) -> dict[str, dict[str, Any]]:
    """`compare.overall` of every column of the protocol, model minus reference, with `p_holm` over the columns.

    Raises:
      ValueError: an image without a verdict.
    """
    found = {
        column: compare.overall(
            store.correct(passport, model, column)[2], store.correct(passport, reference, column)[2]
        )
        for column in store.columns(passport)
    }
    corrected = compare.holm(np.array([view["p"] for view in found.values()]))
    return {name: view | {"p_holm": float(p)} for (name, view), p in zip(found.items(), corrected, strict=True)}


def flips(
    passport: Passport, model: Verdicts, reference: Verdicts, column: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The images that only one of the two resists in a column (None: the headline).

    Returns:
      `won` and `lost`, ascending by `image` (its id): `label`, and of the model that is wrong `broken_by` (`clean`, or
      the column's attacks that broke it, in the protocol's order) and `prediction` after the first of these.

    Raises:
      ValueError: no such column, or an image without a verdict.
    """
    names = store.members(passport, column)
    ids, labels, right = store.correct(passport, model, column)
    _, _, other = store.correct(passport, reference, column)
    return {
        direction: [_flip(int(ids[place]), int(labels[place]), wrong, names) for place in np.flatnonzero(which)]
        for direction, which, wrong in (("won", right & ~other, reference), ("lost", other & ~right, model))
    }


def breakers(passport: Passport, entries: list[dict[str, Any]], column: str | None = None) -> list[dict[str, Any]]:
    """Which attack broke the images of one direction of `flips`.

    Returns:
      For `clean` and each attack of the column: `name`; `images` that it broke; `first`, those that none before it had
      broken; `alone`, those that nothing else broke. An attack that sees only the survivors of others broke all of its
      images alone.
    """
    found = []
    for name in ("clean", *store.members(passport, column)):
        broken = [entry["broken_by"] for entry in entries if name in entry["broken_by"]]
        first, alone = sum(by[0] == name for by in broken), sum(by == [name] for by in broken)
        found.append({"name": name, "images": len(broken), "first": first, "alone": alone})
    return found


def _flip(image: int, label: int, wrong: Verdicts, names: list[str]) -> dict[str, Any]:
    """One image that `wrong` does not get right."""
    breaking = list(_breaking(image, label, wrong, names))
    prediction = breaking[0][1]
    return {"image": image, "label": label, "broken_by": [name for name, _ in breaking], "prediction": prediction}


def _breaking(image: int, label: int, verdicts: Verdicts, names: list[str]) -> Iterator[tuple[str, int]]:
    """Each column that an image is wrong in, with the prediction."""
    for name in ("clean", *names):
        record = verdicts.get(name, {}).get(image)
        # No record: an earlier attack of a sequence had broken the image, and this one never saw it.
        if record is not None and record["prediction"] != label:
            yield name, record["prediction"]
