"""Diagnosis of evaluated networks, from verdict stores or workdirs: how their classes differ. No JAX."""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltrobust.analysis import cards, diagnosis, results
from ltrobust.analysis.schema.card import ProtocolSettings, ThreatSettings
from ltrobust.analysis.schema.diagnosis import DIAGNOSIS_VERSION, DiagnosedImages, Diagnosis, Superclasses
from ltrobust.analysis.schema.network import Classifier
from ltrobust.data import superclasses
from ltrobust.evaluation import store
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import read_json
from ltrobust.runtime.names import nearest

PROTOCOL = results.OWN_PAGE


def diagnose(arguments: Sequence[str | Path], column: str | None = None) -> Diagnosis:
    """The diagnosis of stores or workdirs: `diagnosis.diagnose`, and what its numbers depend on.

    Args:
      arguments: at least one, as on the command line.
      column: an attack or a combination, to be shown in full; default: the protocol's headline.

    Raises:
      ValueError: a folder that is neither, is unfinished or given twice; stores that differ in images, protocol, threat
        or classes (names which); an unknown column.
    """
    result = results.read_alike([str(argument) for argument in arguments], first=PROTOCOL)
    provenances = [model.of.provenance for model in result]
    first = provenances[0]
    columns = store.columns(first)[1:]
    if column is not None and column not in columns:
        raise ValueError(
            f"no column {column!r} under attack; {nearest(column, columns)}there are {', '.join(columns)}."
        )
    classifiers = [_classifier(model.of) for model in result]
    models = [
        _model(name, model, classifier, ["clean", *columns])
        for name, model, classifier in zip(_names(result), result, classifiers, strict=True)
    ]
    class_names = first["about"].get("class_names") or [str(index) for index in range(first["num_classes"])]
    groups = superclasses.of(class_names)
    described, between = diagnosis.diagnose(models, groups)
    counts = first["about"].get("training_counts") or [0] * len(class_names)
    return Diagnosis(
        software=cards.software(),
        protocol=ProtocolSettings.of(first["protocol"]),
        threat=ThreatSettings(**first["threat"]),
        num_classes=first["num_classes"],
        images=DiagnosedImages(**first["images"]),
        column=column or columns[-1],
        class_names=class_names,
        order=sorted(range(len(counts)), key=lambda index: -counts[index]),
        superclasses=None if groups is None else Superclasses(list(groups[0]), groups[1].tolist()),
        models=[
            dataclasses.replace(
                entry,
                head=classifier.head if classifier else None,
                verdicts_sha256=cards.digest_file(model.of.folder / "verdicts.jsonl"),
            )
            for entry, model, classifier in zip(described, result, classifiers, strict=True)
        ],
        between=between,
    )


def read(path: Path) -> Diagnosis:
    """A diagnosis that `ltrobust diagnose` wrote.

    Raises:
      ValueError: the file is damaged, no diagnosis, or one of another version.
    """
    content = read_json(path)
    if content.get("version") != DIAGNOSIS_VERSION or "models" not in content:
        raise ValueError(
            f"{path} is no diagnosis of version {DIAGNOSIS_VERSION} (it has {content.get('version')!r}); run ltrobust "
            "diagnose again."
        )
    try:
        return typed_json.parse(Diagnosis, content)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error} Put back a copy of it.") from error


def _names(models: Sequence[results.Model]) -> list[str]:
    """What the models are called: network, else store; of several, the run before it; numbered where that is alike."""
    names = [model.of.provenance["about"].get("network") or model.of.folder.name for model in models]
    if len(set(names)) < len(names):
        folders = [model.of.folder.resolve().parent.parent.name for model in models]
        names = [f"{folder} {name}" for folder, name in zip(folders, names, strict=True)]
    return [
        name if name not in names[:place] else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def _classifier(evaluated: results.Candidate) -> Classifier | None:
    """The network's classifier, from the run's cards; None without such a card."""
    about = evaluated.provenance["about"]
    for evaluation in results.evaluations(evaluated.folder.resolve().parent.parent, collections.defaultdict(list)):
        network = evaluation.networks.get(about.get("network", ""))
        if network and network.params_sha256 == about.get("params_sha256") and network.classifier:
            return network.classifier
    return None


def _model(name: str, model: results.Model, classifier: Classifier | None, columns: Sequence[str]) -> diagnosis.Model:
    """A model's verdicts, column by column."""
    provenance = model.of.provenance
    answers = {column: store.final(provenance, model.verdicts, column) for column in columns}
    counts = provenance["about"].get("training_counts")
    return diagnosis.Model(
        name=name,
        labels=answers["clean"][1],
        num_classes=provenance["num_classes"],
        predictions={column: predictions for column, (_, _, predictions) in answers.items()},
        attacks=ProtocolSettings.of(provenance["protocol"]).attacks,
        training_counts=None if counts is None else np.asarray(counts),
        class_norms=np.asarray(classifier.class_norms) if classifier else None,
    )
