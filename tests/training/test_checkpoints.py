"""Checkpoints: verified when read, replaced when damaged, and no harm done by one that could not be written."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import pathlib
import re
import resource
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from toy_states import EMPTY, SIZE, TEMPLATE, state_at, weights

from ltrobust.training import checksums
from ltrobust.training.checkpoints import Checkpoints, folder_in
from ltrobust.training.state import Selection, TrainState, Weights, select


def write(folder: pathlib.Path, *steps: int, selection: Selection = EMPTY, keep: int = 2) -> None:
    with Checkpoints(folder, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step), selection, {"note": step})
            checkpoints.wait()


def read(folder: pathlib.Path, *, read_only: bool = False) -> TrainState:
    with Checkpoints(folder, read_only=read_only) as checkpoints:
        return checkpoints.restore(TEMPLATE, EMPTY)[0]


def assert_same(first: object, second: object) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def contents(folder: pathlib.Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pathlib.Path:
    """A folder with checkpoints of steps 3 and 7."""
    folder = tmp_path_factory.mktemp("written") / "student"
    write(folder, 3, 7)
    return folder


@pytest.fixture
def copy(written, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(written, tmp_path / "student"))


def test_a_workdir_names_where_else_its_checkpoints_lie(tmp_path):
    workdir, external = tmp_path / "run", tmp_path / "disk" / "student"
    workdir.mkdir()
    external.mkdir(parents=True)
    assert folder_in(workdir) == epath.Path(workdir)
    recorded = {"student": {}, "checkpoint": {"dir": str(external.parent)}}
    (workdir / "config.json").write_text(json.dumps(recorded))
    assert folder_in(workdir) == epath.Path(external)
    (workdir / "checkpoints" / "student").mkdir(parents=True)
    assert folder_in(workdir) == epath.Path(workdir / "checkpoints" / "student")


def test_every_file_of_every_item_has_its_checksum(written):
    folder = written / "7"
    listed = dict(line.split("  ")[::-1] for line in (folder / checksums.FILE).read_text().splitlines())
    assert {name.split("/")[0] for name in listed} == {"weights", "averaged", "selection", "rest", "about"}
    assert listed == {name: digest for name, digest in contents(folder).items() if "/" in name}
    assert sum((folder / name).stat().st_size for name in listed) > 2 * 4 * SIZE
    assert_same(read(written, read_only=True), state_at(7))


def largest(folder: pathlib.Path) -> pathlib.Path:
    return max(folder.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def flip_a_byte(folder: pathlib.Path) -> None:
    content = bytearray(largest(folder / "rest").read_bytes())
    content[len(content) // 2] ^= 1
    largest(folder / "rest").write_bytes(content)


def truncate(folder: pathlib.Path) -> None:
    file = largest(folder / "weights")
    file.write_bytes(file.read_bytes()[:-1])


def lose_a_line(folder: pathlib.Path) -> None:
    lines = (folder / checksums.FILE).read_text().splitlines(keepends=True)
    (folder / checksums.FILE).write_text("".join(lines[:-1]))


DAMAGES = {
    "flipped byte": (flip_a_byte, "rest/.* is not what was written"),
    "truncated file": (truncate, "weights/.* is not what was written"),
    "missing metadata": (lambda folder: (folder / "weights" / "_METADATA").unlink(), "weights/_METADATA is missing"),
    "missing item": (lambda folder: shutil.rmtree(folder / "selection"), "selection/.* is missing"),
    "missing about": (lambda folder: shutil.rmtree(folder / "about"), "about/.* is missing"),
    "missing checksums": (lambda folder: (folder / checksums.FILE).unlink(), "SHA256SUMS is missing"),
    "checksums cut short": (lose_a_line, "weights/.* is not in SHA256SUMS"),
    "checksums of noise": (lambda folder: (folder / checksums.FILE).write_bytes(bytes(range(256))), "cannot be read"),
    "nothing": (lambda folder: [shutil.rmtree(folder), folder.mkdir()], "SHA256SUMS is missing"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_kept_and_can_be_written_again(copy, capsys, name):
    damage, said = DAMAGES[name]
    damage(copy / "7")
    before, undamaged = contents(copy / "7"), contents(copy / "3")
    with Checkpoints(copy) as checkpoints:
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        assert checkpoints.latest() == 3
        assert checkpoints.about()["note"] == 3
        assert_same(checkpoints.restore(TEMPLATE, EMPTY)[0], state_at(3))
        checkpoints.save(state_at(7), EMPTY, {"note": "again"})
        checkpoints.wait()
        assert checkpoints.about()["note"] == "again"
    assert lines[0].startswith(f"checkpoint {copy / '7'} is damaged (")
    assert lines[0].endswith(f"); {copy / '3'} is used instead. The damaged one is kept as 7.damaged.")
    assert contents(copy / "7.damaged") == before
    assert contents(copy / "3") == undamaged
    assert re.search(said, lines[0])
    assert_same(read(copy), state_at(7))
    assert capsys.readouterr().out == ""


def test_a_second_damaged_one_of_the_same_step_has_a_name_of_its_own(copy):
    truncate(copy / "7")
    write(copy, 7)
    flip_a_byte(copy / "7")
    write(copy, 7)
    assert {path.name for path in copy.iterdir()} == {"3", "7", "7.damaged", "7.damaged-2"}


def test_evaluation_falls_back_too_and_changes_nothing(copy, capsys):
    truncate(copy / "7")
    before = contents(copy)
    with Checkpoints(copy, read_only=True) as checkpoints:
        assert checkpoints.about()["note"] == 3
        result = checkpoints.restore_weights(TEMPLATE.weights)
    assert_same(result, {"last": weights(3), "averaged": weights(4)})
    assert f"{copy / '3'} is used instead. The damaged one is kept as 7." in capsys.readouterr().out
    assert contents(copy) == before


@pytest.mark.parametrize("read_only", [False, True])
def test_where_all_are_damaged_nothing_is_begun_anew(copy, read_only):
    truncate(copy / "7")
    flip_a_byte(copy / "3")
    before = contents(copy)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"(?s)all checkpoints in .*student are damaged.*  7: weights/.*  3: rest/"
        ):
            Checkpoints(copy, read_only=read_only)
    assert contents(copy) == before


def test_another_architecture_is_no_damage(copy):
    before = contents(copy)
    other = dataclasses.replace(TEMPLATE, weights=Weights({"kernel": jnp.zeros(3)}, {}))
    with Checkpoints(copy) as checkpoints, pytest.raises(ValueError, match=r"student/7 does not fit.*architecture"):
        checkpoints.restore(other, EMPTY)
    assert contents(copy) == before


def test_saving_does_not_wait_for_the_hashing_and_no_number_is_given_before(tmp_path, monkeypatch):
    real, reached, go = checksums.write, threading.Event(), threading.Event()

    def slow(folder):
        reached.set()
        assert go.wait(60)
        real(folder)

    monkeypatch.setattr(checksums, "write", slow)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(3), EMPTY, {})
        assert reached.wait(60)
        assert not (tmp_path / "3").exists()
        with Checkpoints(tmp_path, read_only=True) as other:
            assert other.latest() is None
        go.set()
        checkpoints.wait()
        assert (tmp_path / "3" / checksums.FILE).exists()


@pytest.mark.slow
def test_the_selected_weights_are_in_every_later_checkpoint(tmp_path):
    best = select(EMPTY, weights(1), score=0.9, epoch=1)
    write(tmp_path, *range(1, 7), selection=select(best, weights(2), score=0.1, epoch=2), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "6"]
    truncate(tmp_path / "6")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        result = checkpoints.restore_weights(TEMPLATE.weights)
        _, selection = checkpoints.restore(TEMPLATE, EMPTY)
    assert_same(result["selected"], weights(1))
    assert_same(result["last"], weights(5))
    assert (int(selection.epoch), float(selection.score)) == (1, np.float32(0.9))
    np.testing.assert_array_equal(selection.recent, np.float32([np.nan, 0.9, 0.1]))


@contextlib.contextmanager
def files_of_at_most(size: int):
    """The system refuses to let any file grow beyond `size` bytes, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Orbax leaves coroutines and threads of the failed save behind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_without_space_a_save_is_said_to_have_failed_and_harms_nothing(copy, capsys):
    with Checkpoints(copy) as checkpoints:
        with files_of_at_most(SIZE):
            checkpoints.save(state_at(9), EMPTY, {})
            with pytest.raises(OSError, match="could not be written") as failed:
                checkpoints.wait()
        assert checkpoints.latest() == 7
        for part in (
            f"{copy / '9'} could",
            "File too large",
            "takes about 4.",
            "MB were free",
            f"still {copy / '7'}",
        ):
            assert part in str(failed.value), part
        with files_of_at_most(SIZE):
            checkpoints.save(state_at(11), EMPTY, {})
            checkpoints.save(state_at(12), EMPTY, {})
            said = capsys.readouterr().out
            assert f"{copy / '11'} could not be written" in said
            assert "Training continues; this is the next attempt." in said
            with pytest.raises(OSError, match="student/12 could"):
                checkpoints.wait()
        checkpoints.wait()
        assert sorted(path.name for path in copy.iterdir() if path.name.isdigit()) == ["3", "7"]
    assert_same(read(copy), state_at(7))
    write(copy, 12)
    assert sorted(path.name for path in copy.iterdir()) == ["12", "7"]
    assert_same(read(copy), state_at(12))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_while_hashing_is_a_failed_save(tmp_path, monkeypatch, capsys):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(checksums, "write", full)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(3), EMPTY, {})
    said = capsys.readouterr().out
    assert "No space left on device" in said
    assert "There is no older one." in said
    assert not (tmp_path / "3").exists()


def test_a_step_that_is_saved_is_left_as_it_is(copy):
    before = contents(copy)
    with Checkpoints(copy) as checkpoints:
        checkpoints.save(state_at(7), EMPTY, {"note": "other"})
        checkpoints.wait()
    assert contents(copy) == before


def test_what_there_is_not_is_neither_read_nor_made(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoints in .*nowhere; train first"):
        Checkpoints(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(FileNotFoundError, match="no complete checkpoint in "):
        checkpoints.about()


def test_a_checkpoint_that_a_run_removes_while_it_is_read_is_not_damaged(copy, capsys, monkeypatch):
    real = checksums.find_damage

    def removed(folder):
        if folder.name == "7":
            shutil.rmtree(folder)
        return real(folder)

    monkeypatch.setattr(checksums, "find_damage", removed)
    with Checkpoints(copy, read_only=True) as checkpoints:
        assert checkpoints.latest() == 3
    assert "damaged" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_nobody_knows_the_free_space_a_failed_save_says_so(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(errno.ENOSPC, "quota exceeded", str(folder))

    monkeypatch.setattr(checksums, "write", refuse)
    monkeypatch.setattr(shutil, "disk_usage", refuse)  # as for a bucket
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(3), EMPTY, {})
        with pytest.raises(OSError, match="it is not known how much is free there, and it takes about"):
            checkpoints.wait()
