"""What a report is drawn from: numbers of a run's files, as they were written. No JAX."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.report import tables

_PHASES, _WEIGHTS = ("teacher", "student"), ("last", "selected", "averaged")
FEW_CLASSES = 20
# The groups that a report shows, and what it calls them.
GROUPS = {"head_third": "head", "medium_third": "middle", "tail_third": "tail"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The networks that were evaluated under one protocol and threat on the same images.

    Attributes:
      card: the newest of their cards, for what they share, with the `training` of all.
      networks: the cards' parts on them by name, teacher before student, last weights first.
      groups: classes of head, middle and tail, by the names of `GROUPS`; none is empty.
    """

    card: Mapping[str, Any]
    networks: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Sequence[int]]

    @property
    def title(self) -> str:
        """Protocol, threat and images in words."""
        data, threat = self.card["data"], self.card["threat"]
        return (
            f"{self.card['protocol']['name']}, {threat['norm']} {threat['radius']:g}/255, "
            f"{data['evaluated']:,} of {data['test_images']:,} test images"
        )

    @property
    def headline(self) -> str:
        """The column that the protocol is quoted by."""
        return self.card["protocol"]["headline"]

    @property
    def distinct(self) -> dict[str, Mapping[str, Any]]:
        """The networks without those that have another one's weights."""
        return {name: network for name, network in self.networks.items() if not network.get("same_as")}

    @property
    def main(self) -> str:
        """The network that is shown where only one is: the student's last weights, or the last network."""
        return "student/last" if "student/last" in self.networks else list(self.distinct)[-1]

    @property
    def classes(self) -> list[int]:
        """Classes, most training images first."""
        counts = self.card["data"]["class_counts"]
        return sorted(range(len(counts)), key=lambda index: -counts[index])

    def column(self, name: str) -> str:
        """A column's name in print."""
        return tables.titles(self.card).get(name, name)

    def class_name(self, index: int) -> str:
        """A class with its number of training images: `truck (50)`."""
        data = self.card["data"]
        return f"{data['class_names'][index]} ({data['class_counts'][index]:,})"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`first` minus `second`; `result` as of `analysis/compare.py`, None where both are the same weights."""

    first: str
    second: str
    result: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Teaching:
    """What the section is drawn from.

    Attributes:
      confidence: network -> `clean` and `attacked`, each one estimate per class of the mean probability of the true
        class (`value`, `low`, `high`; None without images).
      agreement: group of classes (`overall`, or a name of `GROUPS`) -> `evaluation.compare.agreement` of teacher
        (first) and student under the headline.
    """

    confidence: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] = dataclasses.field(default_factory=dict)
    agreement: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How many images were still right after how many network evaluations of an attack, of those that it saw.

    `remaining` is of all attacks of the protocol up to this one together, after its end.
    """

    attack: str
    seen: int
    evaluations: Sequence[int]
    survivors: Sequence[int]
    remaining: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image before and after an attack, float [H,W,C] in [0,1], and what the network says of both."""

    group: str
    image_id: int
    attack: str
    label: int
    clean_prediction: int
    adv_prediction: int
    image: np.ndarray
    adv_image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything on the page.

    Attributes:
      name: of the run's folder.
      evaluations: the one that is shown in full, then all others.
      records: of `metrics.jsonl`, in order.
      comparisons, teaching, efforts, pictures: of the first evaluation; efforts and pictures of its main network.
      missing: section -> why it lacks something and what to run to have it, one line each.
    """

    name: str
    evaluations: Sequence[Evaluation] = ()
    records: Sequence[Mapping[str, Any]] = ()
    comparisons: Sequence[Comparison] = ()
    teaching: Teaching = dataclasses.field(default_factory=Teaching)
    efforts: Sequence[Effort] = ()
    pictures: Sequence[Picture] = ()
    missing: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)


def in_order(names: Sequence[str]) -> list[str]:
    """Names of networks, teacher before student, last weights first."""
    known = [f"{phase}/{weights}" for phase in _PHASES for weights in _WEIGHTS]
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))
