"""Interrupted runs end as uninterrupted ones, bit for bit; runs are never mixed up. Killed ones: tests/kill."""

import contextlib
import functools
import json
import pathlib
import shutil
from typing import Any

import jax
import own
import pytest

from ltrobust import models
from ltrobust import run as runs
from ltrobust.training import devices, loop, steps, teacher_student
from ltrobust.training.checkpoints import Checkpoints


def fingerprints(workdir: pathlib.Path) -> dict:
    """Hashes of every network's parameters and statistics, and every count, from the card."""
    card = json.loads((workdir / "results" / "validation.json").read_text())
    return card["networks"]


class Interruption(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def _registered():
    models.register(own.Normed)
    yield
    del models.REGISTERED["Normed"]


@pytest.fixture
def tiny(tiny: Any) -> Any:
    """Of a network with BatchNorm that is soon compiled."""
    with tiny.unlocked():
        tiny.model.name = "Normed"
    return tiny


@contextlib.contextmanager
def with_loop(**arguments):
    """Runs call the loop with these arguments besides."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_student, "run_phase", functools.partial(loop.run_phase, **arguments))
        yield


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [2, 9, 14])
def test_stopped_anywhere_and_started_again_gives_the_same_card(tiny, tmp_path, chunks, uninterrupted):
    done = 0

    def compile_chunk(settings, mesh):
        chunk = steps.compile_chunk(settings, mesh)

        def counted(*arguments):
            nonlocal done
            done += 1
            if done > chunks:
                raise Interruption
            return chunk(*arguments)

        return counted

    # One step a chunk, so that stops fall inside epochs.
    with with_loop(compile_chunk=compile_chunk, capacity=1), pytest.raises(Interruption):
        runs.train(tiny, tmp_path)
    runs.train(tiny, tmp_path)
    assert fingerprints(tmp_path) == uninterrupted


@pytest.fixture
def uninterrupted(tiny, tmp_path_factory):
    workdir = tmp_path_factory.getbasetemp() / "uninterrupted"
    if not workdir.exists():
        runs.train(tiny, workdir)
    return fingerprints(workdir)


@pytest.mark.slow
def test_a_finished_run_on_several_devices_trains_nothing_and_writes_a_new_card(tiny, tmp_path, monkeypatch):
    mesh = devices.make_mesh(jax.devices()[:2])
    monkeypatch.setattr(devices, "make_mesh", lambda: mesh)
    first = runs.train(tiny, tmp_path)
    with with_loop(compile_chunk=lambda *arguments: pytest.fail("a finished phase was run again")):
        second = runs.train(tiny, tmp_path)
    assert (first.name, second.name) == ("validation.json", "validation-2.json")
    cards = [json.loads(path.read_text()) for path in (first, second)]
    assert cards[0]["networks"] == cards[1]["networks"]
    assert cards[0]["numerics"]["devices"] == 2
    assert cards[0]["training"]["student"]["devices"] == [2]
    with Checkpoints(tmp_path / "checkpoints" / "student", read_only=True) as checkpoints:
        assert checkpoints.about()["devices"] == [2]


@pytest.mark.slow
def test_with_damaged_checkpoints_in_both_phases_the_card_is_the_same(
    tiny, tmp_path, tmp_path_factory, uninterrupted, capsys
):
    workdir = tmp_path / "damaged"
    shutil.copytree(tmp_path_factory.getbasetemp() / "uninterrupted", workdir)
    (workdir / "results" / "validation.json").unlink()
    for phase in ("teacher", "student"):
        newest = max((workdir / "checkpoints" / phase).glob("[0-9]*"), key=lambda folder: int(folder.name))
        files = [path for path in (newest / "weights").rglob("*") if path.is_file()]
        file = max(files, key=lambda path: path.stat().st_size)
        file.write_bytes(file.read_bytes()[:-1])
    runs.train(tiny, workdir)
    assert fingerprints(workdir) == uninterrupted
    assert capsys.readouterr().out.count("is used instead. The damaged one is kept as") == 2
