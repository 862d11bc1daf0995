"""Two networks on the same images: accuracies, differences, tests. No JAX.

Accuracies are fractions in [0, 1], differences are first minus second in [-1, 1], intervals are 95 %. A number is NaN
(null in JSON) where a class has no test images.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ltrobust.analysis.intervals import Estimate
from ltrobust.runtime.typed_json import Number


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """McNemar's test of "both networks are right equally often".

    Attributes:
      b, c: images that only the first, and only the second network gets right.
      p, mid_p: two-sided p-values: exact, and the less conservative mid-p.
    """

    b: int
    c: int
    p: float
    mid_p: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """Accuracies of two networks and their paired difference.

    Attributes:
      first, second: accuracies.
      difference: first minus second.
      low, high: interval of the difference.
    """

    first: Number
    second: Number
    difference: Number
    low: Number
    high: Number

    @property
    def value(self) -> float:
        """The difference, as the value of its interval."""
        return self.difference


@dataclasses.dataclass(frozen=True)
class PooledDifference(Difference):
    """Over all images; the interval is that of `intervals.paired_bounds`.

    Attributes:
      test: of these images.
    """

    test: PairedTest


@dataclasses.dataclass(frozen=True)
class ColumnDifference(PooledDifference):
    """Over all images in one column of the protocol.

    Attributes:
      p_holm: `test.p` after Holm's correction over the columns.
    """

    p_holm: float


@dataclasses.dataclass(frozen=True)
class GroupDifference(Difference):
    """Of means over classes; the interval is the normal one with `intervals.paired_error`.

    Attributes:
      classes: with test images, in the group.
      images: of these classes.
      test: of the pooled images, in which classes weigh by their images.
    """

    classes: int
    images: int
    test: PairedTest


@dataclasses.dataclass(frozen=True)
class WorstDifference(Difference):
    """Of each network's worst class; the interval is simultaneous, see `intervals.lowest_difference`.

    Attributes:
      first_class, second_class: labels of the two worst classes.
    """

    first_class: int
    second_class: int


@dataclasses.dataclass(frozen=True)
class ClassDifference(Difference):
    """Of one class; the interval is that of `intervals.paired_bounds`.

    Attributes:
      class_index: its label.
      images: of the class.
      test: None without images.
      p_holm: `test.p` after Holm's correction over the classes with images.
    """

    class_index: int
    images: int
    test: PairedTest | None
    p_holm: Number


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """Two networks' verdicts on the same images.

    Attributes:
      images: number of images.
      overall: over all images.
      balanced: of the means over all classes with images.
      groups: name, as of `metrics.groups` -> of the means over the group; empty without training counts.
      worst: of the worst classes.
      per_class: of every class.
      classes_without_images: labels of classes that are left out of everything else.
    """

    images: int
    overall: PooledDifference
    balanced: GroupDifference
    groups: Mapping[str, GroupDifference]
    worst: WorstDifference
    per_class: Sequence[ClassDifference]
    classes_without_images: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far two networks are right on the same images.

    Attributes:
      images: number of images.
      both, only_first, only_second, neither: shares of the images by who is right; they sum to 1.
      kappa: Cohen's kappa; NaN where one outcome has all images, so that no agreement is beyond chance.
    """

    images: int
    both: float
    only_first: float
    only_second: float
    neither: float
    kappa: Estimate
