"""Data of a report: numbers from a run's files, as they were written. No JAX."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis.evaluated_networks import EvaluatedNetworks
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.comparison import Flip
from ltrobust.analysis.schema.paired import Agreement, PairedComparison

FEW_CLASSES = 20


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`first` minus `second`; `result` as of `analysis/compare.py`, None where both are the same weights."""

    first: str
    second: str
    result: PairedComparison | None


@dataclasses.dataclass(frozen=True)
class Teaching:
    """Data of the section on teacher and student.

    Attributes:
      confidence: network -> `clean` and `attacked`, each one estimate per class of the mean probability of the true
        class (NaN without images).
      agreement: group of classes (`overall`, or a name of `GROUPS`) -> `analysis.compare.agreement` of teacher
        (first) and student under the headline.
    """

    confidence: Mapping[str, Mapping[str, Sequence[Estimate]]] = dataclasses.field(default_factory=dict)
    agreement: Mapping[str, Agreement] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Effort:
    """Number of images still classified correctly, by the attack's network evaluations, among those that it saw.

    `remaining` is of all attacks of the protocol up to this one together, after its end.
    """

    attack: str
    seen: int
    evaluations: Sequence[int]
    survivors: Sequence[int]
    remaining: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image before and after an attack, float [H,W,C] in [0,1], and what the network predicts for both.

    A confidence is the probability of the predicted class.
    """

    group: str
    image_id: int
    attack: str
    label: int
    clean_prediction: int
    adv_prediction: int
    clean_confidence: float
    adv_confidence: float
    image: np.ndarray
    adv_image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Flipped:
    """An image that only one network resists, float [H,W,C] in [0,1].

    Attributes:
      won: whether the network asked about resists it.
      entry: the image, and what broke the other network.
      adv_image: what broke the other network, or None where no adversarial images were kept.
    """

    won: bool
    entry: Flip
    image: np.ndarray
    adv_image: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything on the page.

    Attributes:
      name: of the run's folder.
      evaluations: the one that is shown in full, then all others.
      records: of `metrics.jsonl`, in order.
      comparisons, teaching, pictures: of the first evaluation; pictures of its main network.
      searched: the evaluation that `efforts` are of, its main network; None for the first.
      missing: section -> why it lacks something and what to run to have it, one line each.
    """

    name: str
    evaluations: Sequence[EvaluatedNetworks] = ()
    records: Sequence[Mapping[str, Any]] = ()
    comparisons: Sequence[Comparison] = ()
    teaching: Teaching = dataclasses.field(default_factory=Teaching)
    searched: EvaluatedNetworks | None = None
    efforts: Sequence[Effort] = ()
    pictures: Sequence[Picture] = ()
    missing: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
