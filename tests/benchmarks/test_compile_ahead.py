"""Compiling ahead resumes a file only where its rows are of the same compiler, configuration and sources."""

import dataclasses
import subprocess

import compile_ahead
import jax
import jax.numpy as jnp
import pytest

import ltrobust
from ltrobust.compilation import programs, record, rows, topologies

ROW = record.Row("teacher step", (), record.STEP, 1, 64, (8, 8, 1))


def git(*words: str) -> str:
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *settings, *words], cwd=compile_ahead.ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def write(name: str, text: str) -> None:
    path = compile_ahead.ROOT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def committed(name: str, text: str) -> str:
    """The commit after a change."""
    write(name, text)
    git("add", "-A")
    git("commit", "-qm", "change")
    return git("rev-parse", "HEAD")


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A checkout with sources, in place of this one; its commit."""
    (tmp_path / "checkout").mkdir()
    monkeypatch.setattr(compile_ahead, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(ltrobust, "__file__", str(tmp_path / "checkout" / "ltrobust" / "__init__.py"))
    git("init", "-q")
    write("configs/a.py", "a = 1\n")
    return committed("ltrobust/a.py", "a = 1\n")


def fresh(commit: str) -> record.Compilation:
    return record.Compilation("0.1", "libtpu 0.2", commit, "v5e:1x1", "standard", {"seed": 0})


def test_rows_of_the_same_sources_are_kept(checkout, tmp_path):
    path = tmp_path / "digits-v5e-1x1.json"
    assert compile_ahead.resume(path, fresh(checkout), again=False) == fresh(checkout)
    known = dataclasses.replace(fresh(checkout), rows=(ROW,))
    record.write(path, known)
    later = committed("docs/page.md", "No program depends on it.\n")
    assert later != checkout
    assert compile_ahead.resume(path, fresh(later), again=False) == known


@pytest.mark.parametrize("source", compile_ahead.SOURCES)
def test_rows_of_other_sources_are_neither_kept_nor_lost(checkout, tmp_path, source):
    path = tmp_path / "digits-v5e-1x1.json"
    record.write(path, dataclasses.replace(fresh(checkout), rows=(ROW,)))
    now = fresh(committed(f"{source}/a.py", "a = 2\n"))
    before = path.read_text()
    with pytest.raises(SystemExit, match=rf"digits-v5e-1x1.json is left as it is: commit {checkout[:12]}.*--again"):
        compile_ahead.resume(path, now, again=False)
    assert compile_ahead.resume(path, now, again=True) == now
    assert path.read_text() == before


@pytest.mark.parametrize(
    "change",
    [{"jax": "0.2"}, {"compiler": "libtpu 0.3"}, {"topology": "v4:2x2x1"}, {"protocol": "quick"}, {"config": {}}],
)
def test_rows_of_another_compiler_or_configuration_are_not_kept(checkout, tmp_path, change):
    path = tmp_path / "digits-v5e-1x1.json"
    record.write(path, dataclasses.replace(fresh(checkout), rows=(ROW,), **change))
    with pytest.raises(SystemExit, match="left as it is"):
        compile_ahead.resume(path, fresh(checkout), again=False)
    assert compile_ahead.resume(path, fresh(checkout), again=True).rows == ()


def test_those_are_all_fields_but_commit_and_rows():
    assert {one.name for one in dataclasses.fields(record.Compilation)} == {
        *("jax", "compiler", "topology", "protocol", "config"),
        *("commit", "rows"),
    }


def test_rows_of_a_commit_that_is_not_known_are_not_kept(checkout, tmp_path):
    path = tmp_path / "digits-v5e-1x1.json"
    record.write(path, dataclasses.replace(fresh("1ef26d0b8b87" + 28 * "0"), rows=(ROW,)))
    with pytest.raises(SystemExit, match="commit 1ef26d0b8b87"):
        compile_ahead.resume(path, fresh(checkout), again=False)


def test_only_committed_sources_are_compiled(checkout, monkeypatch, tmp_path):
    assert compile_ahead.commit() == checkout
    write("benchmarks/results/digits.json", "{}")  # what it writes itself
    assert compile_ahead.commit() == checkout
    for name in ("ltrobust/a.py", "configs/new.py"):
        write(name, "a = 3\n")
        with pytest.raises(SystemExit, match="ltrobust and configs have changes; commit them first"):
            compile_ahead.commit()
        git("stash", "-qu")
    assert compile_ahead.commit() == checkout
    (tmp_path / "copy").mkdir()
    monkeypatch.setattr(compile_ahead, "ROOT", tmp_path / "copy")
    monkeypatch.setattr(ltrobust, "__file__", str(tmp_path / "copy" / "ltrobust" / "__init__.py"))
    with pytest.raises(SystemExit, match="copy is no checkout with commits"):
        compile_ahead.commit()


def test_a_case_compiles_what_its_file_lacks(checkout, monkeypatch, tmp_path):
    def made(name: str) -> programs.Program:
        trace = lambda: jax.jit(lambda x: x @ x).trace(jnp.zeros((8, 8)))  # noqa: E731
        return programs.Program(name, (), 64, (8, 8, 1), record.STEP, True, "student.batch_size", trace)

    names = ["teacher step", "student step", "standard: judge"]
    monkeypatch.setattr(topologies, "make_devices", lambda topology: jax.devices()[:1])
    monkeypatch.setattr(topologies, "compiler_version", lambda chip: "libtpu 0.2")
    monkeypatch.setattr(rows, "programs", lambda plan, mesh, only, memory: map(made, names))
    words = [f"--out={tmp_path}", "--program=teacher"]
    path = compile_ahead.path_of("digits", "v5e:1x1", tmp_path)
    compiled = []
    for more in (words, words[:1]):
        compile_ahead.compile_case("digits", "v5e:1x1", compile_ahead.flags().parse_args(more), checkout)
        compiled.append(record.read(path))
    first, second = compiled
    assert [row.program for row in first.rows] == names[:1]
    assert [row.program for row in second.rows] == names
    assert second.rows[0] == first.rows[0]
    assert (second.protocol, second.commit, second.config["data"]["name"]) == ("standard", checkout, "digits")


def test_cases_are_those_that_are_named():
    assert compile_ahead.cases("digits,imagenet_lt", "h100:8,v5e:8x8") == [
        ("digits", "h100:8"),
        ("imagenet_lt", "v5e:8x8"),
        ("imagenet_lt", "h100:8"),
    ]
    assert {recipe for recipe, _ in compile_ahead.cases("", "")} == {*compile_ahead.RECIPES}


def test_a_package_of_another_folder_is_refused(checkout, monkeypatch, tmp_path):
    assert compile_ahead.commit() == checkout
    monkeypatch.setattr(ltrobust, "__file__", str(tmp_path / "installed" / "ltrobust" / "__init__.py"))
    with pytest.raises(SystemExit, match=r"ltrobust is imported from .*installed.*set PYTHONPATH"):
        compile_ahead.commit()


def test_a_script_with_changes_is_refused_where_rows_depend_on_it(checkout):
    committed("benchmarks/input.py", "a = 1\n")
    write("benchmarks/input.py", "a = 2\n")
    compile_ahead.commit()
    with pytest.raises(SystemExit, match=r"ltrobust and configs and benchmarks/input\.py have changes"):
        compile_ahead.commit("benchmarks/input.py")


@pytest.mark.parametrize(
    ("recipes", "topologies", "message"),
    [
        ("digit", "", "--only names digit; recipes are digits, cifar10"),
        ("", "v5e:9x9", "--topologies: "),
        ("imagenet_lt", "v4:2x2x1", "--only=imagenet_lt has no case"),
    ],
)
def test_cases_that_are_not_there_are_refused(recipes, topologies, message):
    with pytest.raises(SystemExit, match=message):
        compile_ahead.cases(recipes, topologies)
