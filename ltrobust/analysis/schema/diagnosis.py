"""What a diagnosis of classes holds: the one definition of its fields, in memory and in JSON. No JAX.

Accuracies, rates and shares are fractions in [0, 1], intervals are 95 %. A number is NaN (null in JSON) where it is not
defined.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.card import ProtocolSettings, ThreatSettings
from ltrobust.analysis.schema.diagnosed_column import DiagnosedColumn
from ltrobust.runtime.typed_json import Count, Number

# Raised when a field changes its name, its meaning or its form. Diagnoses of other versions are refused.
DIAGNOSIS_VERSION = 2


@dataclasses.dataclass(frozen=True)
class RankAgreement:
    """Rank correlations of class accuracies between two columns of a network, or two networks.

    Attributes:
      first, second: names.
      spearman, kendall: Spearman's rho and Kendall's tau-b, in [-1, 1].
    """

    first: str
    second: str
    spearman: Estimate
    kendall: Estimate


@dataclasses.dataclass(frozen=True)
class ModelAgreement(RankAgreement):
    """Two networks in one column.

    Attributes:
      column: of the protocol.
      rho: what the worst class of the second gains over the first network of all, less what the mean loses; None where
        `first` is another one.
    """

    column: str
    rho: Estimate | None


@dataclasses.dataclass(frozen=True)
class TargetAgreement:
    """Whether attacks that break an image send it to the same class.

    Attributes:
      attacks: that saw every image that is right when clean.
      images: that at least two of these break.
      one_class: share of the images that every successful attack sends to one class.
      one_superclass, own_superclass: share that goes to the classes of one superclass, and of the image's own one; None
        where superclasses are not known.
    """

    attacks: Sequence[str]
    images: Count
    one_class: Estimate
    one_superclass: Estimate | None
    own_superclass: Estimate | None


@dataclasses.dataclass(frozen=True)
class RateChange:
    """Change of a success rate, paired image by image.

    Attributes:
      value: minus PGD's rate.
      low, high: its interval.
      b, c: images that only the tempered attack, and only PGD breaks.
      p: of McNemar's exact test.
      p_holm: after Holm's correction over the temperatures.
    """

    value: float
    low: float
    high: float
    b: Count
    c: Count
    p: float
    p_holm: float


@dataclasses.dataclass(frozen=True)
class InequalityChange:
    """Change of measures over classes, minus PGD's, paired.

    Attributes:
      mean, worst, range, sd, nsd: see `Inequality`.
    """

    mean: Estimate
    worst: Estimate
    range: Estimate
    sd: Estimate
    nsd: Estimate


@dataclasses.dataclass(frozen=True)
class TemperatureEffect:
    """Temperature-PGD at one temperature beside PGD.

    Attributes:
      inverse: 1/T; 1 is PGD; None for the worst over all temperatures, image by image.
      column: None for the worst.
      rate: success rate on the images that are right when clean (Wilson).
      change: of the rate; None for PGD.
      inequality: its change on all images; None for PGD.
    """

    inverse: float | None
    column: str | None
    rate: Estimate
    change: RateChange | None
    inequality: InequalityChange | None


@dataclasses.dataclass(frozen=True)
class Correlation:
    """A correlation over classes.

    Attributes:
      value: in [-1, 1].
      low, high: interval for other test images of these classes (bootstrap).
      classes_low, classes_high: interval for other classes; NaN with fewer than four.
    """

    value: Number
    low: Number
    high: Number
    classes_low: Number
    classes_high: Number


@dataclasses.dataclass(frozen=True)
class Correlations:
    """Of one number per class with the class accuracies of one column.

    Attributes:
      pearson, spearman: of the numbers, and of their ranks.
    """

    pearson: Correlation
    spearman: Correlation


@dataclasses.dataclass(frozen=True)
class Relation:
    """One number per class against the class accuracies of every column.

    Attributes:
      values: per class.
      columns: column -> correlations.
    """

    values: Sequence[float]
    columns: Mapping[str, Correlations]


@dataclasses.dataclass(frozen=True)
class DiagnosedModel:
    """One network.

    Attributes:
      name: as it is called.
      columns: `clean`, then attacks, then combinations.
      consistency: rank correlations between every two columns.
      target_agreement: whether attacks send an image to the same class.
      temperature: every 1/T ascending, then the worst over all; empty without Temperature-PGD.
      class_norms: L2 lengths of the classifier's rows against accuracy; None where they are not known.
      training_counts: training images per class against accuracy; None where they are not known.
      head: kind of the classifier, such as `linear` or `cosine`; None where it is not known.
      verdicts_sha256: of the store's verdicts; None where there is no store.
    """

    name: str
    columns: Mapping[str, DiagnosedColumn]
    consistency: Sequence[RankAgreement]
    target_agreement: TargetAgreement
    temperature: Sequence[TemperatureEffect]
    class_norms: Relation | None
    training_counts: Relation | None
    head: str | None = None
    verdicts_sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class DiagnosedImages:
    """The images.

    Attributes:
      number: of images.
      shape: height, width and channels.
      dtype: of a pixel.
      sha256, labels_sha256, ids_sha256: of the pixels, the labels and the ids.
    """

    number: Count
    shape: Sequence[Count]
    dtype: str
    sha256: str
    labels_sha256: str
    ids_sha256: str


@dataclasses.dataclass(frozen=True)
class Superclasses:
    """Groups of classes that belong together.

    Attributes:
      names: of the superclasses.
      of: index of each class's superclass.
    """

    names: Sequence[str]
    of: Sequence[Count]


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `ltrobust diagnose` finds.

    Attributes:
      version: of this format.
      software: package -> version, and the `commit` of this one.
      protocol, threat, num_classes, images: of all evaluations.
      column: shown in full.
      class_names: in label order.
      order: labels, most training images first.
      superclasses: None where they are not known.
      models: the networks; the first is the baseline of the others.
      between: every two networks in every column.
    """

    software: Mapping[str, str]
    protocol: ProtocolSettings
    threat: ThreatSettings
    num_classes: Count
    images: DiagnosedImages
    column: str
    class_names: Sequence[str]
    order: Sequence[Count]
    superclasses: Superclasses | None
    models: Sequence[DiagnosedModel]
    between: Sequence[ModelAgreement]
    version: int = DIAGNOSIS_VERSION
