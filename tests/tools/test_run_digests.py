"""Digests of a run's parts: what makes them differ, and what does not."""

import json

import fabricated
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tools import run_digests


def test_arrays_differ_by_name_type_shape_and_bits():
    zeros = np.zeros((2, 3), np.float32)
    trees = [{"a": zeros}, {"b": zeros}, {"a": zeros.T}, {"a": zeros.ravel()}, {"a": zeros.astype(np.int32)}]
    trees += [{"a": -zeros}, {"a": zeros, "b": zeros}, {"a": zeros + np.nan}]
    assert len({run_digests.of_arrays(tree) for tree in trees}) == len(trees)
    assert run_digests.of_arrays(trees[-1]) == run_digests.of_arrays({"a": zeros + np.nan})


def test_plain_values_differ_by_sign_and_type():
    values = [{"loss": value} for value in (0.0, -0.0, 0, None, False, float("nan"))]
    assert len({run_digests.of_json(value) for value in values}) == len(values)
    assert run_digests.of_json({"a": 1, "b": float("nan")}) == run_digests.of_json({"b": float("nan"), "a": 1})


def write_run(workdir, weights):
    fabricated.write_run(workdir, test_images=2, limit=2)
    with ocp.StandardCheckpointer() as checkpointer:
        for step in (5, 10):
            state = {"weights": np.full(3, weights * (step == 10), np.float32)}
            checkpointer.save(workdir / f"checkpoints/student/{step}/rest", state)
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs whose weights differ, and their digests."""
    places = [write_run(tmp_path_factory.mktemp(name), weights) for name, weights in (("first", 1.0), ("second", 2.0))]
    return places, [run_digests.of_run(place) for place in places]


def test_runs_are_compared_part_by_part(runs):
    _, (first, second) = runs
    assert {"arrays of student/rest", "card networks", "card config"} <= first.keys()
    assert {name.split()[0] for name in first} == {"arrays", "record", "verdicts", "card"}
    assert run_digests.differences(first, first) == []
    assert run_digests.differences(first, second) == ["arrays of student/rest"]
    without = {name: digest for name, digest in first.items() if not name.startswith("card ")}
    assert run_digests.differences(without, first) == [name for name in sorted(first) if name.startswith("card ")]
    kinds = run_digests.by_kind(first)
    assert kinds["arrays"] == {"arrays of student/rest": first["arrays of student/rest"]}
    assert sum(map(len, kinds.values())) == len(first)


def test_a_record_differs_without_its_seconds_and_a_verdict_wherever_its_line_is(runs):
    (place, _), (before, _) = runs
    records = place / "metrics.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    records.write_text("".join(json.dumps(line | {"seconds": 1e6}) + "\n" for line in lines))
    verdicts = next(place.glob("verdicts/*student-last/verdicts.jsonl"))
    text = verdicts.read_text().splitlines(keepends=True)
    verdicts.write_text("".join(reversed(text)))
    assert run_digests.differences(before, run_digests.of_run(place)) == []
    verdicts.write_text("".join(text[1:]))
    name = f"{lines[0]['phase']}/{lines[0]['epoch']}"
    records.write_text("".join(json.dumps(line) + "\n" for line in [lines[0] | {"loss": -1.0}, *lines[1:]]))
    record, *others = run_digests.differences(before, run_digests.of_run(place))
    assert record == f"record {name}"
    assert len(others) == 1
    assert others[0].startswith("verdicts ")
