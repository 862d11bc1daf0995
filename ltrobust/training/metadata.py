"""Metadata of a checkpoint: its JSON part `about`, with one definition, one writer and one reader."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ltrobust.analysis.schema.training import TrainingExamples
from ltrobust.runtime import typed_json
from ltrobust.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Everything about a phase that is the same in all of its checkpoints, as plain values.

    Attributes:
      config: the complete configuration of the run.
      data: the images that the run trains and validates on, as `run_data.describe` has them.
      software: versions, as on cards.
      phase: `teacher` or `student`.
      steps: length of the phase, in updates.
      devices: how many the phase was trained on, in order: sums over devices have other last bits for another number.
      teachers: name -> where the teacher comes from, and SHA-256 of its weights; empty without a teacher.
      examples: the list of images of an epoch, of the first epoch where each epoch draws another one.
      initial: the run that its first weights are from, and their SHA-256; empty where they were drawn.
      answers: by which a network's code is recognised, see `answers.take`; empty for networks of this package.
    """

    config: Mapping[str, Any]
    data: Mapping[str, Any]
    software: Mapping[str, str]
    phase: Literal["teacher", "student"]
    steps: int
    devices: Sequence[int]
    teachers: Mapping[str, Mapping[str, Any]]
    examples: TrainingExamples
    initial: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    answers: Sequence[Sequence[typed_json.Number]] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return tuple(self.data["image_shape"])

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """SHA-256 of the parts of the data."""
        return self.data["fingerprints"]

    def plain(self) -> dict[str, Any]:
        """As JSON; without the last two where they are empty."""
        result = typed_json.plain(self)
        return {name: value for name, value in result.items() if value or name not in ("initial", "answers")}


def read(checkpoints: Checkpoints, phase: str = "") -> Metadata:
    """The metadata of the newest checkpoint.

    Args:
      checkpoints: of one phase.
      phase: of which they have to be; by default that of the folder's name in a workdir, or any in another folder.

    Raises:
      FileNotFoundError: there is no complete checkpoint.
      ValueError: it is of another format or phase; or a field is missing, unknown or of another type (names it).
    """
    values, folder = checkpoints.about(), checkpoints.folder
    try:
        result = typed_json.parse(Metadata, values)
    except ValueError as error:
        raise ValueError(
            f"checkpoint {folder / str(checkpoints.latest())}: {error} Use the version of ltrobust that wrote it, or "
            "an undamaged copy."
        ) from error
    expected = phase or (folder.name if folder.parent.name == "checkpoints" else "")
    if expected and result.phase != expected:
        there = f"checkpoints of the {result.phase} phase, not of the {expected} phase"
        raise ValueError(f"{folder} holds {there}; were folders swapped?")
    return result
