"""The diagnosis of evaluated networks: what separates the classes in verdict stores or workdirs. No JAX."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust.analysis import cards, diagnosis, runs
from ltrobust.data import superclasses
from ltrobust.evaluation import store
from ltrobust.runtime.files import without_nan
from ltrobust.runtime.names import nearest

VERSION = 1
PROTOCOL = runs.OWN_PAGE


def diagnose(arguments: Sequence[str | Path], column: str | None = None) -> dict[str, Any]:
    """The diagnosis of stores or workdirs as plain values: `diagnosis.diagnose`, and what its numbers depend on.

    Args:
      arguments: at least one, as on the command line.
      column: an attack or a combination, to be shown in full; default: the protocol's headline.

    Raises:
      ValueError: a folder that is neither, is unfinished or given twice; stores that differ in images, protocol, threat
        or classes (names which); an unknown column.
    """
    found = runs.read_alike([str(argument) for argument in arguments], first=PROTOCOL)
    passports = [model.of.passport for model in found]
    first = passports[0]
    columns = store.columns(first)[1:]
    if column is not None and column not in columns:
        raise ValueError(
            f"no column {column!r} under attack; {nearest(column, columns)}there are {', '.join(columns)}."
        )
    classifiers = [_classifier(model.of) for model in found]
    models = [
        _model(name, model, classifier, ["clean", *columns])
        for name, model, classifier in zip(_names(found), found, classifiers, strict=True)
    ]
    class_names = first["about"].get("class_names") or [str(index) for index in range(first["num_classes"])]
    groups = superclasses.of(class_names)
    result = diagnosis.diagnose(models, groups)
    for entry, model, classifier in zip(result["models"], found, classifiers, strict=True):
        digest = cards.digest_file(model.of.folder / "verdicts.jsonl")
        entry |= {"head": classifier.get("head"), "verdicts_sha256": digest}
    counts = first["about"].get("training_counts") or [0] * len(class_names)
    about = {key: first[key] for key in runs.SAME} | {
        "version": VERSION,
        "software": cards.software(),
        "column": column or columns[-1],
        "class_names": class_names,
        "order": sorted(range(len(counts)), key=lambda index: -counts[index]),
        "superclasses": None if groups is None else {"names": list(groups[0]), "of": groups[1].tolist()},
    }
    return without_nan(about | result)


def _names(models: Sequence[runs.Model]) -> list[str]:
    """What the models are called: network, else store; of several, the run before it; numbered where that is alike."""
    names = [model.of.passport["about"].get("network") or model.of.folder.name for model in models]
    if len(set(names)) < len(names):
        folders = [model.of.folder.resolve().parent.parent.name for model in models]
        names = [f"{folder} {name}" for folder, name in zip(folders, names, strict=True)]
    return [
        name if name not in names[:place] else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _classifier(evaluated: runs.Candidate) -> dict[str, Any]:
    """What the run's cards say of the network's classifier: `head` and `class_norms`; nothing without such a card."""
    about = evaluated.passport["about"]
    for evaluation in runs.evaluations(evaluated.folder.resolve().parent.parent, collections.defaultdict(list)):
        network = evaluation.networks.get(about.get("network", ""), {})
        if network.get("params_sha256") == about.get("params_sha256") and "classifier" in network:
            return network["classifier"]
    return {}


def _model(name: str, model: runs.Model, classifier: Mapping[str, Any], columns: Sequence[str]) -> diagnosis.Model:
    """A model's verdicts, column by column."""
    passport = model.of.passport
    answers = {column: store.final(passport, model.verdicts, column) for column in columns}
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
