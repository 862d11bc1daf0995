"""Records: appended, the last one of an epoch counts, half a line is passed over."""

import math
import os
import pathlib
import subprocess
import sys

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


def test_events_are_written_without_loading_pytorch(tmp_path):
    # An installed PyTorch stands for what tensorboardX would import by itself: a module that ends the process.
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch was imported')")
    code = (
        "import pathlib, sys; from ltrobust.training import records\n"
        "with records.Records(pathlib.Path(sys.argv[1])) as written:\n"
        "    written.write({'phase': 'teacher', 'epoch': 1, 'train': {'loss': 1.0}})\n"
        "assert 'torch' not in sys.modules, 'the place of PyTorch is left as it was'"
    )
    path = os.pathsep.join([str(tmp_path), str(pathlib.Path(records.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_silent_process_writes_nothing(tmp_path):
    with records.Records(tmp_path, silent=True) as silent:
        silent.write({"phase": "teacher", "epoch": 1})
    assert list(tmp_path.iterdir()) == []


def test_lines_that_are_no_record_are_passed_over(tmp_path):
    lines = ('{"phase": 1, "epoch": 1}', '{"phase": "teacher", "epoch": "1"}', "[1]", "3", "null", '{"phase": "a"}', "")
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"phase": "teacher", "epoch": 2}', ""]))
    assert records.read(tmp_path / "metrics.jsonl") == [{"phase": "teacher", "epoch": 2}]
