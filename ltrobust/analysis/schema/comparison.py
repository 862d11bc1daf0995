"""What a comparison of networks holds: the one definition of its fields, in memory and in JSON. No JAX.

Accuracies are fractions in [0, 1], differences are first minus second in [-1, 1], intervals are 95 %. A number is NaN
(null in JSON) where a class has no test images.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.card import ProtocolSettings, ThreatSettings
from ltrobust.analysis.schema.paired import ColumnDifference, PairedComparison
from ltrobust.runtime.typed_json import Number


@dataclasses.dataclass(frozen=True)
class Flip:
    """An image that only one of two networks resists.

    Attributes:
      image: its id.
      label: true class.
      broken_by: `clean`, or the attacks that broke the other network, in the protocol's order.
      prediction: of the other network after the first of these.
    """

    image: int
    label: int
    broken_by: Sequence[str]
    prediction: int


@dataclasses.dataclass(frozen=True)
class Flips:
    """The images that flip between a model and a reference, ascending by id.

    Attributes:
      won: only the model resists these.
      lost: only the reference resists these.
    """

    won: Sequence[Flip]
    lost: Sequence[Flip]


@dataclasses.dataclass(frozen=True)
class Breaker:
    """What one attack did to the images that flip in one direction.

    Attributes:
      name: of the attack, or `clean`.
      images: that it broke.
      first: of these, images that no attack before it had broken.
      alone: of these, images that nothing else broke.
    """

    name: str
    images: int
    first: int
    alone: int


@dataclasses.dataclass(frozen=True)
class Breakers:
    """What broke the network that does not resist.

    Attributes:
      won, lost: of the images in `Flips` of that name.
    """

    won: Sequence[Breaker]
    lost: Sequence[Breaker]


@dataclasses.dataclass(frozen=True)
class ComparedNetwork:
    """One of the networks.

    Attributes:
      name: as it was named on the command line, shortened.
      network: in its run, such as `student/last`.
      seed: of the training, where a card has it.
      columns: column -> accuracy over all images (Wilson).
      robust: that in the column of the comparison.
    """

    name: str
    network: str | None
    seed: int | None
    columns: Mapping[str, Estimate]
    robust: Estimate


@dataclasses.dataclass(frozen=True)
class NetworkPair:
    """A model compared with a reference.

    Attributes:
      model, reference: names.
      difference: `model minus reference`, in words.
      result: in the column of the comparison; the model is the first.
      columns: every column of the protocol, over all images.
      flips: images that only one of the two resists.
      breakers: which attack made the difference.
    """

    model: str
    reference: str
    difference: str
    result: PairedComparison
    columns: Mapping[str, ColumnDifference]
    flips: Flips
    breakers: Breakers


@dataclasses.dataclass(frozen=True)
class SeedDifference:
    """Differences of two methods, one for each pair of training seeds.

    Attributes:
      values: one per pair.
      mean, sd: of the values; the deviation is that of a sample (n - 1).
      low, high: t-interval of the mean; the deviation over seeds is not taken below that of drawing the test images. Of
        worst classes: `seeds.of_differences`.
      p: of the two-sided paired t-test, with the deviation of the interval; NaN where that is 0, and of worst classes.
      p_holm: `p` after Holm's correction over the views, columns or classes; NaN of the primary comparison.
    """

    values: Sequence[float]
    mean: float
    sd: float
    low: float
    high: float
    p: Number
    p_holm: Number


@dataclasses.dataclass(frozen=True)
class ClassSeedDifference(SeedDifference):
    """Of one class.

    Attributes:
      class_index: its label.
    """

    class_index: int


@dataclasses.dataclass(frozen=True)
class SeedComparison:
    """Two methods over several training seeds.

    Attributes:
      seeds: number of pairs.
      primary: the view that was decided on beforehand; None where it was not evaluated. All else is exploratory.
      views: `overall`, `balanced`, groups and `worst` -> difference.
      per_class: of every class with images.
      columns: column of the protocol -> difference over all images.
    """

    seeds: int
    primary: str | None
    views: Mapping[str, SeedDifference]
    per_class: Sequence[ClassSeedDifference]
    columns: Mapping[str, SeedDifference]


@dataclasses.dataclass(frozen=True)
class NetworkComparison:
    """What `ltrobust compare` finds.

    Attributes:
      column: in which networks are compared.
      protocol, threat: of all evaluations.
      images: number of images.
      class_names: in label order.
      training_counts: training images per class of the first network, where known.
      notes: what a reader should know.
      models: the networks.
      comparisons: of pairs of networks.
      seeds: None unless several runs of two methods are compared.
      sides: names of the two methods; None without `seeds`.
    """

    column: str
    protocol: ProtocolSettings
    threat: ThreatSettings
    images: int
    class_names: Sequence[str]
    training_counts: Sequence[int] | None
    notes: Sequence[str]
    models: Sequence[ComparedNetwork]
    comparisons: Sequence[NetworkPair]
    seeds: SeedComparison | None
    sides: Sequence[str] | None
