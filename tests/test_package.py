"""The distribution: its version, its list of packages, its command, and the configurations that come with it."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

import ltrobust
from ltrobust import recipes
from ltrobust.analysis import cards

START = "import sys; sys.argv[0] = 'ltrobust'; from ltrobust.commands import main; main.run()"
ROOT = pathlib.Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def test_every_room_is_a_package_of_the_distribution():
    rooms = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "ltrobust").rglob("*.py")}
    assert set(SETUPTOOLS["packages"]) == rooms | set(SETUPTOOLS["package-dir"])
    folders = ("configs", "configs/class_wise", "configs/sweeps")
    shipped = {f"ltrobust.shipped.{folder.replace('/', '.')}": folder for folder in folders}
    assert SETUPTOOLS["package-dir"] == shipped


def test_templates_of_pages_come_with_the_package():
    assert SETUPTOOLS["package-data"] == {"ltrobust": ["py.typed"], "ltrobust.report": ["templates/*"]}
    assert (ROOT / "ltrobust" / "py.typed").is_file()  # type checkers read the annotations
    assert {path.suffix for path in (ROOT / "ltrobust" / "report" / "templates").iterdir()} == {".jinja", ".css", ".js"}


def test_there_is_one_version_and_cards_have_it():
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "ltrobust.__version__"}
    assert cards.software()["ltrobust"] == ltrobust.__version__


def test_a_package_that_is_not_installed_has_no_version_on_a_card(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "tensorflow-datasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    result = cards.software.__wrapped__()
    assert result["tensorflow-datasets"] == "unknown"
    assert result["jax"] == real("jax")


def test_no_other_repositorys_commit_is_on_a_card(monkeypatch, tmp_path):
    """The package may be installed inside of somebody's repository, which does not track it."""
    installed = tmp_path / "environment" / "cards.py"
    installed.parent.mkdir()
    installed.write_text("")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(cards, "__file__", str(installed))
    assert cards.commit() == "unknown"
    subprocess.run(["git", "add", "environment"], cwd=tmp_path, check=True)
    assert len(cards.commit().removesuffix("+changes")) == 40


@pytest.mark.slow
def test_the_command_is_main_py_from_anywhere(tmp_path):
    """Also where there is no `configs`: the same words find what comes with the package."""
    assert PROJECT["project"]["scripts"] == {"ltrobust": "ltrobust.commands.main:run"}
    command = [
        sys.executable,
        "-c",
        START,
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    for words, program in ((command, "ltrobust"), ([sys.executable, str(ROOT / "main.py")], "main.py")):
        words = [*words, "--config", "configs/folder.py", f"--config.data.dir={tmp_path}/nowhere", "--config.seed=1"]
        reported = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert reported.returncode == 1, (program, reported.stderr)
        assert "nowhere is not a folder; expected are train/CLASS/IMAGE" in reported.stderr, program
    assert not any(tmp_path.iterdir())


def test_what_lies_here_comes_before_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = recipes.find("configs/published.py:mart")
    assert shipped == f"{ROOT}/configs/published.py:mart"
    assert recipes.find("published:mart") == shipped
    assert recipes.load("configs/published.py:mart").student.method == "mart"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "published.py").write_text("def get_config(name):\n    raise ValueError(name)\n")
    assert recipes.find("configs/published.py:mart") == "configs/published.py:mart"
    with pytest.raises(ValueError, match=r"^mart$"):
        recipes.load("configs/published.py:mart")
    assert recipes.find("mart") == "mart"
    assert recipes.find("configs/nothing.py") == "configs/nothing.py"
    assert recipes.find("") == ""


BEGINNING = "from configs import default\n\n\ndef get_config():\n    c = default.get_config()\n"


WRONG = [
    ("    c.threat.raduis = 8.0\n    return c\n", r"unknown key threat\.raduis; did you mean threat\.radius\?"),
    ("    c.student.optimiser = 'sgd'\n    return c\n", r"unknown key student\.optimiser; "),
    ("    c.weather = 'fine'\n    return c\n", "unknown key weather; configs/default.py has every key"),
    ("    del c.threat\n    return c\n", r"no key threat\.norm; begin with configs\.default"),
]


@pytest.mark.parametrize(
    ("lines", "message"),
    [*WRONG, ("    return c.to_dict()\n", "the configuration is a dict; get_config must return a ConfigDict")],
)
def test_keys_of_a_configuration_are_those_of_default_in_python(tmp_path, lines, message):
    file = tmp_path / "mine.py"
    file.write_text(BEGINNING + lines)
    with pytest.raises(ValueError, match=message):
        recipes.load(str(file))


@pytest.mark.parametrize(
    ("lines", "message"), [WRONG[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in WRONG[1:])]
)
def test_keys_of_a_configuration_are_those_of_default_on_the_command_line(tmp_path, lines, message):
    file = tmp_path / "mine.py"
    file.write_text(BEGINNING + lines)
    command = [sys.executable, "-c", "from ltrobust.commands import main; main.run()", f"--config={file}"]
    reported = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300
    )
    assert reported.returncode == 1
    assert re.search(message, reported.stderr)
    assert "Traceback" not in reported.stderr
    assert not (tmp_path / "runs").exists()


def test_options_of_an_optimiser_are_optax_s(tmp_path):
    (tmp_path / "mine.py").write_text(BEGINNING + "    c.student.optimizer.options.b1 = 0.95\n    return c\n")
    assert recipes.load(str(tmp_path / "mine.py")).student.optimizer.options.b1 == 0.95


def test_a_file_that_is_no_configuration_is_named(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match=r"empty.py is not a configuration; it must define get_config"):
        recipes.load(str(tmp_path / "empty.py"))
    with pytest.raises(FileNotFoundError, match=r"nothing\.py"):
        recipes.load(str(tmp_path / "nothing.py"))
    (tmp_path / "broken.py").write_text("def get_config():\n    return 1 + 'one'\n")
    with pytest.raises(TypeError, match="unsupported operand"):  # the file's own error, with its own traceback
        recipes.load(str(tmp_path / "broken.py"))
    config = recipes.load("configs/folder.py")
    with pytest.raises(AttributeError, match="epochz"):
        config.student.epochz = 1
