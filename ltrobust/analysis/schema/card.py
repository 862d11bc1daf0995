"""What a result card holds: the one definition of its fields, in memory and in JSON. No JAX.

`analysis/cards.py` reads and writes cards; `docs/card.schema.json` is made from these classes by
`python -m tools.card_schema`. Radii are in 1/255. A field is None where a card has no such information.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

from ltrobust.analysis.schema.network import NetworkResult
from ltrobust.analysis.schema.training import TrainingRecord
from ltrobust.data.overlap import Overlap
from ltrobust.runtime.typed_json import Count

# Raised when a field changes its name, its meaning or its form. Cards of other versions are refused.
CARD_VERSION = 3


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """The network.

    Attributes:
      name: as in the configuration's `model.name`.
      parameters: number of trained numbers.
    """

    name: str
    parameters: Count


@dataclasses.dataclass(frozen=True)
class Files:
    """Files of one split of a folder of images.

    Attributes:
      used: images per class, in label order.
      passed_over: reason -> files that were not used.
      findings: what is true of used files -> files.
    """

    used: Sequence[Count]
    passed_over: Mapping[str, "FileTally"]
    findings: Mapping[str, "FileTally"]


@dataclasses.dataclass(frozen=True)
class FileTally:
    """Some files.

    Attributes:
      count: how many.
      classes: name of a class -> how many of them; empty text for files that belong to none.
      names: the first few.
    """

    count: Count
    classes: Mapping[str, Count]
    names: Sequence[str]


@dataclasses.dataclass(frozen=True)
class DataRecord:
    """The images that a network was trained and evaluated on.

    Attributes:
      name: of the data set.
      imbalance_ratio: images of the largest class by those of the smallest, before the validation part is taken.
      profile, split_seed: how the long-tailed images were chosen.
      class_names: in label order.
      class_counts: training images per class, without the validation part.
      validation_counts: validation images per class.
      image_shape: height, width and channels.
      fingerprints: SHA-256 of the positions of the `chosen` images and of the `train` and `validation` parts; of
        their `pixels`; of a folder also of all `images`.
      notes, test_notes: what a reader should know about the training and the test split.
      claim, test_claim: result of the comparison with the official data.
      test_images: images in the test split.
      evaluated: how many of them were evaluated.
      test_balanced: whether all classes have equally many evaluated images.
      test_labels_sha256: SHA-256 of the labels of the evaluated images.
      test_images_sha256: SHA-256 of pixels and labels of the test split.
      files: `train` and `test` -> files of a folder of images; None for other data.
      overlap: images that are in two parts at once.
    """

    name: str
    imbalance_ratio: float
    profile: str
    split_seed: int
    class_names: Sequence[str]
    class_counts: Sequence[Count]
    validation_counts: Sequence[Count]
    image_shape: Sequence[Count] | None
    fingerprints: Mapping[str, str]
    notes: Sequence[str]
    claim: str | None
    test_images: Count
    evaluated: Count
    test_balanced: bool
    test_labels_sha256: str
    test_images_sha256: str | None
    test_claim: str | None
    test_notes: Sequence[str]
    files: Mapping[str, Files] | None
    overlap: Overlap | None


@dataclasses.dataclass(frozen=True)
class ThreatSettings:
    """How far a perturbation may go.

    Attributes:
      norm: `linf` or `l2`.
      radius: in 1/255.
      lower, upper: bounds of pixels.
    """

    norm: str
    radius: float
    lower: float
    upper: float


@dataclasses.dataclass(frozen=True)
class ThreatRecord(ThreatSettings):
    """The threat of an evaluation.

    Attributes:
      epsilon: `radius / 255`.
    """

    epsilon: float


@dataclasses.dataclass(frozen=True)
class AttackRecord:
    """One attack of a protocol.

    Attributes:
      name: also that of its column.
      after: attacks whose survivors it sees; empty where it sees every image that is right when clean.
      settings: all others, as in `attacks/kinds.py`; a radius is None for that of the threat, `unbounded` for none.
    """

    name: str
    after: Sequence[str]
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ProtocolSettings:
    """Attacks, and how they are combined.

    Attributes:
      name: under which its numbers may be quoted.
      attacks: in order.
      combined: column, and attacks under each of which an image must be right.
      radius: in 1/255, where the protocol exists at one radius only.
      sanity: whether the sanity panel belongs to it.
      note: what its numbers depend on that one would not expect.
    """

    name: str
    attacks: Sequence[AttackRecord]
    combined: Sequence[tuple[str, Sequence[str]]]
    radius: float | None
    sanity: bool
    note: str

    @classmethod
    def of(cls, settings: Mapping[str, Any], **more: Any) -> Self:
        """From the settings of an `evaluation.protocols.Protocol` as plain values, and the fields of a subclass."""
        attacks = [
            AttackRecord(
                attack["name"], attack["after"], {k: v for k, v in attack.items() if k not in ("name", "after")}
            )
            for attack in settings["attacks"]
        ]
        return cls(**{**settings, "attacks": attacks}, **more)


@dataclasses.dataclass(frozen=True)
class ProtocolRecord(ProtocolSettings):
    """The protocol of an evaluation.

    Attributes:
      seed: of the attacks.
      headline: the column that it is quoted by.
      titles: column -> what it may be called in print.
    """

    seed: int
    headline: str
    titles: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Numerics:
    """Devices and precision of an evaluation.

    Attributes:
      backend: of JAX: `cpu`, `gpu` or `tpu`.
      device: its kind.
      devices, processes: how many.
      compute_dtype: of the searches.
      search_matmul_precision: precision of matrix products in the searches.
      verdicts: precision of the network that decides.
      ambient: settings of JAX that change the last bits of results -> value.
    """

    backend: str
    device: str
    devices: Count
    processes: Count
    compute_dtype: str
    search_matmul_precision: str
    verdicts: str
    ambient: Mapping[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Card:
    """The result card of an evaluation: what was measured, and what the numbers depend on.

    Attributes:
      card_version: of this format.
      created: time in UTC, ISO 8601.
      command: the command line, without folders and addresses of the machine.
      software: package -> version, and the `commit` of this one, with `+changes` if its checkout was edited.
      config: the configuration of the training, with `eval` and `threat` of the evaluation.
      model: the network.
      data: the images.
      threat: of the evaluation.
      protocol: of the evaluation.
      selection_rule: how the selected weights were selected.
      training: phase -> how it was trained.
      numerics: devices and precision.
      networks: such as `student/last` -> what was measured.
      seconds: wall time of the whole command, with training where it trained.
      sha256: of all other fields; written last.
    """

    created: str
    command: str
    software: Mapping[str, str]
    config: Mapping[str, Any]
    model: ModelRecord
    data: DataRecord
    threat: ThreatRecord
    protocol: ProtocolRecord
    selection_rule: str
    training: Mapping[str, TrainingRecord]
    numerics: Numerics
    networks: Mapping[str, NetworkResult]
    seconds: float
    card_version: int = CARD_VERSION
    sha256: str = ""

    @property
    def seed(self) -> int:
        """The training seed of the configuration."""
        return self.config["seed"]

    @property
    def method(self) -> str:
        """The student's method."""
        return self.config["student"]["method"]
