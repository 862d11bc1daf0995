"""The tables of compiled programs: what they are from, unknown commits, and the smallest topology of a recipe."""

import dataclasses
import re
import subprocess

import pytest

from ltrobust.compilation import record
from tools import compiled

STEP = record.Row("teacher step", (), record.STEP, 1, 128, (32, 32, 3), memory=4 << 30, seconds=0.5, share_of_peak=0.25)
LARGER = dataclasses.replace(STEP, program="student step", memory=8 << 30)


def made(topology: str, commit: str, *rows: record.Row) -> record.Compilation:
    return record.Compilation("0.1", "libtpu 0.2", commit, topology, "standard", {}, rows)


def git(root, *words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *settings, *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path):
    """A repository with one commit and a folder of records."""
    (tmp_path / compiled.FOLDER).mkdir(parents=True)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    return tmp_path


def put(root, recipe: str, one: record.Compilation) -> None:
    record.write(root / compiled.FOLDER / f"{recipe}-{one.topology.replace(':', '-')}.json", one)


def test_rows_of_a_commit_that_is_not_in_the_history_are_marked(root):
    head = git(root, "rev-parse", "HEAD")
    put(root, "cifar10", made("v5e:1x1", head, STEP))
    assert "†" not in compiled.block(root)
    other = git(root, "commit-tree", "HEAD^{tree}", "-m", "of no branch")
    for commit in (other, "1ef26d0b8b87" + 28 * "0", head + "+changes"):
        put(root, "cifar10", made("v5e:2x4", commit, STEP))
        text = compiled.block(root)
        assert "| cifar10 † | v5e:2x4 | teacher step |" in text
        assert "| cifar10 | v5e:1x1 | teacher step |" in text
        assert "†: the commit is not in the history" in text
        assert f"- commit {commit[:12]}{commit[40:]}, jax 0.1, libtpu 0.2: cifar10 v5e:2x4\n" in text


def test_without_a_history_nothing_is_marked(tmp_path):
    assert compiled.unknown({"1ef26d0b8b87"}, tmp_path) == set()


def test_what_was_compiled_alike_is_one_item(root):
    for topology in ("v5e:1x1", "v5e:2x4"):
        put(root, "cifar10", made(topology, "ab" * 20, STEP))
    put(root, "digits", dataclasses.replace(made("v5e:1x1", "ab" * 20, STEP), compiler="libtpu 0.3"))
    assert compiled.sources(compiled.load(root / compiled.FOLDER)) == (
        "- commit abababababab, jax 0.1, libtpu 0.2: cifar10 v5e:1x1, cifar10 v5e:2x4\n"
        "- commit abababababab, jax 0.1, libtpu 0.3: digits v5e:1x1\n"
    )


def test_the_smallest_topology_holds_both_steps(root):
    too_large = dataclasses.replace(LARGER, problem="student step does not fit")
    put(root, "cifar10", made("v5e:1x1", "ab", STEP, too_large))
    put(root, "cifar10", made("v5e:2x2", "ab", STEP))
    put(root, "cifar10", made("v5e:4x4", "ab", STEP, LARGER))
    put(root, "cifar10", made("v5e:2x4", "ab", STEP, dataclasses.replace(LARGER, chips=8)))
    put(root, "cifar10", made("h100:8", "ab", STEP, LARGER))
    put(root, "cifar100", made("v5e:1x1", "ab", STEP))
    text = compiled.smallest(compiled.load(root / compiled.FOLDER))
    # Of the step that needs most; JAX takes three quarters of a GPU's 79.1 GiB.
    assert "| cifar10 | v5e:2x4 | 16 | 50.0% | h100:8 | 128 | 13.5% |" in text
    assert "| cifar100 |  |  |  |  |  |  |" in text


def test_a_program_that_does_not_compile_has_its_reason_in_its_line(root):
    put(root, "cifar10", made("v5e:1x1", "ab", dataclasses.replace(STEP, memory=None, problem="it does not compile")))
    assert "| cifar10 | v5e:1x1 | teacher step |  | it does not compile |" in compiled.block(root).replace(" †", "")


def test_every_column_is_explained(root):
    put(root, "cifar10", made("v5e:1x1", "ab", STEP))
    explained = compiled.block(root).partition("Compiled from")[0]
    for column in compiled.HEADER[3:]:
        assert re.search(rf"^- (.*, )?{re.escape(column.removesuffix(', model'))}(, .*)?: ", explained, re.MULTILINE), (
            column
        )


def test_the_input_of_a_step_has_a_line_for_each_form(root):
    assert compiled.inputs(root) == ""
    gathered = record.Unpriced("gather", "gather", 0, 1, 393216)
    other = record.Unpriced("reshape", "reshape", 0, 1, 1 << 20)
    row = record.Row("base, no pixel indexed", (), record.CALL, 1, 128, (32, 32, 3), memory=80 << 20, cycles=100952)
    rows = (
        dataclasses.replace(row, unpriced=(gathered, other)),
        dataclasses.replace(row, program="base, pixels indexed"),
    )
    record.write(root / compiled.INPUT, made("v5e:1x1", "ab" * 20, *rows))
    lines = compiled.inputs(root).splitlines()
    assert lines[0].startswith("Input of a training step alone: 128 images of 32x32x3 are picked")
    assert "(commit abababababab †, not in the history of this repository, jax 0.1, libtpu 0.2)" in lines[0]
    assert lines[-2:] == ["| base, no pixel indexed | 0.10 | 384 | 80 |", "| base, pixels indexed | 0.10 | 0 | 80 |"]
