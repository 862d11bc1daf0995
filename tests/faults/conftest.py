"""The option that rewrites docs/faults.md, and the one finished run that the faults share."""

import pathlib
import shutil

import injection
import pytest

ROWS = pytest.StashKey[dict]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-faults", action="store_true", help="rewrite docs/faults.md from what the faults give now")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = {}
    if config.getoption("--write-faults"):
        config.option.markexpr = ""  # all rows, the slow ones too


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--write-faults", False):
        injection.write_page(session.config.stash[ROWS])


@pytest.fixture
def rows(request) -> dict[str, str] | None:
    """Where rows are collected to be written, or None where no page is written."""
    return request.config.stash[ROWS] if request.config.getoption("--write-faults", False) else None


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> pathlib.Path:
    """The workdir of a finished run, with a space and letters beyond ASCII in its name."""
    return run_to_the_end(injection.TINY, tmp_path_factory.mktemp("finished") / "erste Läufe" / "naïve 実験")


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory) -> pathlib.Path:
    """The workdir of a finished run without a teacher."""
    return run_to_the_end(injection.ALONE, tmp_path_factory.mktemp("uninterrupted"))


def run_to_the_end(arguments: tuple[str, ...], workdir: pathlib.Path) -> pathlib.Path:
    with pytest.MonkeyPatch.context() as patch:
        status, text = injection.run_main(patch, *arguments, f"--workdir={workdir}")
    assert status == 0, text
    return workdir


@pytest.fixture
def place(tmp_path, monkeypatch, request) -> injection.Place:
    def copy_finished(target: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(request.getfixturevalue("finished"), target))

    return injection.Place(tmp_path, monkeypatch, copy_finished, lambda: request.getfixturevalue("uninterrupted"))
