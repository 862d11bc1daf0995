"""The evaluations of a run, most important first, and the verdict stores that its cards name. No JAX."""

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from ltrobust.analysis import cards, metrics
from ltrobust.analysis.evaluated_networks import GROUPS, EvaluatedNetworks, in_order
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import NetworkResult
from ltrobust.data import images as image_files
from ltrobust.data import sources
from ltrobust.data.images import Images
from ltrobust.evaluation import store
from ltrobust.evaluation.lines import Lines
from ltrobust.runtime import typed_json
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.files import read_json
from ltrobust.runtime.names import nearest

# The seed of the attacks may differ: it is part of what two evaluations of one network differ in.
SAME = ("protocol", "threat", "num_classes", "images")
OWN_PAGE = "diagnose"  # a protocol whose evaluations have a separate page, see `report/diagnosis.py`


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One evaluated network: its store, what the store belongs to, and the card that names it, if one does.

    Attributes:
      folder: of the verdict store.
      provenance: the store's.
      network: its name in the run, `student/last`; empty for a bare store.
      sha256: of the verdicts that the card was made from.
      card: of the run, None for a bare store.
      workdir: of the run, None for a bare store.
    """

    folder: Path
    provenance: Mapping[str, Any]
    network: str = ""
    sha256: str | None = None
    card: Card | None = None
    workdir: Path | None = None

    def verdicts(self) -> Lines:
        """All verdicts of the store.

        Raises:
          ValueError: they are not those that the card was made from.
        """
        return store.read(self.folder, self.sha256)[1]


class Model(NamedTuple):
    """An evaluated network with its name in print and its verdicts."""

    name: str
    of: Candidate
    verdicts: Lines


def evaluations(workdir: Path, missing: dict[str, list[str]]) -> list[EvaluatedNetworks]:
    """Cards of one protocol, threat and images joined, the weightiest first; `missing` gets what is not shown."""
    result: dict[Path, Card] = {}
    for path in sorted((workdir / "results").glob("*.json")):
        try:
            result[path] = read_card(path)
        except (ValueError, OSError) as error:
            missing["summary"].append(f"Not shown: {error}")
            _warn(f"{path.name} is skipped: {error}")
    groups: dict[str, list[Card]] = collections.defaultdict(list)
    for card in in_order_of_age(result).values():
        # Pixels are left out: what is compared image by image are positions.
        chosen = {part: card.data.fingerprints.get(part) for part in ("chosen", "train", "validation")}
        shared = [card.protocol, card.threat, card.data.test_labels_sha256, chosen]
        groups[cards.digest_json(typed_json.plain(shared))].append(card)
    joined = []
    for group in groups.values():
        # If several cards have the same network, the newest counts.
        networks = {name: network for card in group for name, network in card.networks.items()}
        training = {phase: run for card in group for phase, run in card.training.items()}
        named = {name: networks[name] for name in in_order(list(networks))}
        members = metrics.groups(np.array(group[-1].data.class_counts))
        groups_shown = {view: members[view].tolist() for view in GROUPS if len(members[view])}
        joined.append(EvaluatedNetworks(dataclasses.replace(group[-1], training=training), named, groups_shown))
    return sorted(joined, key=_weight, reverse=True)


def in_order_of_age(found: Mapping[Path, Card]) -> dict[Path, Card]:
    """Cards by their files, the oldest first; within one second by name, with `quick-2` before `quick-10`.

    Times of files do not count, because a copy of a folder has others.
    """

    def age(path: Path) -> tuple[str, list[str | int]]:
        words = re.split(r"(\d+)", path.stem)  # every second one is a number
        return found[path].created, [int(word) if place % 2 else word for place, word in enumerate(words)]

    return {path: found[path] for path in sorted(found, key=age)}


def read_card(path: Path) -> Card:
    """A card in the `results` of a workdir.

    Raises:
      ValueError: as `cards.read`, or the card of another run than the workdir's.
    """
    card = cards.read(path)
    workdir = path.parent.parent
    if workdirs.is_run(workdir):
        run = cards.describe_config(read_json(workdir / "config.json"))
        # The threat is the evaluation's; a changed head and a file of weights are not in the run's configuration.
        own = ("threat.", "inference.", "weights.")
        if result := [line for line in workdirs.differences(run, card.config) if not line.startswith(own)]:
            raise ValueError(f"{path} is the card of another run than {workdir} ({result[0]}); move it away.")
    return card


@functools.cache
def _warn(text: str) -> None:
    """Logs a warning once, although cards are read several times."""
    logging.warning("%s", text)


def _weight(evaluation: EvaluatedNetworks) -> tuple[int, bool, int, bool, str]:
    """Sort key, largest first: images, no separate page, attacks, the threat of the training, date."""
    card = evaluation.card
    trained = [(run.threat.norm, run.threat.radius) for run in card.training.values() if run.threat]
    own = (card.threat.norm, card.threat.radius) in trained
    main = card.protocol.name != OWN_PAGE
    return card.data.evaluated, main, len(card.protocol.attacks), own, card.created


def read_store(workdir: Path, network: NetworkResult) -> tuple[dict[str, Any], Lines]:
    """Provenance and verdicts of the store that a card names.

    Raises:
      ValueError: it is not there, or holds other verdicts than the card was made from.
    """
    if network.verdicts is None or not (workdir / network.verdicts.folder).is_dir():
        gone = network.verdicts.folder if network.verdicts else "the folder of its verdicts"
        raise ValueError(f"{gone} is not there any more; evaluate again with ltrobust evaluate --workdir=DIR.")
    return store.read(workdir / network.verdicts.folder, network.verdicts.sha256)


def evaluated_images(
    card: Card,
    provenance: Mapping[str, Any],
    ids: np.ndarray,
    *,
    data_dir: str,
    cache_dir: str,
    workdir: Path | None = None,
) -> Images:
    """All test images of a card's data set, uint8 [N,H,W,C].

    Args:
      card: of the run.
      provenance: of the store that `ids` are from.
      ids: the images that were evaluated.
      data_dir, cache_dir: where images lie, as in the configuration's `data`.
      workdir: of the run, whose configuration says where image lists lie; a card has only their names.

    Raises:
      ValueError, OSError: the data cannot be read here (see `data.sources.load`), or are others than were evaluated.
    """
    data = dict(card.config["data"])
    if "lists" in data and workdir and workdirs.is_run(workdir):
        recorded = read_json(workdir / "config.json")["data"].get("lists", {})
        # An evaluation may have been of another list.
        data["lists"] = {
            key: recorded.get(key, path) if Path(recorded.get(key, "")).name == Path(path).name else path
            for key, path in data["lists"].items()
        }
    form = sources.form(data)
    test = sources.load(card.data.name, "test", data_dir=data_dir, cache_dir=cache_dir, **form)
    if ids.max() >= len(test.images) or not are_evaluated(image_files.take(test.images, ids), provenance):
        raise ValueError("the test images found here are not those that were evaluated; name the folder of their data.")
    return test.images


def are_evaluated(images: Images, provenance: Mapping[str, Any]) -> bool:
    """Whether images are those of a store; contents of files are compared where both sides read them all."""
    known = image_files.contents([images])
    return image_files.digest(images) == provenance["images"]["sha256"] and (
        known.get("contents") in (None, provenance.get("contents", known.get("contents")))
    )


def candidates(argument: str) -> list[Candidate]:
    """The evaluations of the network that an argument names, weightiest first.

    Args:
      argument: folder of a verdict store; a workdir, for its student's last weights (or its last network); or
        `WORKDIR:NETWORK` with a network of the run's cards, `teacher` or `student` for the last weights.

    Raises:
      ValueError: no such folder, nothing evaluated in it, no such network, or a card whose store is not there.
    """
    folder, _, wanted = (argument, "", "") if Path(argument).is_dir() else argument.rpartition(":")
    workdir = Path(folder)
    if not folder or not workdir.is_dir():
        raise ValueError(f"{argument} is not a folder; give a verdict store, a workdir, or WORKDIR:NETWORK.")
    if (workdir / "provenance.json").exists():
        if wanted:
            raise ValueError(f"{folder} is a verdict store, which has one network; leave {':' + wanted!r} out.")
        return [Candidate(workdir, store.read_provenance(workdir))]
    missing: dict[str, list[str]] = collections.defaultdict(list)
    result = evaluations(workdir, missing)
    if not result:
        unfinished = f"let the run come to its end, or evaluate it with ltrobust evaluate --workdir={folder}."
        why = "; ".join(missing["summary"]) or unfinished
        raise ValueError(f"{folder} is not a verdict store, and as a workdir it holds no result card: {why}")
    chosen = []
    for evaluation in result:
        name = (wanted if "/" in wanted else f"{wanted}/last") if wanted else evaluation.main
        if name in evaluation.networks:
            chosen.append(_candidate(workdir, evaluation, name))
    if not chosen:
        known = dict.fromkeys(name for evaluation in result for name in evaluation.networks)
        raise ValueError(
            f"{folder} has no evaluated network {wanted!r}; {nearest(wanted, known)}it has {', '.join(known)}."
        )
    return chosen


def _candidate(workdir: Path, evaluation: EvaluatedNetworks, name: str) -> Candidate:
    """A run's network with its store."""
    verdicts = evaluation.networks[name].verdicts
    if verdicts is None:
        raise ValueError(f"the card of {name} in {workdir} names no verdicts; evaluate again.")
    folder = workdir / verdicts.folder
    return Candidate(folder, store.read_provenance(folder), name, verdicts.sha256, evaluation.card, workdir)


def read_alike(arguments: Sequence[str], first: str = "") -> list[Model]:
    """The networks that arguments name, at the weightiest evaluation that all of them have.

    Args:
      arguments: see `candidates`.
      first: a protocol whose evaluations come before all others.

    Raises:
      ValueError: an argument that names nothing or occurs twice; networks that were never evaluated on the same images
        under the same protocol and threat (names what differs).
    """
    twice = [argument for argument, number in collections.Counter(arguments).items() if number > 1]
    if twice:
        raise ValueError(f"{twice[0]} is given twice; a network does not differ from itself.")
    result = [
        sorted(candidates(argument), key=lambda candidate: candidate.provenance["protocol"]["name"] != first)
        for argument in arguments
    ]
    # Weightiest first, so the first evaluation that all of them have is the one to compare.
    for wanted in result[0]:
        alike = [next((c for c in others if not _differing(wanted, c)), None) for others in result]
        chosen = [candidate for candidate in alike if candidate is not None]
        if len(chosen) == len(arguments):
            _check_different(arguments, chosen)
            names = _names(arguments)
            return [Model(name, c, c.verdicts()) for name, c in zip(names, chosen, strict=True)]
    reference = result[0][0]
    for argument, others in zip(arguments, result, strict=True):
        if all(_differing(wanted, c) for wanted in result[0] for c in others):
            raise ValueError(
                f"{arguments[0]} and {argument} differ in {', '.join(_differing(reference, others[0]))}; only "
                "evaluations of the same images under the same protocol and threat can be compared image by image."
            )
    raise ValueError(f"no evaluation is common to all of {', '.join(arguments)}; evaluate them alike.")


def _check_different(arguments: Sequence[str], chosen: Sequence[Candidate]) -> None:
    """Refuses two arguments that name one evaluation."""
    seen: dict[Path, str] = {}
    for argument, candidate in zip(arguments, chosen, strict=True):
        folder = candidate.folder.resolve()
        if folder in seen:
            raise ValueError(f"{seen[folder]} is given twice, once as {argument}; give every network once.")
        seen[folder] = argument


def _differing(one: Candidate, other: Candidate) -> list[str]:
    """Differences that prevent a comparison of two evaluations."""
    first, second = one.provenance, other.provenance
    # Contents of files are known where all were read.
    known = ("contents",) if "contents" in first and "contents" in second else ()
    return [key for key in (*SAME, *known) if first[key] != second[key]]


def _names(arguments: Sequence[str]) -> list[str]:
    """Arguments without the folders around them, as long as they differ then."""
    result = []
    for argument in arguments:
        folder, _, network = (argument, "", "") if Path(argument).is_dir() else argument.rpartition(":")
        result.append(Path(folder).resolve().name + (f":{network}" if network else ""))
    return result if len(set(result)) == len(result) else list(arguments)
