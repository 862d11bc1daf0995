"""The speed job: what is left out is named, our rows survive what fails beside them, and the rate is the recipe's."""

import argparse
import dataclasses
import json
import types

import measure
import pytest

from benchmarks.accelerator import jobs, speed


@dataclasses.dataclass
class Context:
    """As far as the measuring parts read it; each look at the time takes so many seconds."""

    folder: object = None
    golden: object = None
    dry: bool = True
    seconds: float = 1000.0

    def left(self) -> float:
        return self.seconds


def row(**changes) -> dict:
    result = {"method": "at_bsl", "form": "ours", "dtype": "bfloat16", "batch": 128}
    return result | {"gflop_per_second": measure.spread([2.5e5])} | changes


def test_the_rate_is_that_of_our_step_of_at_bsl_in_bfloat16_at_the_recipe_s_batch():
    others = [row(batch=512), row(dtype="tf32"), row(form="torch tuned"), row(method="self_distillation")]
    assert speed.rate([*others, row(gflop_per_second=measure.spread([1e5, 2e5, 3e5]))]) == {"at_bsl_tflops": 200.0}
    assert speed.rate(others) == {}


@pytest.fixture
def compared(monkeypatch) -> list[tuple[str, int, str]]:
    """Cases that were measured: method, batch, and what against."""
    calls: list[tuple[str, int, str]] = []

    def compare(given, network, method, batch):
        calls.append((method, batch, given.against))
        return [row(method=method, batch=batch)]

    monkeypatch.setattr(speed.train_step, "compare", compare)
    return calls


WORDS = ["--methods=at_bsl,self_distillation", "--batches=512,1024", "--dtypes=bfloat16"]


def test_every_case_is_measured_as_long_as_there_is_time(compared):
    context = Context(dry=False)
    _, rows, left_out = speed.training_steps(context, WORDS)
    assert [(method, batch) for method, batch, _ in compared] == [
        ("at_bsl", 512),
        ("self_distillation", 512),
        ("at_bsl", 1024),
        ("self_distillation", 1024),
    ]
    assert (len(rows), left_out) == (4, [])


def test_cases_for_which_no_time_is_left_are_named(monkeypatch):
    context = Context(dry=False, seconds=50.0)

    def compare(given, network, method, batch):
        context.seconds -= 20.0
        return [row(method=method, batch=batch)]

    monkeypatch.setattr(speed.train_step, "compare", compare)
    _, rows, left_out = speed.training_steps(context, WORDS)
    assert len(rows) == 2
    assert left_out == ["at_bsl, batch 1024: 10 s left", "self_distillation, batch 1024: 10 s left"]


def test_our_rows_survive_a_pytorch_that_fails(monkeypatch, capsys):
    def compare(given, network, method, batch):
        if given.against:
            raise ImportError("libcublas.so.12: cannot open\nshared object file")
        return [row(method=method, batch=batch)]

    monkeypatch.setattr(speed.train_step, "compare", compare)
    _, rows, left_out = speed.training_steps(
        Context(dry=False), ["--methods=at_bsl", "--batches=128", "--against=torch"]
    )
    assert len(rows) == 1
    reason = "ImportError: libcublas.so.12: cannot open shared object file"
    assert left_out == [f"at_bsl, batch 128 against PyTorch: {reason}"]
    assert "Traceback" in capsys.readouterr().out


def test_a_batch_that_does_not_fit_leaves_the_rows_of_the_others(monkeypatch):
    def compare(given, network, method, batch):
        if batch == 1024:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return [row(method=method, batch=batch)]

    monkeypatch.setattr(speed.train_step, "compare", compare)
    _, rows, left_out = speed.training_steps(Context(dry=False), WORDS)
    assert [result["batch"] for result in rows] == [512, 512]
    assert len(left_out) == 2


def test_a_part_writes_its_rows_and_fails_where_it_has_none(monkeypatch, tmp_path):
    import contextlib

    context = types.SimpleNamespace(folder=tmp_path, clock=types.SimpleNamespace(span=contextlib.nullcontext))
    given = argparse.Namespace(threads=1)
    monkeypatch.setattr(speed, "steps", lambda context: (given, [row()], ["a case"]))
    assert speed.run(context, jobs.Part("steps", 1.0)) == {"rows": 1, "left_out": ["a case"], "at_bsl_tflops": 250.0}
    written = json.loads((tmp_path / "train_step-steps.json").read_text())
    assert written["rows"][0]["method"] == "at_bsl"
    assert written["left_out"] == ["a case"]
    monkeypatch.setattr(speed, "steps", lambda context: (given, [], ["a case: no memory"]))
    with pytest.raises(RuntimeError, match="a case: no memory"):
        speed.run(context, jobs.Part("steps", 1.0))
