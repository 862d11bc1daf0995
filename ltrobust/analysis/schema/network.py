"""What a result card holds on one network: counts, accuracies and checks. No JAX.

Accuracies and shares are fractions in [0, 1], intervals are 95 %. A field is None where a card has no such measurement.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ltrobust.analysis.intervals import Estimate
from ltrobust.runtime.typed_json import Count, Number
from ltrobust.sanity.rules import Item


@dataclasses.dataclass(frozen=True)
class WorstClass:
    """The class with the lowest accuracy.

    Attributes:
      value: its accuracy; biased low, the more so the fewer images a class has.
      low, high: simultaneous interval of all classes, see `intervals.lowest`.
      class_index: its label, from 0.
    """

    value: Number
    low: Number
    high: Number
    class_index: Count


@dataclasses.dataclass(frozen=True)
class GroupMean:
    """The mean accuracy of a group of classes.

    Attributes:
      value: mean of the class accuracies, of classes with test images.
      low, high: normal interval.
      classes: number of classes in the group, at least 1.
      pooled: accuracy over all images of the group (Wilson); None where it equals `value`, because the classes have
        equally many test images.
    """

    value: Number
    low: Number
    high: Number
    classes: Count
    pooled: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class Column:
    """The test images that a network gets right when clean, under one attack, or under a combination of attacks.

    All fields but the first two are computed from these. A group of classes without members is None.

    Attributes:
      correct, total: images per class that are right, and all of them.
      overall: accuracy over all images (Wilson).
      balanced: mean of the class accuracies (normal interval).
      worst: the worst class.
      worst10: mean of the lowest ceil(G/10) accuracies of the G classes with images (simultaneous interval).
      sd: population standard deviation of the class accuracies.
      nsd: `sd / balanced`.
      gap: accuracy of the best class minus that of the worst.
      head_third, medium_third, tail_third: thirds of the classes by training images, most first: the first floor(C/3)
        classes are the head, those beyond 2 floor(C/3) are the tail.
      tail_rare80: the rarest ceil(0.8 C) classes.
      many_count, medium_count, few_count: classes with at least 100, 20 to 99, and fewer than 20 training images.
      rarest1: the rarest class.
      per_class: accuracy of each class (Wilson).
      classes_without_images: labels of classes that have no test image and are left out of means.
    """

    correct: Sequence[Count]
    total: Sequence[Count]
    overall: Estimate
    balanced: Estimate
    worst: WorstClass
    worst10: Estimate
    sd: Number
    nsd: Number
    gap: Number
    per_class: Sequence[Estimate]
    classes_without_images: Sequence[Count]
    head_third: GroupMean | None = None
    medium_third: GroupMean | None = None
    tail_third: GroupMean | None = None
    tail_rare80: GroupMean | None = None
    many_count: GroupMean | None = None
    medium_count: GroupMean | None = None
    few_count: GroupMean | None = None
    rarest1: GroupMean | None = None

    def view(self, name: str) -> Estimate | WorstClass | GroupMean | None:
        """The estimate that is called so: `overall`, `worst`, `tail_third` and others."""
        return getattr(self, name)

    def value(self, name: str) -> float:
        """The value of a view; NaN for a group without members."""
        view = self.view(name)
        return math.nan if view is None else view.value


@dataclasses.dataclass(frozen=True)
class Confusion:
    """The most frequent wrong prediction of a class.

    Attributes:
      predicted: the label that is predicted, ties to the lower one.
      share: of the class's test images.
    """

    predicted: Count
    share: float


@dataclasses.dataclass(frozen=True)
class Rounded:
    """Verdicts on adversarial images rounded to 8 bits.

    Attributes:
      column: under which.
      correct: images per class that are right.
    """

    column: str
    correct: Sequence[Count]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The last layer of a network.

    Attributes:
      head: kind of head, such as `linear` or `cosine`.
      class_norms: L2 length of each class's row of weights.
    """

    head: str
    class_norms: Sequence[float]


@dataclasses.dataclass(frozen=True)
class VerdictFile:
    """The verdicts that a network's counts are made from.

    Attributes:
      folder: of the verdict store, relative to the workdir.
      sha256: of its `verdicts.jsonl`.
    """

    folder: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class NetworkResult:
    """What was measured of one network.

    Attributes:
      params_sha256, batch_stats_sha256: SHA-256 of its parameters and of its running statistics.
      columns: by name: `clean`, then attacks, then combinations.
      max_violation: largest distance beyond the ball or the pixel bounds of a counted adversarial image, in pixels of
        [0, 1].
      rejected_claims: successes that a search claimed and the exact network did not confirm.
      clean_tied: clean images whose highest two logits are equal.
      rounded_to_8_bits: verdicts on rounded adversarial images.
      confusion: `clean` and the headline -> images by true class (row) and predicted class (column).
      most_frequent_confusion: of each class under the headline; None for a class that is never wrong.
      sanity: items of the sanity panel; empty where it was not run.
      sanity_verdict: `trustworthy`, `not trustworthy` or what keeps it open; None where the panel was not run.
      classifier: None where the last layer cannot be told from other layers.
      verdicts: None where none are kept.
      same_as: the network with the same weights that was evaluated in its place.
    """

    params_sha256: str
    batch_stats_sha256: str
    columns: Mapping[str, Column]
    max_violation: float
    rejected_claims: Count | None
    clean_tied: Count | None
    rounded_to_8_bits: Rounded | None
    confusion: Mapping[str, Sequence[Sequence[Count]]] | None
    most_frequent_confusion: Sequence[Confusion | None] | None
    sanity: Sequence[Item]
    sanity_verdict: str | None
    classifier: Classifier | None
    verdicts: VerdictFile | None
    same_as: str | None
