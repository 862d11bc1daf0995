"""What a diagnosis holds on one column of a network. No JAX.

Accuracies, rates and shares are fractions in [0, 1], intervals are 95 %. A number is NaN (null in JSON) where it is not
defined.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.network import Confusion
from ltrobust.runtime.typed_json import Count, Number


@dataclasses.dataclass(frozen=True)
class Inequality:
    """Measures over the classes with test images; see `analysis/spread.py`.

    Attributes:
      mean, worst, worst10, best: of the class accuracies; `worst10` is the mean of the lowest ceil(G/10).
      range: best minus worst.
      var, sd, nsd: population variance, standard deviation, and this by the mean.
    """

    mean: Estimate
    worst: Estimate
    worst10: Estimate
    best: Estimate
    range: Estimate
    var: Estimate
    sd: Estimate
    nsd: Estimate


@dataclasses.dataclass(frozen=True)
class TopWrongClass:
    """Where the broken images of one class go.

    Attributes:
      broken: images that are right when clean and wrong when attacked.
      predicted: the label that most of them are misclassified as; None without any.
      share: of the broken images that are misclassified as that.
    """

    broken: Count
    predicted: Count | None
    share: Estimate


@dataclasses.dataclass(frozen=True)
class TopWrongClasses:
    """Where broken images go under an attack.

    Attributes:
      classes: one entry per class.
      share: of all broken images, each to the top wrong class of its own class.
      even: the share if all other classes were alike, 1 / (C - 1).
    """

    classes: Sequence[TopWrongClass]
    share: Estimate
    even: float


@dataclasses.dataclass(frozen=True)
class SuperclassAccuracy:
    """One superclass.

    Attributes:
      name: of the superclass.
      value: accuracy of its images, where any class of the superclass counts as right.
      low, high: Wilson's interval.
      fine: the usual accuracy of the same images.
    """

    name: str
    value: Number
    low: Number
    high: Number
    fine: Estimate


@dataclasses.dataclass(frozen=True)
class SuperclassScores:
    """A column scored by superclass. Attacks looked for any wrong class, so these are upper bounds.

    Attributes:
      overall: accuracy where any class of the true superclass counts as right.
      per_superclass: one entry each.
      broken_inside: of the images that are right when clean and wrong here, the share that stays in its superclass.
    """

    overall: Estimate
    per_superclass: Sequence[SuperclassAccuracy]
    broken_inside: Estimate


@dataclasses.dataclass(frozen=True)
class DiagnosedColumn:
    """One column of a network.

    Attributes:
      correct, total: images per class that are right, and all of them.
      per_class, overall: accuracies (Wilson).
      inequality: measures over classes.
      groups: name, as of `metrics.groups` -> mean over the group; empty without training counts.
      confusion: images by true class (row) and predicted class (column).
      asymmetry: `||M - M^T|| / ||M||` of the matrix of shares, from 0 to sqrt(2).
      most_frequent_confusion: of each class; None for a class that is never wrong.
      top_wrong: where broken images go; None for `clean`.
      superclasses: None where superclasses are not known.
    """

    correct: Sequence[Count]
    total: Sequence[Count]
    per_class: Sequence[Estimate]
    overall: Estimate
    inequality: Inequality
    groups: Mapping[str, Estimate]
    confusion: Sequence[Sequence[Count]]
    asymmetry: Estimate
    most_frequent_confusion: Sequence[Confusion | None]
    top_wrong: TopWrongClasses | None
    superclasses: SuperclassScores | None
