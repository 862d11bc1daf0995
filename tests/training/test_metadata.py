"""What a checkpoint says of itself is read as it was written, or refused with the names of the fields."""

import dataclasses
import json
import pathlib
import types
from typing import Any

import pytest

from ltrobust.analysis.schema.training import TrainingExamples
from ltrobust.training import metadata
from ltrobust.training.metadata import Metadata

WRITTEN = Metadata(
    config={"seed": 0, "model": {"name": "small_resnet"}},
    data={"image_shape": [8, 8, 1], "fingerprints": {"train": "0"}},
    software={"jax": "0"},
    phase="student",
    steps=4,
    devices=(1,),
    teachers={"teacher": {"from": "teacher phase"}},
    examples=TrainingExamples(30, (20, 10), "1"),
)


def read(values: Any, folder: str = "run/checkpoints/student", phase: str = "") -> Metadata:
    """Metadata from the JSON of a checkpoint."""
    result: Any = types.SimpleNamespace(
        about=lambda: json.loads(json.dumps(values)), folder=pathlib.Path(folder), latest=lambda: 4
    )
    return metadata.read(result, phase)


def test_metadata_is_read_as_it_was_written():
    for written in (
        WRITTEN,
        dataclasses.replace(WRITTEN, initial={"path": "other"}, answers=((0.5, 1.0), (2.0, -3.0))),
    ):
        assert read(written.plain()) == written
    assert not {"initial", "answers"} & WRITTEN.plain().keys()
    assert WRITTEN.image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, r"student/4: steps is missing\. Use the version of ltrobust that wrote it"),
        ({"step": 1}, r"step is not a field; did you mean steps\?"),
        ({"steps": "4"}, "steps is '4'; needed is a whole number"),
        ({"examples": {"number": 3, "class_counts": [3]}}, "examples.sha256 is missing"),
        ({"phase": "parent"}, "phase is 'parent'; needed is one of teacher, student"),
        ({"phase": "teacher"}, "of the teacher phase, not of the student phase; were folders swapped"),
    ],
)
def test_wrong_and_missing_fields_are_named(changes, message):
    values = {key: value for key, value in (WRITTEN.plain() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        read(values)


def test_the_phase_of_another_folder_is_its_own():
    assert read(WRITTEN.plain(), "copies/best").phase == "student"
    with pytest.raises(ValueError, match="of the student phase, not of the teacher phase"):
        read(WRITTEN.plain(), "copies/best", "teacher")
