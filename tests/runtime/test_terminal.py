"""Progress without a terminal: whole lines with a time, and not one for each update."""

import io
import re
import sys
import time

from ltrobust.runtime import terminal
from ltrobust.runtime.terminal import Progress
from ltrobust.training.progress import Dispatches

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def test_hundreds_of_updates_are_one_line(capsys):
    with Progress("decoding", 1000, "images") as progress:
        for _ in range(1000):
            progress.update(1)
    shown = capsys.readouterr().err
    assert re.fullmatch(STAMP + "decoding: 1,000 of 1,000 images\n", shown)


def test_long_work_says_now_and_then_how_far_it_is(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with Progress("decoding", 7200, "images", 600) as progress:
        for _ in range(6600):
            now[0] += 1  # an image a second, for almost two hours
            progress.update(1, "so far so good")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(STAMP + "decoding: 605 of 7,200 images, 1 images/s, 1.8 h left, so far so good", lines[0])
    assert "decoding: 610 of" in lines[1]
    assert 6000 / 60 < len(lines) < 200
    assert re.search(r", 1 images/s, \d\d? s left", lines[-2])
    assert lines[-1].endswith("decoding: 7,200 of 7,200 images, so far so good")


def test_time_left_leaves_out_the_time_before_the_first_is_done(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with Progress("student", 100, "images") as progress:
        now[0] += 50
        progress.update(10)
        now[0] += 10
        progress.update(20)
    shown = capsys.readouterr().err
    assert "student: 30 of 100 images, 2 images/s, 35 s left" in shown
    assert "\r" not in shown


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "live", lambda: True)
    with Progress("decoding", 3, "images") as progress:
        progress.update(3)
    assert "3/3" in capsys.readouterr().err


def test_training_prints_one_plain_line_for_each_epoch_and_at_most_one_a_second(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with Dispatches("student", 20, 0, 8) as progress:
        for epoch in (1, 2):
            for _ in range(5):
                with progress.dispatch(2):
                    now[0] += 0.5
            progress.end_epoch(f"epoch {epoch}, loss 1.000")
            progress.end_epoch(f"epoch {epoch}, again")
    shown = capsys.readouterr().err
    assert "\r" not in shown
    lines = shown.splitlines()
    assert re.fullmatch(STAMP + "student: compiling the training step ...", lines[0])
    assert re.fullmatch(STAMP + "student: 80 of 160 images, 32 images/s, 2 s left, epoch 1, loss 1.000", lines[2])
    assert re.fullmatch(STAMP + "student: 160 of 160 images, epoch 2, loss 1.000", lines[3])
    assert len(lines) == 5  # the last one shows the last note


def test_a_bar_of_training_is_closed_and_its_rate_leaves_compiling_out(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "live", lambda: True)
    compiled = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: compiled)  # asked when the first step is done; the bar has its own clock
    with Dispatches("student", 4, 0, 8) as progress:
        for _ in range(2):
            with progress.dispatch(2):
                pass
        progress.end_epoch("epoch 1")
    said, shown = capsys.readouterr()
    assert "student: compiled; the first step was done after" in said
    assert shown.endswith("\n")
    last = shown.rstrip().split("\r")[-1]
    assert re.search(r"32/32 \[1:00:0\d<00:00, .*epoch 1\]", last), last


def test_where_nothing_is_to_be_shown_nothing_is(capsys):
    with Dispatches("student", 4, 0, 8, silent=True) as progress:
        for _ in range(2):
            with progress.dispatch(2):
                pass
        progress.end_epoch("epoch 1")
    assert capsys.readouterr() == ("", "")
    assert progress.longest > 1  # dispatches grow all the same


def test_characters_that_an_encoding_lacks_are_escaped_and_other_streams_left_alone(monkeypatch):
    ascii_only, foreign = io.TextIOWrapper(io.BytesIO(), encoding="ascii"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", foreign)  # as a notebook has it
    monkeypatch.setattr(sys, "stderr", ascii_only)
    terminal.accept_all_characters()
    print("±", file=sys.stderr, flush=True)
    print("±")
    assert ascii_only.buffer.getvalue() == b"\\xb1\n"
    assert foreign.getvalue() == "±\n"
