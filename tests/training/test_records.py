"""Records: appended, the last one of an epoch counts, half a line is passed over."""

import math

import pytest

from ltrobust.training import records


def test_records_are_appended_and_the_later_one_counts(tmp_path):
    with records.Records(tmp_path) as written:
        for epoch, loss in ((1, 3.0), (2, 2.0), (2, 1.5)):
            written.write({"phase": "teacher", "epoch": epoch, "train": {"loss": loss}})
    with records.Records(tmp_path) as written:
        written.write({"phase": "student", "epoch": 1, "train": {"loss": 9.0}, "per_class": [0.5, math.nan]})
    file = tmp_path / "metrics.jsonl"
    assert len(file.read_text().splitlines()) == 4
    with file.open("a") as lines:
        lines.write('{"phase": "student", "epo')
    found = records.read(file)
    assert [(record["phase"], record["epoch"], record["train"]["loss"]) for record in found] == [
        ("teacher", 1, 3.0),
        ("teacher", 2, 1.5),
        ("student", 1, 9.0),
    ]
    assert found[-1]["per_class"] == [0.5, None]
    assert any((tmp_path / "tensorboard").iterdir())


def test_a_record_after_half_a_line_is_not_lost(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"phase": "teacher", "epoch": 1}\n{"phase": "teacher", "ep')
    with records.Records(tmp_path) as written:
        written.write({"phase": "teacher", "epoch": 2})
        written.write({"phase": "teacher", "epoch": 3})
    assert [record["epoch"] for record in records.read(file)] == [1, 2, 3]


def test_a_record_that_cannot_be_written_names_its_folder(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with (
        records.Records(tmp_path) as written,
        pytest.raises(OSError, match="No space left") as failed,
    ):
        written.write({"phase": "teacher", "epoch": 1})
    assert f"the record of teacher's epoch 1 could not be written to {tmp_path} (No space left" in str(failed.value)
