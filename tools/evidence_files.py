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
    return sorted(path.parent for path in (root / "results" / "evidence").glob(f"*/*/{PREDICTIONS}"))


def folder_of(card: Path) -> Path:
    """Where the evidence of a card's network is, if it is kept: `results/evidence/SWEEP/CELL`."""
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
    if column not in COLUMNS or not all(file.is_file() for file in files):
        return None
    one, two = (read_predictions(file.read_text()) for file in files)
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


def read_predictions(text: str) -> dict[str, np.ndarray]:
    """Column -> values of a `predictions.csv`, int64 [N] each: `image`, `label`, then `COLUMNS`."""
    header, *rows = csv.reader(io.StringIO(text))
    return dict(zip(header, np.array(rows, np.int64).T, strict=True))


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
        found = read_predictions((folder / PREDICTIONS).read_text())
        for column in COLUMNS:
            right = found["label"][found[column] == found["label"]]
            counts = result.columns[column]
            if np.bincount(right, minlength=len(counts.total)).tolist() != list(counts.correct):
                yield folder, f"{PREDICTIONS} and the card differ in `{column}`"
