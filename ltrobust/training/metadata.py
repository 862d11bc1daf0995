"""What a checkpoint says of itself: its JSON part `about`, with one definition, one writer and one reader."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from ltrobust.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Examples:
    """The training images that a phase visits, in its first epoch where they are drawn anew.

    Attributes:
      number: of images, from 1.
      class_counts: images per class, C integers.
      sha256: of their rows in the training part.
    """

    number: int
    class_counts: list
    sha256: str


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Everything about a phase that is the same in all of its checkpoints, as plain values.

    Attributes:
      config: the complete configuration of the run.
      data: the images that the run trains and validates on, as `run_data.describe` has them.
      software: versions, as on cards.
      phase: `teacher` or `student`.
      steps: length of the phase, in updates.
      teachers: name -> where the teacher comes from, and SHA-256 of its weights; empty without a teacher.
      examples: what the phase trains on.
      initial: the run that its first weights are from, and their SHA-256; empty where they were drawn.
      answers: by which a network's code is recognised, see `answers.take`; empty for networks of this package.
    """

    config: Mapping
    data: Mapping
    software: Mapping
    phase: str
    steps: int
    teachers: Mapping
    examples: Examples
    initial: Mapping = dataclasses.field(default_factory=dict)
    answers: list = dataclasses.field(default_factory=list)

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
        found = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.default_factory is dataclasses.MISSING or getattr(self, field.name)
        }
        return found | {"examples": dataclasses.asdict(self.examples)}


def read(checkpoints: Checkpoints, phase: str = "") -> Metadata:
    """The metadata of the newest checkpoint.

    Args:
      checkpoints: of one phase.
      phase: of which they have to be; by default that of the folder's name in a workdir, or any in another folder.

    Raises:
      FileNotFoundError: there is no complete checkpoint.
      ValueError: it is of another format or phase; or fields are missing, unknown or of another type (names them).
    """
    values = checkpoints.about()
    where = f"checkpoint {checkpoints.folder / str(checkpoints.latest())}"
    examples = _checked(Examples, values.get("examples", {}), where, "examples.")
    found = Metadata(**_checked(Metadata, {**values, "examples": Examples(**examples)}, where))
    folder = checkpoints.folder
    expected = phase or (folder.name if folder.parent.name == "checkpoints" else "")
    if expected and found.phase != expected:
        there = f"checkpoints of the {found.phase} phase, not of the {expected} phase"
        raise ValueError(f"{folder} holds {there}; were folders swapped?")
    return found


def _checked(kind: type, values: Any, where: str, prefix: str = "") -> dict[str, Any]:
    """The values, which are the arguments of a dataclass."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    optional = {name for name, field in fields.items() if field.default_factory is not dataclasses.MISSING}
    values = values if isinstance(values, Mapping) else {}
    wrong = [f"{prefix}{name} is missing" for name in fields.keys() - values.keys() - optional]
    wrong += [f"{prefix}{name} is unknown" for name in values.keys() - fields.keys()]
    for name in fields.keys() & values.keys():
        if not isinstance(values[name], cast(type, fields[name].type)):
            wrong.append(f"{prefix}{name} is {values[name]!r}")
    if wrong:
        raise ValueError(
            f"{where} does not describe itself as this version expects: {', '.join(sorted(wrong))}. Use the version "
            "of ltrobust that wrote it, or an undamaged copy."
        )
    return dict(values)
