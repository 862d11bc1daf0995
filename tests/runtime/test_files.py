"""Files on disk under concurrency: no name is given twice, no half file, and nobody else's file is written to."""

import concurrent.futures
import dataclasses
import errno
import json
import os
import pathlib

import fabricated
import pytest

from ltrobust.analysis import cards
from ltrobust.commands import diagnose
from ltrobust.report import diagnosis_page, run_page
from ltrobust.runtime import files

ROOT = pathlib.Path(__file__).resolve().parents[2]

WRITERS = 8


def together(call):
    """What a call of each of several threads at once returns."""
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        return [future.result() for future in [pool.submit(call, number) for number in range(10 * WRITERS)]]


@pytest.fixture(params=[True, False], ids=["hard links", "no hard links"])
def links(request, monkeypatch):
    if not request.param:

        def refuse(*arguments):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)


def test_cards_written_at_once_all_have_a_name_and_their_content(tmp_path, links):
    card = cards.read(ROOT / "results" / "digits" / "at_bsl-seed0.json")
    paths = together(lambda n: cards.write(tmp_path, "quick", dataclasses.replace(card, seconds=n)))
    assert len(set(paths)) == 10 * WRITERS
    assert sorted(json.loads(path.read_text())["seconds"] for path in paths) == list(range(10 * WRITERS))
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_a_name_that_another_process_takes_at_the_last_moment_is_left_to_it(tmp_path, links, monkeypatch):
    real = os.link

    def late(partial, path):
        if path.name == "quick.json":
            path.write_text("theirs")
        real(partial, path)

    monkeypatch.setattr(os, "link", late)
    assert files.write_new_json(tmp_path / "quick.json", {}).name == "quick-2.json"
    assert (tmp_path / "quick.json").read_text() == "theirs"
    with pytest.raises(FileExistsError, match=r"quick\.json exists; nothing is overwritten"):
        files.write_text(tmp_path / "quick.json", "ours", new=True)


def test_one_file_written_by_several_at_once_is_one_of_theirs(tmp_path):
    together(lambda number: files.write_text(tmp_path / "report.html", f"{number}\n" * 1000))
    lines = (tmp_path / "report.html").read_text().splitlines()
    assert len(lines) == 1000
    assert len(set(lines)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.slow
def test_a_page_that_was_drawn_without_a_card_of_the_meantime_is_drawn_again(tmp_path, monkeypatch):
    fabricated.write_run(tmp_path)
    real = run_page.gather

    def gather(workdir, **options):
        result = real(workdir, **options)
        if len(list((tmp_path / "results").iterdir())) == 1:
            fabricated.write_run(tmp_path, protocol="standard")
            run_page.write(tmp_path, cache_dir="")
        return result

    monkeypatch.setattr(run_page, "gather", gather)
    page = run_page.write(tmp_path, cache_dir="").read_text()
    assert "standard, linf" in page


def test_diagnoses_written_at_once_have_numbers_and_page_under_one_name(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis_page, "render", lambda found: str(found["seconds"]))
    (tmp_path / "diagnosis.html").write_text("somebody's")
    paths = together(lambda number: diagnose.write({"seconds": number}, tmp_path))
    assert len(set(paths)) == 10 * WRITERS
    for path in paths:
        assert json.loads(path.with_suffix(".json").read_text())["seconds"] == int(path.read_text())
    assert (tmp_path / "diagnosis.html").read_text() == "somebody's"


@pytest.mark.parametrize("content", [b"my notes\n", b"\xff\xfe binary", b"process of the trial\n"])
def test_a_file_called_lock_that_is_not_ours_is_left_as_it_is(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with (
        pytest.raises(ValueError, match="lock is not a lock of ltrobust, so it is not written to"),
        files.hold(tmp_path),
    ):
        pass
    assert (tmp_path / "lock").read_bytes() == content


def test_a_lock_that_a_dead_process_left_is_taken(tmp_path):
    for left in (b"", b"process 1 on another host\n"):
        (tmp_path / "lock").write_bytes(left)
        with files.hold(tmp_path), pytest.raises(ValueError, match=f"process {os.getpid()} on"), files.hold(tmp_path):
            pass
