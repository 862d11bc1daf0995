"""Two verdict stores side by side: `python -m ltrobust.compare FIRST SECOND [--column=NAME] [--json=FILE]`.

The models must have been evaluated on the same images under the same protocol and threat; then they are compared image
by image (McNemar, paired bootstrap), overall, per group of classes and per class. No JAX.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.evaluation import compare, store
from ltrobust.files import write_json
from ltrobust.reporting import comparison

# The seed of the attacks may differ: it is part of what two evaluations of one network differ in.
_SAME = ("protocol", "threat", "num_classes", "images")


def compare_stores(first: str | Path, second: str | Path, column: str | None = None) -> dict[str, Any]:
    """What `ltrobust.evaluation.compare.compare` says of two stores.

    Raises:
      ValueError: the stores do not hold the same images, protocol and threat (names what differs), or are unfinished.
    """
    passports, answers = zip(*(_answers(folder, column) for folder in (first, second)), strict=True)
    for key in _SAME:
        if passports[0][key] != passports[1][key]:
            raise ValueError(
                f"{first} and {second} differ in {key}; only evaluations of the same images under the same protocol "
                "and threat can be compared image by image."
            )
    (_, labels, right), (_, _, other) = answers
    counts = passports[0]["about"].get("training_counts")
    return compare.compare(
        right, other, labels, passports[0]["num_classes"], None if counts is None else np.asarray(counts)
    )


def _answers(folder: str | Path, column: str | None) -> tuple[dict[str, Any], tuple[np.ndarray, ...]]:
    """Passport, and ids, labels and verdicts."""
    passport, verdicts = store.read(folder)
    return passport, store.correct(passport, verdicts, column)


def main(arguments: list[str] | None = None) -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(prog="python -m ltrobust.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("first", help="folder of a verdict store")
    parser.add_argument("second", help="folder of another")
    parser.add_argument("--column", help="clean, an attack, or a combination; default: the protocol's headline")
    parser.add_argument("--json", type=Path, help="where to write the numbers too; must not exist")
    given = parser.parse_args(arguments)
    try:
        result = compare_stores(given.first, given.second, given.column)
        if given.json is not None and given.json.exists():
            raise ValueError(f"{given.json} exists; nothing is overwritten.")
    except ValueError as error:
        sys.exit(f"ltrobust: {error}")
    class_names = store.read(given.first)[0]["about"].get("class_names")
    names = ("first", "second") if Path(given.first).name == Path(given.second).name else None
    print(comparison.render(result, names or (Path(given.first).name, Path(given.second).name), class_names))
    if given.json is not None:
        write_json(given.json, result)


if __name__ == "__main__":
    main()
