"""What separates the classes: `python -m ltrobust.diagnose FOLDER [FOLDER ...] [--column=NAME] [--out=DIR]`.

A FOLDER is a verdict store, or a workdir. A workdir stands for one network, the student's last weights or else the
first, of its newest evaluation under the protocol `diagnose`, or under any where there is none. Several models must
have been evaluated on the same images under the same protocol and threat; the first is the others' baseline. Nothing is
evaluated, no JAX: `main.py --mode=diagnose` evaluates a checkpoint first.

Writes `DIR/diagnosis.json` and `DIR/diagnosis.html`, or `diagnosis-2` and so on where one of them exists.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.data import superclasses
from ltrobust.evaluation import diagnosis, store
from ltrobust.files import read_json, without_nan, write_json, write_text
from ltrobust.reporting import cards
from ltrobust.reporting import diagnosis as page
from ltrobust.reporting.material import in_order

VERSION = 1
PROTOCOL = "diagnose"
# The seed of the attacks may differ: it is part of what two evaluations of one network differ in.
_SAME = ("protocol", "threat", "num_classes", "images")


def diagnose(folders: Sequence[str | Path], column: str | None = None) -> dict[str, Any]:
    """The diagnosis of stores or workdirs as plain values: `diagnosis.diagnose`, and what its numbers depend on.

    Args:
      folders: at least one.
      column: an attack or a combination, to be shown in full; default: the protocol's headline.

    Raises:
      ValueError: a folder that is neither, is unfinished or given twice; stores that differ in images, protocol, threat
        or classes (names which); an unknown column.
    """
    stores = [_store_of(Path(folder)) for folder in folders]
    found = [store.read(folder) for folder in stores]
    passports = [passport for passport, _ in found]
    _check_alike(stores, passports)
    first = passports[0]
    columns = [attack["name"] for attack in first["protocol"]["attacks"]]
    columns += [name for name, _ in first["protocol"]["combined"]]
    if column is not None and column not in columns:
        raise ValueError(f"no column {column!r} under attack; there are {', '.join(columns)}.")
    classifiers = [_classifier(folder, passport) for folder, passport in zip(stores, passports, strict=True)]
    names = _names(stores, passports)
    models = [
        _model(name, passport, verdicts, classifier, ["clean", *columns])
        for name, (passport, verdicts), classifier in zip(names, found, classifiers, strict=True)
    ]
    class_names = first["about"].get("class_names") or [str(index) for index in range(first["num_classes"])]
    groups = superclasses.of(class_names)
    result = diagnosis.diagnose(models, groups)
    for entry, folder, classifier in zip(result["models"], stores, classifiers, strict=True):
        entry |= {"head": classifier.get("head"), "verdicts_sha256": cards.digest_file(folder / "verdicts.jsonl")}
    counts = first["about"].get("training_counts") or [0] * len(class_names)
    about = {key: first[key] for key in _SAME} | {
        "version": VERSION,
        "software": cards.software(),
        "column": column or columns[-1],
        "class_names": class_names,
        "order": sorted(range(len(counts)), key=lambda index: -counts[index]),
        "superclasses": None if groups is None else {"names": list(groups[0]), "of": groups[1].tolist()},
    }
    return without_nan(about | result)


def write(found: Mapping[str, Any], folder: Path) -> Path:
    """Writes a diagnosis as JSON and as a page, under the first number that is free; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    number, stem = 1, "diagnosis"
    while any((folder / f"{stem}.{kind}").exists() for kind in ("json", "html")):
        number += 1
        stem = f"diagnosis-{number}"
    write_json(folder / f"{stem}.json", found)
    write_text(folder / f"{stem}.html", page.render(found))
    return folder / f"{stem}.html"


def _store_of(folder: Path) -> Path:
    """The verdict store that a folder is or stands for."""
    if (folder / "passport.json").is_file():
        return folder
    cards_there = _cards(folder)
    if not cards_there:
        raise ValueError(
            f"{folder} is neither a verdict store (no passport.json) nor a workdir with an evaluation (no "
            "results/*.json); give one of them, or evaluate first with main.py --mode=diagnose."
        )
    chosen = [card for card in cards_there if card["protocol"]["name"] == PROTOCOL] or cards_there
    networks = chosen[-1]["networks"]
    network = "student/last" if "student/last" in networks else in_order(list(networks))[0]
    return folder / networks[network]["verdicts"]["folder"]


def _cards(workdir: Path) -> list[dict[str, Any]]:
    """A workdir's cards, oldest first."""
    found = [read_json(path) for path in sorted((workdir / "results").glob("*.json"))]
    return sorted(
        (card for card in found if card.get("card_version") == cards.CARD_VERSION), key=lambda card: card["created"]
    )


def _check_alike(stores: Sequence[Path], passports: Sequence[Mapping[str, Any]]) -> None:
    """Refuses stores that cannot be held side by side."""
    for place, (folder, passport) in enumerate(zip(stores, passports, strict=True)):
        if folder.resolve() in [other.resolve() for other in stores[:place]]:
            raise ValueError(f"{folder} is given twice; give every model once.")
        for key in _SAME:
            if passport[key] != passports[0][key]:
                raise ValueError(
                    f"{stores[0]} and {folder} differ in {key}; only evaluations of the same images under the same "
                    "protocol and threat can be diagnosed together."
                )


def _names(stores: Sequence[Path], passports: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the models are called: network, else store; of several, the run before it; numbered where that is alike."""
    names = [
        passport["about"].get("network") or folder.name for folder, passport in zip(stores, passports, strict=True)
    ]
    if len(set(names)) < len(names):
        runs = [folder.resolve().parent.parent.name for folder in stores]
        names = [f"{run} {name}" for run, name in zip(runs, names, strict=True)]
    return [
        name if name not in names[:place] else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _classifier(folder: Path, passport: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's newest card says of the network's classifier: `head` and `class_norms`; nothing without a card."""
    about = passport["about"]
    for card in reversed(_cards(folder.resolve().parent.parent)):
        network = card["networks"].get(about.get("network"), {})
        if network.get("params_sha256") == about.get("params_sha256") and "classifier" in network:
            return network["classifier"]
    return {}


def _model(
    name: str,
    passport: Mapping[str, Any],
    verdicts: Mapping[str, Mapping[int, Mapping[str, Any]]],
    classifier: Mapping[str, Any],
    columns: Sequence[str],
) -> diagnosis.Model:
    """A store's verdicts, column by column."""
    answers = {column: store.final(passport, verdicts, column) for column in columns}
    counts = passport["about"].get("training_counts")
    norms = classifier.get("class_norms")
    return diagnosis.Model(
        name=name,
        labels=answers["clean"][1],
        num_classes=passport["num_classes"],
        predictions={column: predictions for column, (_, _, predictions) in answers.items()},
        attacks=passport["protocol"]["attacks"],
        training_counts=None if counts is None else np.asarray(counts),
        class_norms=None if norms is None else np.asarray(norms),
    )


def main(arguments: list[str] | None = None) -> None:
    """Writes the diagnosis and prints its tables."""
    parser = argparse.ArgumentParser(prog="python -m ltrobust.diagnose", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a verdict store, or a workdir")
    parser.add_argument("--column", help="an attack or a combination, shown in full; default: the protocol's headline")
    parser.add_argument("--out", type=Path, default=Path("diagnosis"), help="where to write; default: %(default)s")
    given = parser.parse_args(arguments)
    try:
        run(given.folders, given.out, given.column)
    except (ValueError, OSError) as error:
        sys.exit(f"ltrobust: {error}")


def run(folders: Sequence[str | Path], out: Path, column: str | None = None) -> Path:
    """Diagnoses, writes, prints; returns the page's path.

    Raises:
      ValueError: see `diagnose`.
    """
    found = diagnose(folders, column)
    path = write(found, out)
    print(f"{page.text(found)}\n\ndiagnosis: {path}")
    return path


if __name__ == "__main__":
    main()
