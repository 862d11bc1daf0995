"""What `results/evidence/` holds of a network, and whether it is what the network's card says. No JAX."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ltrobust.analysis import cards
from tools.committed import read_card

NETWORK = "student/last"
WEIGHTS, PREDICTIONS = "weights.safetensors", "predictions.csv"
# Arrays are called by these words and their names in the network, with dots between.
PARTS = ("params", "batch_stats")
# Columns of a card whose predictions are kept, in the order of the file.
COLUMNS = ("clean", "fgsm", "pgd20", "cw20_k50", "lsa20", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack")


def folders(root: Path) -> list[Path]:
    """Every network's folder below `results/evidence/`."""
    found = (root / "results" / "evidence").glob("*/*/*")
    return sorted({path.parent for path in found if path.name in (WEIGHTS, PREDICTIONS)})


def folder_of(card: Path) -> Path:
    """Where the evidence of the network of `results/sweeps/SWEEP/CELL.json` is, if it is kept."""
    return card.parents[2] / "evidence" / card.parent.name / card.stem


def differing(first: Path, second: Path, column: str) -> np.ndarray | None:
    """Images of each class that only one of two networks gets right, [C]; None where predictions are not kept.

    Args:
      first, second: cards.
      column: of `COLUMNS`.

    Raises:
      ValueError: the networks were evaluated on different images.
    """
    files = [folder_of(card) / PREDICTIONS for card in (first, second)]
    kept = all(card.parents[1].name == "sweeps" for card in (first, second)) and all(file.is_file() for file in files)
    if column not in COLUMNS or not kept:
        return None
    one, two = map(read_predictions, files)
    if not all(np.array_equal(one[name], two[name]) for name in ("image", "label")):
        raise ValueError(f"{files[0]} and {files[1]} are of different images; only the same images can be compared.")
    labels, classes = one["label"], len(read_card(first).data.class_counts)
    return np.bincount(labels[(one[column] == labels) != (two[column] == labels)], minlength=classes)


def card_of(folder: Path) -> Path:
    """The card of the network that a folder is of: `results/sweeps/SWEEP/CELL.json`."""
    return folder.parents[2] / "sweeps" / folder.parent.name / f"{folder.name}.json"


def fingerprints(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of parameters and running statistics, as cards have them."""
    ordered = sorted(arrays.items(), key=lambda item: item[0].split("."))
    parts = {part: [array for name, array in ordered if name.split(".")[0] == part] for part in PARTS}
    return {f"{part}_sha256": cards.digest(result) for part, result in parts.items()}


def read_predictions(file: Path) -> dict[str, np.ndarray]:
    """The columns of a `predictions.csv` (`parsed`)."""
    return parsed(file.read_text(), str(file))


def parsed(text: str, source: str) -> dict[str, np.ndarray]:
    """Column -> values of a table of predictions, int64 [N] each: `image`, `label`, then `COLUMNS`.

    Raises:
      ValueError: other columns, no rows, or what is no number (names the source).
    """
    header, *rows = [*csv.reader(io.StringIO(text))] or [[]]
    expected = ["image", "label", *COLUMNS]
    if header != expected or not rows or any(len(row) != len(expected) for row in rows):
        raise ValueError(f"{source} is no table of {', '.join(expected)}; keep the predictions of the run again.")
    try:
        return dict(zip(header, np.array(rows, np.int64).T, strict=True))
    except ValueError as error:
        raise ValueError(f"{source}: {error}; keep the predictions of the run again.") from error


def faults(root: Path) -> Iterator[tuple[Path, str]]:
    """Folders whose weights or predictions are not those of their card, with what is wrong."""
    for folder in folders(root):
        path = card_of(folder)
        if not path.is_file():
            yield folder, f"there is no card {path.relative_to(root)}"
            continue
        result = read_card(path).networks[NETWORK]
        weights = folder / WEIGHTS
        if weights.is_file() and fingerprints(load_file(weights)) != {
            "params_sha256": result.params_sha256,
            "batch_stats_sha256": result.batch_stats_sha256,
        }:
            yield folder, f"{WEIGHTS} are not those of the card"
        if not (folder / PREDICTIONS).is_file():
            yield folder, f"{PREDICTIONS} are missing"
            continue
        found = read_predictions(folder / PREDICTIONS)
        for column in COLUMNS:
            right = found["label"][found[column] == found["label"]]
            counts = result.columns[column]
            if np.bincount(right, minlength=len(counts.total)).tolist() != list(counts.correct):
                yield folder, f"{PREDICTIONS} and the card differ in `{column}`"
