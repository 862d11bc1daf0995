"""Records: appended, the last one of an epoch counts, half a line is skipped."""

import csv
import math
import os
import pathlib
import subprocess
import sys
import types

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
    result = records.read(file)
    assert [(record["phase"], record["epoch"], record["train"]["loss"]) for record in result] == [
        ("teacher", 1, 3.0),
        ("teacher", 2, 1.5),
        ("student", 1, 9.0),
    ]
    assert result[-1]["per_class"] == [0.5, None]
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


def table(workdir):
    with (workdir / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_csv_has_every_number_of_the_json_lines(tmp_path):
    first = {"phase": "teacher", "epoch": 1, "step": 4, "train": {"loss": 0.1 + 0.2, "bad": math.nan}, "classes": [1.0]}
    with records.Records(tmp_path) as written:
        written.write(first)
        written.write(first | {"epoch": 2, "validation": {"clean": {"overall": 0.5}}})  # a new column
        written.write(first | {"epoch": 3})
    with records.Records(tmp_path) as written:
        written.write({"phase": "student", "epoch": 1, "step": 4, "train": {"kl": 1.0}})
    rows = table(tmp_path)
    assert list(rows[0]) == ["phase", "epoch", "step", "train/kl", "train/loss", "validation/clean/overall"]
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        *(("teacher", str(e)) for e in (1, 2, 3)),
        ("student", "1"),
    ]
    assert [row["validation/clean/overall"] for row in rows] == ["", "0.5", "", ""]
    assert float(rows[0]["train/loss"]) == 0.1 + 0.2
    assert rows[3]["train/loss"] == ""


def test_a_record_whose_name_is_a_formula_is_no_formula_in_the_csv(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"phase": "=1+1", "epoch": 1, "train": {"loss": -0.5}}\n')
    with records.Records(tmp_path) as written:
        written.write({"phase": "teacher", "epoch": 1, "train": {"loss": 1.0}})
    assert [(row["phase"], row["train/loss"]) for row in table(tmp_path)] == [("'=1+1", "-0.5"), ("teacher", "1.0")]


def test_a_run_that_was_killed_and_resumed_has_the_csv_of_one_that_was_not(tmp_path):
    def write(workdir, epochs):
        with records.Records(workdir) as written:
            for epoch in epochs:
                written.write({"phase": "teacher", "epoch": epoch, "train": {"loss": 1 / epoch}})

    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    write(tmp_path / "whole", range(1, 6))
    write(tmp_path / "killed", range(1, 4))
    for file in ("metrics.jsonl", "metrics.csv"):  # in the middle of a line
        path = tmp_path / "killed" / file
        path.write_bytes(path.read_bytes()[:-7])
    write(tmp_path / "killed", range(2, 6))  # from the checkpoint before
    assert (tmp_path / "killed" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


class FakeRun:
    def __init__(self, **given):
        self.given, self.logged, self.status, self.axes = given, [], None, {}

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, numbers):
        self.logged.append(numbers)

    def finish(self, exit_code):
        self.status = exit_code


def test_weights_and_biases_gets_the_numbers_if_a_project_is_named(tmp_path, monkeypatch):
    runs = []
    fake = types.ModuleType("wandb")
    fake.init = lambda **given: runs.append(FakeRun(**given)) or runs[-1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    record = {"phase": "teacher", "epoch": 2, "train": {"loss": 1.5}, "classes": [1.0]}
    for options in ({}, {"silent": True, "wandb": "robust"}):
        with records.Records(tmp_path, **options) as written:
            written.write(record)
    assert runs == []
    for _ in range(2):  # the second continues the first
        with records.Records(tmp_path, wandb="robust", config={"seed": 3}) as written:
            written.write(record)
    one, two = runs
    assert one.given["project"] == "robust"
    assert one.given["config"] == {"seed": 3}
    assert one.given["resume"] == "allow"
    assert one.given["name"] == tmp_path.name
    assert one.given["id"] == two.given["id"]
    assert one.logged == [{"teacher/train/loss": 1.5, "teacher/epoch": 2}]
    assert (one.axes["teacher/*"], one.status) == ("teacher/epoch", 0)
    with pytest.raises(KeyError), records.Records(tmp_path, wandb="robust"):
        raise KeyError
    assert runs[-1].status == 1


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    records.check_wandb("")
    with pytest.raises(
        ValueError, match=r"log\.wandb is 'robust', but .* is not installed; run: pip install -e '\.\[wandb\]'"
    ):
        records.check_wandb("robust")
