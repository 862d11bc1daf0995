"""The accelerator's queue: what runs next, what counts as done, what is left behind, what is filed."""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from benchmarks.accelerator import ROOT, filing, inputs, jobs, part, provenance, run
from benchmarks.accelerator.clock import Clock, divide
from ltrobust.preemption import EXIT_STATUS

TOY = (
    jobs.Job("first", "the first", "check", (jobs.Part("short", 10.0), jobs.Part("long", 100.0, work=1e15))),
    jobs.Job("second", "the second", "check", (jobs.Part("only", 30.0),)),
    jobs.Job("packed", "needs a pack", "train", (jobs.Part("only", 1.0),), packs=("cifar100",)),
)


def record(name: str, *, dry: bool = False, commit: str = "abc", device: str = "A Device 80GB") -> dict:
    """A part's record as its process writes it, as far as the queue reads it."""
    return {
        "part": name,
        "dry": dry,
        "device": {"kind": device},
        "software": {"commit": commit},
        "sources_sha256": "0",
        "seconds": {"compiling": 1.0, "measuring": 2.0, "idle": 0.5, "total": 3.5},
        "summary": {},
    }


@pytest.fixture
def given(tmp_path, monkeypatch) -> argparse.Namespace:
    """Flags of a run with toy jobs, and every input it asks for."""
    monkeypatch.setattr(jobs, "every", lambda: TOY)
    monkeypatch.setattr(inputs, "find_packs", lambda folder, wanted=(): {"cifar10": folder})
    monkeypatch.setattr(inputs, "check_wheels", lambda folder: [])
    return argparse.Namespace(
        seconds=200.0,
        out=tmp_path / "out",
        work=None,
        inputs=tmp_path / "inputs",
        results=tmp_path / "results",
        first="",
        dry=False,
        tflops=0.0,
        weights=False,
        commit="",
    )


@pytest.fixture
def worked(monkeypatch) -> list[tuple[str, list[str]]]:
    """What the queue gives to processes; each of them does its parts at once."""
    calls: list[tuple[str, list[str]]] = []

    def work_on(given, task, work, wheels, seconds) -> int:
        calls.append((task.job.name, [one.name for one in task.open]))
        empty = work / "empty"
        empty.mkdir(exist_ok=True)
        for one in task.open:
            part.add(given.out / f"{task.job.name}.zip", one.name, record(one.name, dry=given.dry), empty)
        return 0

    monkeypatch.setattr(run, "work_on", work_on)
    return calls


def test_it_runs_what_fits_in_order_and_says_what_is_missing(given, worked, capsys):
    assert run.main(given) == 0
    assert worked == [("first", ["short", "long"]), ("second", ["only"])]
    printed = capsys.readouterr().out
    assert "needs a pack of cifar100" in printed
    assert len(re.findall(r"^\S+/\S+ +done ", printed, re.MULTILINE)) == 3


def test_a_part_that_does_not_fit_waits_and_the_others_do_not(given, worked, capsys):
    given.seconds = 50.0
    assert run.main(given) == 0
    assert worked == [("first", ["short"]), ("second", ["only"])]
    assert "no time left" in capsys.readouterr().out


def test_a_faster_device_fits_more(given, worked):
    given.seconds, given.tflops = 105.0, 1000.0
    run.main(given)
    assert worked[0] == ("first", ["short", "long"])


def test_the_measured_rate_is_planned_with(given):
    assert run.rate(given) == jobs.RATES[0]
    given.out.mkdir()
    found = record("steps") | {"summary": {"at_bsl_tflops": 271.5}}
    empty = given.out / "empty"
    empty.mkdir()
    part.add(given.out / "speed.zip", "steps", found, empty)
    assert run.rate(given) == 271.5
    given.tflops = 99.0
    assert run.rate(given) == 99.0


def test_the_same_command_again_does_only_what_is_left(given, worked):
    given.seconds = 50.0
    run.main(given)
    worked.clear()
    given.seconds = 200.0
    run.main(given)
    assert worked == [("first", ["long"])]


def test_filed_results_count_as_done_unless_they_are_asked_for(given, worked):
    for name in ("short", "long"):
        place = given.results / "a-device" / "first" / name
        place.mkdir(parents=True)
        (place / "part.json").write_text("{}")
    run.main(given)
    assert worked == [("second", ["only"])]
    worked.clear()
    given.first = "first"
    run.main(given)
    assert worked == [("first", ["short", "long"])]


def test_a_job_in_front_is_the_first(given, worked):
    given.first = "second"
    run.main(given)
    assert [name for name, _ in worked] == ["second", "first"]


def test_too_few_seconds_for_every_part_are_refused(given, worked):
    given.seconds = 9.0
    with pytest.raises(
        ValueError, match=r"--seconds=9 is too little for any open part; the shortest, first/short, needs"
    ):
        run.main(given)
    assert worked == []


def test_a_failed_job_is_told_by_the_status_and_does_not_stop_the_next(given, worked, monkeypatch):
    succeed = run.work_on
    monkeypatch.setattr(
        run, "work_on", lambda g, task, *rest: 3 if task.job.name == "first" else succeed(g, task, *rest)
    )
    assert run.main(given) == 1
    assert worked == [("second", ["only"])]


def test_two_jobs_that_fail_without_a_result_end_the_run(given, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(jobs, "every", lambda: (*TOY[:2], dataclasses.replace(TOY[1], name="third")))
    monkeypatch.setattr(run, "work_on", lambda given, task, *rest: seen.append(task.job.name) or 1)
    assert run.main(given) == 1
    assert seen == ["first", "second"]
    assert "nothing more is tried" in capsys.readouterr().out


def test_dry_results_and_a_devices_are_never_mixed(given, worked):
    run.main(given)
    given.dry = True
    with pytest.raises(ValueError, match=r"first\.zip holds results of a device; give another --out"):
        run.main(given)


def test_an_archive_grows_part_by_part_and_a_part_replaces_itself(tmp_path):
    archive, folder = tmp_path / "job.zip", tmp_path / "files"
    folder.mkdir()
    (folder / "table.md").write_text("one")
    part.add(archive, "a", record("a"), folder)
    part.add(archive, "b", record("b"), folder)
    (folder / "table.md").write_text("two")
    part.add(archive, "a", record("a"), folder)
    members = part.read(archive)
    assert sorted(members) == ["a/part.json", "a/table.md", "b/part.json", "b/table.md"]
    assert (members["a/table.md"], members["b/table.md"]) == (b"two", b"one")
    assert set(filing.records_in(archive)) == {"a", "b"}


def test_an_archive_that_is_too_large_is_refused_and_the_earlier_one_stays(tmp_path):
    archive, folder = tmp_path / "job.zip", tmp_path / "files"
    folder.mkdir()
    part.add(archive, "a", record("a"), folder)
    before = archive.read_bytes()
    (folder / "noise").write_bytes(os.urandom(1_100_000))
    with pytest.raises(ValueError, match=r"job\.zip would have 1,1\d\d,\d\d\d bytes with b; 1,000,000 are allowed"):
        part.add(archive, "b", record("b"), folder)
    assert archive.read_bytes() == before


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no archive"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    archive, folder = tmp_path / "job.zip", tmp_path / "files"
    folder.mkdir()
    part.add(archive, "a", record("a"), folder)
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"job\.zip is damaged"):
        filing.records_in(archive)


@pytest.fixture
def brought(tmp_path, monkeypatch) -> Path:
    """A folder with one result."""
    monkeypatch.setattr(jobs, "every", lambda: TOY)
    out, files = tmp_path / "brought", tmp_path / "files"
    out.mkdir()
    files.mkdir()
    (files / "card.json").write_text("{}")
    part.add(out / "first.zip", "short", record("short"), files)
    return out


def test_results_are_filed_by_device_job_and_part_once(brought, tmp_path):
    results = tmp_path / "results"
    place = results / "a-device-80gb" / "first" / "short"
    assert filing.collect(brought, results, default=ROOT) == [place]
    assert json.loads((place / "part.json").read_text())["sources_are_the_commits"] is False
    assert (place / "card.json").read_text() == "{}"
    assert filing.filed_parts(results, "first") == {"short"}
    assert filing.collect(brought, results, default=ROOT) == []


def test_a_result_that_is_filed_is_never_replaced(brought, tmp_path):
    results = tmp_path / "results"
    filing.collect(brought, results, default=ROOT)
    place = results / "a-device-80gb" / "first" / "short" / "card.json"
    place.write_text("mine")
    with pytest.raises(ValueError, match=r"card\.json holds another result and is not replaced"):
        filing.collect(brought, results, default=ROOT)
    assert place.read_text() == "mine"


def test_a_dry_run_is_not_filed_among_the_results(brought, tmp_path):
    results = tmp_path / "results"
    part.add(brought / "second.zip", "only", record("only", dry=True), tmp_path / "files")
    with pytest.raises(ValueError, match=r"second\.zip is of a dry run"):
        filing.collect(brought, results, default=results)
    assert not results.exists()
    assert len(filing.collect(brought, results, default=ROOT)) == 2


def test_a_folder_without_results_and_a_foreign_archive_are_named(brought, tmp_path):
    with pytest.raises(ValueError, match=r"has no results \(JOB\.zip\)"):
        filing.collect(tmp_path / "nowhere", tmp_path / "results", default=ROOT)
    with zipfile.ZipFile(brought / "holiday.zip", "w") as file:
        file.writestr("picture", b"")
    with pytest.raises(ValueError, match=r"job is 'holiday'"):
        filing.collect(brought, tmp_path / "results", default=ROOT)


def git(folder: Path, *words: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *settings, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_digest_of_sources_is_that_of_their_commit_and_of_no_other(tmp_path):
    for folder in ("ltrobust", "configs", "benchmarks/deep"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "code.py").write_text(f"# {folder}\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.sources_digest(tmp_path) == provenance.digest_of_commit(commit, tmp_path)
    (tmp_path / "configs" / "code.py").write_text("# changed\n")
    assert provenance.sources_digest(tmp_path) != provenance.digest_of_commit(commit, tmp_path)
    (tmp_path / "configs" / "code.py").write_text("# configs\n")
    (tmp_path / "ltrobust" / "more.py").write_text("")
    assert provenance.sources_digest(tmp_path) != provenance.digest_of_commit(commit, tmp_path)
    assert provenance.digest_of_commit("0" * 40, tmp_path) is None


def test_an_instant_counts_once_and_for_the_first_group_that_covers_it():
    assert divide([[(5, 6), (1, 4), (2, 3)], [(0, 5.5)], [(7, 8)]]) == [4.0, 2.0, 1.0]
    assert divide([[], [(1, 2), (1, 2)]]) == [0, 1]


def test_a_clock_divides_all_of_its_seconds():
    clock = Clock()
    with clock.span():
        time.sleep(0.5)
        # What JAX reports nests: a function is traced inside of another.
        jax.monitoring.record_event_duration_secs("/jax/core/compile/inner", 0.1)
        jax.monitoring.record_event_duration_secs("/jax/core/compile/outer", 0.2)
        jax.monitoring.record_event_duration_secs("/ltrobust/steps", 0.3)
        jax.monitoring.record_event_duration_secs("/another", 0.3)
    time.sleep(0.2)
    seconds = clock.seconds()
    assert {name: seconds[name] for name in ("compiling", "training", "idle")} == {
        "compiling": pytest.approx(0.2, abs=0.06),
        "training": pytest.approx(0.1, abs=0.06),
        "idle": pytest.approx(0.2, abs=0.1),
    }
    assert "evaluating" not in seconds
    assert sum(seconds.values()) == pytest.approx(2 * seconds["total"], abs=0.3)


def test_a_device_without_the_memory_is_refused_and_a_cpu_is_for_dry_runs():
    job = jobs.get("speed")
    with pytest.raises(ValueError, match=r"speed needs 24 GiB of device memory; Small offers 8"):
        part.check_device(job, {"kind": "Small", "platform": "gpu", "memory_gib": 8.0}, dry=False)
    part.check_device(job, {"kind": "Large", "platform": "gpu", "memory_gib": 24.0}, dry=False)
    cpu = {"kind": "cpu", "platform": "cpu", "memory_gib": None}
    part.check_device(job, cpu, dry=True)
    with pytest.raises(ValueError, match=r"JAX finds no accelerator, only the CPU.*--dry"):
        part.check_device(job, cpu, dry=False)


def test_a_missing_wheel_is_named_with_the_command_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"ml_collections, tensorboardX is not installed, and .*wheels --out="):
        inputs.check_wheels(tmp_path)
    (tmp_path / "wheels").mkdir()
    for name in ("ml_collections-1.1.0-py3-none-any.whl", "tensorboardx-2.6.5-py3-none-any.whl"):
        (tmp_path / "wheels" / name).touch()
    assert len(inputs.check_wheels(tmp_path)) == 2


def test_a_wheel_is_kept_without_its_data_and_compiled_ones_are_refused(tmp_path):
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name in ("some/code.py", "some/weights.pt", "some-1.0.dist-info/METADATA"):
            file.writestr(name, name)
    out = tmp_path / "out"
    out.mkdir()
    kept = inputs._python_only(wheel, out)
    with zipfile.ZipFile(kept) as file:
        assert sorted(file.namelist()) == ["some-1.0.dist-info/METADATA", "some/code.py"]
    kept.write_text("mine")
    assert inputs._python_only(wheel, out).read_text() == "mine"
    with pytest.raises(ValueError, match="compiled code"):
        inputs._python_only(tmp_path / "some-1.0-cp312-cp312-linux_x86_64.whl", out)


@contextlib.contextmanager
def started(tmp_path: Path, *words: str) -> Iterator[subprocess.Popen]:
    """The process of the job `check`, in toy sizes; its output is read line by line."""
    flags = [
        f"--out={tmp_path}",
        f"--work={tmp_path / 'work'}",
        f"--inputs={tmp_path}",
        "--seconds=100",
        "--tflops=150",
    ]
    command = [sys.executable, "-m", "benchmarks.accelerator", "part", "check", "--dry", *flags, *words]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process


def test_a_part_leaves_a_record_of_everything_that_its_numbers_depend_on(tmp_path):
    with started(tmp_path, *(f"--skip={name}" for name in ("golden", "batches", "bfloat16"))) as process:
        output = process.stdout.read()
    assert process.returncode == 0, output
    found = filing.records_in(tmp_path / "check.zip")["repeat"]
    assert found["device"]["platform"] == "cpu"
    assert found["dry"] is True
    assert set(found["numerics"]) >= {"default_matmul_precision", "xla_flags", "prng"}
    assert {"jax", "python", "commit"} <= set(found["software"])
    assert found["seconds"]["total"] > found["seconds"]["compiling"] > 0
    assert found["sources_sha256"] == provenance.sources_digest()
    # On the CPU one program gives the same bits twice.
    assert found["summary"]["default"]["same_bits"] is True
    assert b"default" in part.read(tmp_path / "check.zip")["repeat/repeat.json"]


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    with started(tmp_path) as process:
        assert any("begins" in line for line in process.stdout)
        process.stdin.close()
        process.stdout.read()
        assert process.wait(60) == EXIT_STATUS
    assert not (tmp_path / "check.zip").exists()
