"""What a result card holds on how a phase was trained. No JAX.

Radii are in 1/255. A field is None where it is not known.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ltrobust.runtime.typed_json import Count


@dataclasses.dataclass(frozen=True)
class TrainingThreat:
    """The threat of a training.

    Attributes:
      norm: `linf` or `l2`.
      radius: in 1/255.
    """

    norm: str
    radius: float


@dataclasses.dataclass(frozen=True)
class TrainingExamples:
    """The list of images that an epoch goes through.

    Attributes:
      number: of entries; an image may occur several times.
      class_counts: entries per class.
      sha256: of the positions in the list.
    """

    number: Count
    class_counts: Sequence[Count]
    sha256: str


@dataclasses.dataclass(frozen=True)
class TeacherRecord:
    """Where a teacher comes from.

    Attributes:
      source: `teacher phase`, `checkpoint` or `file`.
      params_sha256, batch_stats_sha256: SHA-256 of its parameters and of its running statistics.
      path: name of the folder or file.
      phase, step: of the checkpoint.
      weights: `last`, `selected` or `averaged`.
      method: that it was trained with.
      model: name of the network.
      activation: of a network from a file.
      mean, std: of each channel, by which a network from a file normalises.
    """

    source: str
    params_sha256: str
    batch_stats_sha256: str
    path: str | None = None
    phase: str | None = None
    step: Count | None = None
    weights: str | None = None
    method: str | None = None
    model: str | None = None
    activation: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


@dataclasses.dataclass(frozen=True)
class InitialRecord:
    """The checkpoint that a phase started from.

    Attributes:
      source: `checkpoint`.
      path: name of its folder.
      phase, step, weights, method: of the checkpoint.
      same_images: whether it was trained on the same images.
      schedule: what became of epochs and rates, in words.
      params_sha256, batch_stats_sha256: SHA-256 of its parameters and of its running statistics.
    """

    source: str
    path: str
    phase: str
    step: Count
    weights: str
    method: str
    same_images: bool
    schedule: str
    params_sha256: str
    batch_stats_sha256: str


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """How a phase was trained; it may be older than the evaluation.

    Attributes:
      seed: of the training.
      steps: updates of the whole phase.
      software: package -> version that it was trained with, and the `commit` of this one.
      threat: that it was trained for.
      examples: the list of images of an epoch.
      teachers: key of the configuration -> teacher.
      initial: None where the weights were drawn.
      evaluated_step: the updates that were made, where the phase has not ended.
      devices: how many it was trained on, in order, where it was resumed on other numbers of them.
    """

    seed: int
    steps: Count
    software: Mapping[str, str]
    threat: TrainingThreat | None = None
    examples: TrainingExamples | None = None
    teachers: Mapping[str, TeacherRecord] | None = None
    initial: InitialRecord | None = None
    evaluated_step: Count | None = None
    devices: Sequence[Count] | None = None
