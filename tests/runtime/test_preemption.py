"""Asked to stop, a run saves, says so and exits with a dedicated status; the same command ends as if never stopped."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import EXIT_STATUS, Preempted, Preemption

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = [
    sys.executable,
    "main.py",
    "--config=configs/digits.py",
    "--config.data.imbalance_ratio=4.0",
    "--config.model.name=own:Normed",  # soon traced
    "--config.teacher.epochs=2",
    "--config.student.epochs=6",
    "--config.student.method=at_bsl",  # soon traced
    "--config.student.initialize=teacher",
    "--config.eval.protocol=validation",
    "--config.eval.limit=2",
    "--config.eval.also=()",
]


def start(workdir):
    """The process, its standard error in a file (a pipe that nobody reads would fill up)."""
    log = workdir.with_suffix(f".{time.monotonic_ns()}.log")
    with log.open("w") as file:
        command, environment = [*COMMAND, f"--workdir={workdir}"], {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=file, stdout=file), log


def finish(workdir):
    """Parameters' hashes of the card that a run ends with."""
    process, log = start(workdir)
    assert process.wait(300) == 0, log.read_text()
    card = json.loads((workdir / "results" / "validation.json").read_text())
    return {name: network["params_sha256"] for name, network in card["networks"].items()}


def wait_for(path, seconds=120):
    """Until a file or folder has something in it."""
    end = time.monotonic() + seconds
    while not (path.exists() and (path.is_dir() or path.stat().st_size)):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.ci
def test_stopped_twice_and_started_again_it_ends_with_the_same_bits(tmp_path):
    whole = finish(tmp_path / "whole")
    workdir = tmp_path / "stopped"
    messages = []
    # In the teacher's phase, then in the student's.
    for number, (sign, phase) in enumerate([(signal.SIGTERM, "teacher"), (signal.SIGINT, "student")]):
        process, log = start(workdir)
        wait_for(workdir / "metrics.jsonl" if number == 0 else workdir / "checkpoints" / "student")
        process.send_signal(sign)
        began = time.monotonic()
        assert process.wait(60) == EXIT_STATUS, log.read_text()
        assert time.monotonic() - began < 30
        messages.append(log.read_text())
        assert f"stopped by {sign.name}" in messages[-1]
        assert "Traceback" not in messages[-1]
        assert f"{phase} saved at step" in messages[-1] or "resumes from" in messages[-1]
    (workdir / "report.html").write_text("somebody's")
    assert finish(workdir) == whole
    assert (tmp_path / "whole" / "report.html").read_text().startswith("<!DOCTYPE html>")
    # A page that cannot be written costs the run nothing but a line.
    assert (workdir / "report.html").read_text() == "somebody's"
    assert "main.py: no report: ValueError" in max(tmp_path.glob("stopped.*.log")).read_text()


@pytest.mark.slow
@pytest.mark.ci
def test_a_second_process_is_refused_while_the_first_is_at_work(tmp_path):
    workdir = tmp_path / "shared"
    process, log = start(workdir)
    try:
        wait_for(workdir / "lock")
        second, second_log = start(workdir)
        assert second.wait(120) == 1
        assert f"written to by another process (process {process.pid} on" in second_log.read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The lock ends with its process, however that ended.
    with hold(workdir):
        pass
    assert log.exists()


def test_a_folder_is_held_once(tmp_path):
    with hold(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} on"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_requests_wait_where_they_are_waited_for_and_a_second_interrupt_does_not():
    preemption = Preemption()
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell has started the tests in the background
    with preemption.listening():
        with preemption.waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            assert preemption.requested == "SIGTERM"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        preemption.requested = None
        with pytest.raises(Preempted, match="stopped by SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_of_the_main_thread_signals_are_left_alone():
    """Python lets no other thread set handlers; a run in a notebook's thread goes without."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with Preemption().listening() as preemption:
            seen.append((preemption.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
