"""Interrupted runs end as uninterrupted ones, bit for bit; runs are never mixed up."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ltrobust import experiment
from ltrobust.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[2]


def fingerprints(workdir: pathlib.Path) -> dict:
    """Hashes of every network's parameters and statistics, and every count, from the card."""
    card = json.loads((workdir / "results" / "quick.json").read_text())
    return card["networks"]


class Interruption(Exception):
    pass


@pytest.mark.parametrize("stretches", [2, 5, 9, 14, 17])
def test_stopped_anywhere_and_started_again_gives_the_same_card(tiny, tmp_path, monkeypatch, stretches, uninterrupted):
    real, done = loop.steps.compile_stretch, 0

    def compile_stretch(settings, mesh):
        stretch = real(settings, mesh)

        def counted(*arguments):
            nonlocal done
            done += 1
            if done > stretches:
                raise Interruption
            return stretch(*arguments)

        return counted

    monkeypatch.setattr(loop.steps, "compile_stretch", compile_stretch)
    # One step a stretch, so that stops fall inside epochs.
    monkeypatch.setattr(loop, "_CAPACITY", 1)
    with pytest.raises(Interruption):
        experiment.train(tiny, tmp_path)
    monkeypatch.setattr(loop.steps, "compile_stretch", real)
    experiment.train(tiny, tmp_path)
    assert fingerprints(tmp_path) == uninterrupted


@pytest.fixture
def uninterrupted(tiny, tmp_path_factory):
    workdir = tmp_path_factory.getbasetemp() / "uninterrupted"
    if not workdir.exists():
        experiment.train(tiny, workdir)
    return fingerprints(workdir)


def test_a_finished_run_trains_nothing_and_writes_a_new_card(tiny, tmp_path, monkeypatch):
    first = experiment.train(tiny, tmp_path)
    monkeypatch.setattr(loop.steps, "compile_stretch", lambda *arguments: pytest.fail("a finished phase was run again"))
    second = experiment.train(tiny, tmp_path)
    assert (first.name, second.name) == ("quick.json", "quick-2.json")
    assert json.loads(first.read_text())["networks"] == json.loads(second.read_text())["networks"]


def start(workdir: pathlib.Path) -> subprocess.Popen:
    settings = {
        "data.imbalance_ratio": 4.0,
        "model.width": 4,
        "teacher.epochs": 6,
        "student.epochs": 6,
        "teacher.attack.steps": 2,
        "student.attack.steps": 2,
        "eval.limit": 3,
        "checkpoint.minutes": 0.0,
    }
    command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with workdir.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(workdir: pathlib.Path) -> None:
    assert start(workdir).wait(timeout=300) == 0, workdir.with_suffix(".log").read_text()


def test_killed_in_either_phase_and_started_again_gives_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(whole)
    for phase in ("teacher", "student"):
        process = start(killed)
        folder, deadline = killed / "checkpoints" / phase, time.monotonic() + 300
        # In the middle of the phase: after its first complete checkpoints.
        while not (folder.is_dir() and any(child.name.isdigit() for child in folder.iterdir())):
            assert process.poll() is None, killed.with_suffix(".log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finish(killed)
    assert fingerprints(killed) == fingerprints(whole)
