"""Evaluations of a run, as its cards hold them. No JAX."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from ltrobust.analysis import metrics
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column, NetworkResult
from ltrobust.runtime.workdir import PHASES, WEIGHTS

_NAMES = {"clean": "clean", "pgd20": "PGD-20", "worst": "worst of attacks"}
# The groups that a report shows, and what it calls them.
GROUPS = {"head_third": "head", "medium_third": "middle", "tail_third": "tail"}


def distinct(networks: Mapping[str, NetworkResult]) -> dict[str, NetworkResult]:
    """The networks without those that have another one's weights."""
    return {name: network for name, network in networks.items() if network.same_as is None}


def shots(card: Card, column: Column) -> dict[str, Estimate]:
    """Means of a column over many-, medium- and few-shot classes (`metrics.shots`), for tables.

    Only where the long tail is the data's own (`data.imbalance_ratio` is 0) and each group has classes; else empty.
    """
    members = metrics.shots(np.array(card.data.class_counts))
    if card.config.get("data", {}).get("imbalance_ratio") != 0 or not all(map(len, members.values())):
        return {}
    counts = metrics.ClassCounts(np.array(column.correct), np.array(column.total))
    return {name: metrics.macro(counts, classes) for name, classes in members.items()}


@dataclasses.dataclass(frozen=True)
class EvaluatedNetworks:
    """The networks that were evaluated under one protocol and threat on the same images.

    Attributes:
      card: the newest of their cards, for what they share, with the `training` of all.
      networks: the cards' parts on them by name, teacher before student, last weights first.
      groups: classes of head, middle and tail, by the names of `GROUPS`; none is empty.
    """

    card: Card
    networks: Mapping[str, NetworkResult]
    groups: Mapping[str, Sequence[int]]

    @property
    def title(self) -> str:
        """Protocol, threat and images in words."""
        data, threat = self.card.data, self.card.threat
        return (
            f"{self.card.protocol.name}, {threat.norm} {threat.radius:g}/255, "
            f"{data.evaluated:,} of {data.test_images:,} test images"
        )

    @property
    def headline(self) -> str:
        """The column that the protocol is quoted by."""
        return self.card.protocol.headline

    @property
    def distinct(self) -> dict[str, NetworkResult]:
        """The networks without those that have another one's weights."""
        return distinct(self.networks)

    @property
    def main(self) -> str:
        """The network that is shown where only one is: the student's last weights, or the last network."""
        return "student/last" if "student/last" in self.networks else list(self.distinct)[-1]

    def same_subject(self, other: "EvaluatedNetworks") -> bool:
        """Whether another evaluation has this one's main network, with the same weights, under the same threat."""
        there, here = other.networks.get(self.main), self.networks[self.main]
        if there is None or other.card.threat != self.card.threat:
            return False
        return (there.params_sha256, there.batch_stats_sha256) == (here.params_sha256, here.batch_stats_sha256)

    @property
    def classes(self) -> list[int]:
        """Classes, most training images first."""
        counts = self.card.data.class_counts
        return sorted(range(len(counts)), key=lambda index: -counts[index])

    def column(self, name: str) -> str:
        """A column's name in print."""
        return titles(self.card).get(name, name)

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the classes; very long ones are shortened."""
        return [short(name) for name in self.card.data.class_names]

    def class_name(self, index: int) -> str:
        """A class with its number of training images: `truck (50)`."""
        return f"{self.names[index]} ({self.card.data.class_counts[index]:,})"

    @functools.cached_property
    def labels(self) -> list[str]:
        """Classes with their training images as charts have room for them; no two are equal."""
        counts = self.card.data.class_counts
        return labels([f"{short(name, 28)} ({count:,})" for name, count in zip(self.names, counts, strict=True)])


def titles(card: Card) -> dict[str, str]:
    """Column -> what it may be called in print."""
    return {**card.protocol.titles, **_NAMES}


def short(text: str, limit: int = 80) -> str:
    """Text of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def labels(names: Sequence[str]) -> list[str]:
    """Names, with their number where another one is the same: a chart has one place for each name."""
    times = collections.Counter(names)
    return [f"{name} #{n}" if times[name] > 1 else name for n, name in enumerate(names)]


def in_order(names: Sequence[str]) -> list[str]:
    """Names of networks, teacher before student, last weights first."""
    known = [f"{phase}/{weights}" for phase in PHASES for weights in WEIGHTS]
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))
