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
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import EXIT_STATUS

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
        unfinished=False,
    )


@pytest.fixture
def worked(monkeypatch) -> list[tuple[str, list[str]]]:
    """What the queue gives to processes; each of them does its parts at once."""
    calls: list[tuple[str, list[str]]] = []

    def work_on(given, task, work, wheels, seconds):
        calls.append((task.job.name, [one.name for one in task.open]))
        empty = work / "empty"
        empty.mkdir(exist_ok=True)
        for one in task.open:
            part.add(given.out / f"{task.job.name}.zip", one.name, record(one.name, dry=given.dry), empty)
        return 0, {}

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
    result = record("steps") | {"summary": {"at_bsl_tflops": 271.5}}
    empty = given.out / "empty"
    empty.mkdir()
    part.add(given.out / "speed.zip", "steps", result, empty)
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
        run, "work_on", lambda g, task, *rest: (3, {}) if task.job.name == "first" else succeed(g, task, *rest)
    )
    assert run.main(given) == 1
    assert worked == [("second", ["only"])]


def test_two_jobs_that_fail_without_a_result_end_the_run(given, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(jobs, "every", lambda: (*TOY[:2], dataclasses.replace(TOY[1], name="third")))
    monkeypatch.setattr(run, "work_on", lambda given, task, *rest: seen.append(task.job.name) or (1, {}))
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


def test_a_result_that_is_too_large_is_kept_and_not_filed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "every", lambda: TOY)
    archive, folder = tmp_path / "first.zip", tmp_path / "files"
    folder.mkdir()
    (folder / "noise").write_bytes(os.urandom(1_010_000))
    part.add(archive, "short", record("short"), folder)
    assert "1,000,000 may be committed" in capsys.readouterr().out
    assert set(filing.records_in(archive)) == {"short"}
    with pytest.raises(ValueError, match=r"first\.zip has 1,01\d,\d\d\d bytes; 1,000,000 may be committed"):
        filing.collect(tmp_path, tmp_path / "results", default=ROOT)


def flipped(content: bytes) -> bytes:
    """Two other bytes in the middle of the compressed data."""
    at = content.index(b"part.json") + 40
    return content[:at] + bytes(255 - byte for byte in content[at : at + 2]) + content[at + 2 :]


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"no archive", flipped]
)
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
    assert filing.collect(brought, results, default=ROOT) == filing.Collected([place], [])
    # The commit is not known here, which is neither true nor false, and may be found out later.
    filed = json.loads((place / "part.json").read_text())
    assert filed["sources_are_the_commits"] is None
    (place / "part.json").write_text(json.dumps(filed | {"sources_are_the_commits": True}))
    assert (place / "card.json").read_text() == "{}"
    assert filing.filed_parts(results, "first") == {"short"}
    assert filing.collect(brought, results, default=ROOT) == filing.Collected([], [])


def test_a_result_that_is_filed_is_never_replaced_and_does_not_hold_up_the_others(brought, tmp_path):
    results = tmp_path / "results"
    filing.collect(brought, results, default=ROOT)
    place = results / "a-device-80gb" / "first" / "short"
    (place / "card.json").write_text("mine")
    part.add(brought / "first.zip", "long", record("long"), tmp_path / "files")
    assert filing.collect(brought, results, default=ROOT) == filing.Collected([place.with_name("long")], [place])
    assert (place / "card.json").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["short/../../evil.txt", "../evil.txt", "/evil.txt", "short/deep/evil.txt", "other/card.json"]
)
def test_nothing_is_written_outside_of_a_part_s_folder(brought, tmp_path, name):
    with zipfile.ZipFile(brought / "first.zip", "a") as file:
        file.writestr(name, b"")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"first\.zip holds '.*', which is no"):
        filing.collect(brought, tmp_path / "results", default=ROOT)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"part": "short", "dry": false}', b"{"])
def test_a_record_of_something_else_is_named(brought, content):
    with zipfile.ZipFile(brought / "first.zip", "w") as file:
        file.writestr("short/part.json", content)
    with pytest.raises(ValueError, match=r"first\.zip: short/part\.json is damaged"):
        filing.records_in(brought / "first.zip")


@pytest.mark.parametrize(("device", "folder"), [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"), ("..", "unknown")])
def test_a_device_s_name_is_a_folder_s(device, folder):
    assert part.slug(device) == folder


def test_a_dry_run_is_not_filed_among_the_results(brought, tmp_path):
    results = tmp_path / "results"
    part.add(brought / "second.zip", "only", record("only", dry=True), tmp_path / "files")
    with pytest.raises(ValueError, match=r"second\.zip is of a dry run"):
        filing.collect(brought, results, default=results)
    assert not results.exists()
    assert len(filing.collect(brought, results, default=ROOT).new) == 2


def test_a_folder_without_results_and_a_foreign_archive_are_named(brought, tmp_path):
    with pytest.raises(ValueError, match=r"has no results \(JOB\.zip\)"):
        filing.collect(tmp_path / "nowhere", tmp_path / "results", default=ROOT)
    with zipfile.ZipFile(brought / "holiday.zip", "w") as file:
        file.writestr("picture", b"")
    with pytest.raises(ValueError, match=r"holiday\.zip is no result: job is 'holiday'"):
        filing.collect(brought, tmp_path / "results", default=ROOT)


CHILD = """
import os, pathlib, signal, sys, time
kind, job, flags = sys.argv[1], sys.argv[2], dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[3:])
print(f"{job}/short: begins", flush=True)
print("commit", os.environ.get("LTROBUST_COMMIT"), os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE"), flush=True)
if kind == "fails":
    print(f"{job}/short: failed: ImportError: libcublas.so.12", flush=True)
    sys.exit(1)
if kind == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if kind in ("slow", "deaf"):
    signal.signal(signal.SIGTERM, (lambda *_: sys.exit(75)) if kind == "slow" else signal.SIG_IGN)
    pathlib.Path(flags["out"], "listening").touch()
    time.sleep(60)
sys.exit({"resumable": 75, "crashes": 7}[kind])
"""


@pytest.fixture
def child(given, monkeypatch):
    """Makes the queue start a small program in place of a job's process."""

    def set_kind(kind: str) -> argparse.Namespace:
        monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", CHILD, kind))
        monkeypatch.setattr(run, "GRACE", 0.5)
        return given

    return set_kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slow", "deaf"])
def test_a_job_is_stopped_when_the_time_is_up_even_if_it_does_not_listen(child, kind, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "every", lambda: (jobs.Job("first", "", "check", (jobs.Part("short", 1.0),)),))
    given = child(kind)
    given.seconds = 3.0
    began = time.monotonic()
    assert run.main(given) == 0
    assert 3 <= time.monotonic() - began < 8
    assert (given.out / "listening").exists()
    assert "stopped; the same command resumes it" in capsys.readouterr().out


def test_a_part_that_fails_is_told_with_its_reason_on_the_console_and_by_the_status(child, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "every", lambda: TOY[:1])
    assert run.main(child("fails")) == 1
    printed = capsys.readouterr().out
    assert "first/short: failed: ImportError: libcublas.so.12" in printed
    assert re.search(r"^first/short +failed: ImportError: libcublas\.so\.12", printed, re.MULTILINE)


def test_a_process_that_crashes_fails_and_one_that_was_preempted_does_not(child, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "every", lambda: TOY[:1])
    assert run.main(child("resumable")) == 0
    assert "stopped; the same command resumes it" in capsys.readouterr().out
    assert run.main(child("crashes")) == 1
    assert "failed with exit status 7" in capsys.readouterr().out


def test_a_process_is_given_the_commit_and_leaves_memory_to_pytorch_where_a_job_shares_the_device(child, monkeypatch):
    given = child("resumable")
    given.commit = "c0ffee"
    for shares in (True, False):
        monkeypatch.setattr(jobs, "every", lambda shares=shares: (dataclasses.replace(TOY[0], shares_device=shares),))
        run.main(given)
        (log,) = given.out.with_name("out.work").glob("*/first.log")
        assert log.read_text().splitlines()[-1] == f"commit c0ffee {'false' if shares else None}"


def test_two_runs_do_not_share_a_scratch_folder(given, worked):
    given.work = given.out.with_name("scratch")
    given.work.mkdir()
    with hold(given.work), pytest.raises(ValueError, match="is being written to by another process"):
        run.main(given)
    assert worked == []


def test_scratch_belongs_to_sources_device_and_software(given, worked, monkeypatch):
    run.main(given)
    before = {path.name for path in given.out.with_name("out.work").iterdir()}
    monkeypatch.setattr(provenance, "sources_digest", lambda: "f" * 64)
    given.first = "first"
    given.out.rename(given.out.with_name("earlier"))
    run.main(given)
    assert {path.name for path in given.out.with_name("out.work").iterdir()} == before | {"f" * 12}
    names = [part.environment_name(kind, dry=dry) for kind in ("H100", "H200") for dry in (True, False)]
    assert len(set(names)) == 4
    assert all(f"jax{jax.__version__}" in name for name in names)


def test_a_filed_speed_of_this_device_is_planned_with(given, monkeypatch):
    monkeypatch.setattr(provenance, "nvidia", lambda field: "NVIDIA H100 80GB HBM3")
    place = given.results / "nvidia-h100-80gb-hbm3" / "speed" / "steps"
    place.mkdir(parents=True)
    (place / "part.json").write_text('{"summary": {"at_bsl_tflops": 60.5}}')
    assert run.rate(given) == 60.5
    monkeypatch.setattr(provenance, "nvidia", lambda field: "NVIDIA H200")
    assert run.rate(given) == jobs.RATES[0]


def test_a_job_in_front_that_lacks_an_input_or_time_is_refused(given, worked):
    given.first = "packed"
    with pytest.raises(ValueError, match=r"--first=packed needs a pack of cifar100"):
        run.main(given)
    given.first, given.seconds = "second", 20.0
    with pytest.raises(ValueError, match=r"--seconds=20 is too little for any open part of --first=second"):
        run.main(given)
    assert worked == []


def test_a_training_that_does_not_fit_is_begun_only_where_that_is_wanted(given, worked, monkeypatch):
    training = jobs.Job("long", "", "train", (jobs.Part("run", 500.0, run=jobs.Run("run", {})),))
    monkeypatch.setattr(jobs, "every", lambda: (training, TOY[1]))
    run.main(given)
    assert worked == [("second", ["only"])]
    given.unfinished = True
    run.main(given)
    assert worked[1:] == [("long", ["run"])]


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
    kept = inputs.python_only(wheel, out)
    with zipfile.ZipFile(kept) as file:
        assert sorted(file.namelist()) == ["some-1.0.dist-info/METADATA", "some/code.py"]
    kept.write_text("mine")
    assert inputs.python_only(wheel, out).read_text() == "mine"
    with pytest.raises(ValueError, match="compiled code"):
        inputs.python_only(tmp_path / "some-1.0-cp312-cp312-linux_x86_64.whl", out)


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


@pytest.mark.slow
@pytest.mark.ci
def test_a_part_leaves_a_record_of_everything_that_its_numbers_depend_on(tmp_path):
    with started(tmp_path, *(f"--skip={name}" for name in ("golden", "batches", "bfloat16"))) as process:
        output = process.stdout.read()
    assert process.returncode == 0, output
    result = filing.records_in(tmp_path / "check.zip")["repeat"]
    assert result["device"]["platform"] == "cpu"
    assert result["dry"] is True
    assert set(result["numerics"]) >= {"default_matmul_precision", "xla_flags", "prng"}
    assert {"jax", "python", "commit"} <= set(result["software"])
    assert result["seconds"]["total"] > result["seconds"]["compiling"] > 0
    assert result["sources_sha256"] == provenance.sources_digest()
    # On the CPU one program gives the same bits twice.
    assert result["summary"]["default"]["same_bits"] is True
    assert b"default" in part.read(tmp_path / "check.zip")["repeat/repeat.json"]


@pytest.mark.slow
def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    with started(tmp_path) as process:
        assert any("begins" in line for line in process.stdout)
        process.stdin.close()
        process.stdout.read()
        assert process.wait(60) == EXIT_STATUS
    assert not (tmp_path / "check.zip").exists()
