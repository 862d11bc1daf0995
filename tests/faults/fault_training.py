"""Faults while a run trains, and between two starts of it."""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
from absl import logging
from injection import ALONE, ROOT, TINY, Place, Reported, fault, last_words
from sklearn import datasets

from ltrobust.analysis import cards
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.files import hold
from ltrobust.training import loop, teacher_student
from ltrobust.training.records import Records

STUDENT = "DIR/run/checkpoints/student"
BUSY = ("wait for it", "another folder")  # what to do about another process
WHOLE = "the same command ends with the same weights as a run that was never stopped"


def card(workdir: pathlib.Path) -> dict:
    (path,) = (workdir / "results").glob("validation*.json")
    return json.loads(path.read_text())


def weights(workdir: pathlib.Path) -> dict:
    """Hashes of the student's weights, from the card."""
    return {name: result["params_sha256"] for name, result in card(workdir)["networks"].items()}


def after_epoch(place: Place, act) -> None:
    """Calls `act(n)` after the n-th epoch's record, while the loop is running."""
    write, done = Records.write, []

    def write_and_act(self, record):
        write(self, record)
        done.append(record)
        act(len(done))

    place.patch.setattr(Records, "write", write_and_act)


def stopped(place: Place, *signals: signal.Signals) -> tuple[int, str]:
    """Status and message of a run that gets signals in its first epoch."""
    with place.patch.context() as patch:
        inner = dataclasses.replace(place, patch=patch)
        after_epoch(inner, lambda epoch: [os.kill(os.getpid(), sign) for sign in signals] if epoch == 1 else None)
        return inner.main(*ALONE)


def goes_on(place: Place) -> str:
    """Starts the same command again, to its end; checks its weights against a run that was never stopped."""
    status, text = place.main(*ALONE)
    assert status == 0, text
    assert weights(place.folder / "run") == weights(place.uninterrupted())
    return WHOLE


@fault("SIGTERM", "sent while an epoch trains", value=("SIGTERM", "student", "step 7 of 14"), remedy="same command")
def sigterm(place: Place) -> Reported:
    status, text = stopped(place, signal.SIGTERM)
    assert status == 75, text
    return Reported("exit status 75 after the current chunk", last_words(text))


@fault("SIGINT once", "sent while an epoch trains", value=("SIGINT", "student", "step 7 of 14"), remedy="same command")
def sigint(place: Place) -> Reported:
    status, text = stopped(place, signal.SIGINT)
    assert status == 75, text
    assert list((place.folder / "run" / "checkpoints" / "student").glob("[0-9]*"))
    return Reported("exit status 75 after the current chunk", last_words(text))


@fault("SIGINT twice", "sent while an epoch trains", value="interrupted", remedy="same command")
def sigint_twice(place: Place) -> Reported:
    status, text = stopped(place, signal.SIGINT, signal.SIGINT)
    assert status == 130, text
    return Reported("exit status 130 at once", last_words(text))


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
import conftest
import jax
from ltrobust.commands import main
from ltrobust.training import teacher_student, devices
from ltrobust.training.records import Records
real, make_mesh, done = Records.write, devices.make_mesh, []
devices.make_mesh = lambda given=None: make_mesh(given or jax.devices()[:1])
def write(self, record):
    real(self, record)
    if record["epoch"] == 2:
        with open({lines!r}, "a") as lines:
            lines.write('{{"epoch": 3, "pha')
        os.kill(os.getpid(), signal.SIGKILL)
Records.write = write
main.run()
"""


@fault("SIGKILL", "in the middle of a line of `metrics.jsonl`, before the epoch's checkpoint", value="", remedy="")
def sigkill(place: Place) -> Reported:
    code = KILLED.format(paths=[str(ROOT / "tests"), str(ROOT)], lines=str(place.folder / "run" / "metrics.jsonl"))
    words = [sys.executable, "-W", "ignore", "-c", code, *ALONE, f"--workdir={place.folder / 'run'}"]
    died = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=300)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    (place.folder / "run" / "lock").write_text("process 1 on another\n")
    return Reported(f"no message; {goes_on(place)}; the broken line is ended and skipped", "")


@fault("clock set back", "by a day, between a SIGTERM and the second start", value="", remedy="")
def clock_set_back(place: Place) -> Reported:
    status, text = stopped(place, signal.SIGTERM)
    assert status == 75, text
    real = time.time
    place.patch.setattr(time, "time", lambda: real() - 86400)
    return Reported(f"nothing: {goes_on(place)}", "")


@fault(
    "loss that is not finite",
    "`--config.student.optimizer.learning_rate=1e30`",
    value=("student", "not finite", "step 0 of 14", "nothing was saved"),
    remedy=("Lower student.optimizer.learning_rate", "student.optimizer.warmup_epochs", "new workdir"),
)
def diverged(place: Place) -> Reported:
    return place.refused(*ALONE, "--config.student.optimizer.learning_rate=1e30", writes=True)


@fault(
    "device out of memory while training",
    "the compiled step raises the runtime's RESOURCE_EXHAUSTED",
    value=("student", "1 device(s)", "(64)"),
    remedy=(
        "more devices",
        "new workdir",
        "student.accumulate=2",
        "lower student.batch_size",
        "model.dtype=bfloat16",
    ),
)
def out_of_memory(place: Place) -> Reported:
    def compile_chunk(settings, mesh):
        def chunk(*arguments):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

        return chunk

    place.patch.setattr(teacher_student, "run_phase", functools.partial(loop.run_phase, compile_chunk=compile_chunk))
    return place.refused(*ALONE, writes=True)


@fault(
    "disk full while recording",
    "`metrics.jsonl` is a link to `/dev/full`",
    value=("student's epoch 1", "DIR/run", "No space left on device"),
    remedy=("free space", "same command"),
)
def disk_full(place: Place) -> Reported:
    claim = workdirs.claim

    def claim_and_fill(workdir, config, **options):
        claim(workdir, config, **options)
        (workdir / "metrics.jsonl").symlink_to("/dev/full")

    place.patch.setattr(workdirs, "claim", claim_and_fill)
    status, text = run_without_looking(place)
    assert status == 1, text
    return Reported("exit status 1", last_words(text))


def run_without_looking(place: Place) -> tuple[int, str]:
    """`main` where a file of the folder cannot be read."""
    with place.patch.context() as patch:
        inner = dataclasses.replace(place, folder=place.folder / "nothing", patch=patch)
        return inner.main(*ALONE, workdir=place.folder / "run")


@fault(
    "second writer on a workdir",
    "another holder of the folder's lock",
    value=("DIR/run", "process N on HOST"),
    remedy=BUSY,
)
def second_writer(place: Place) -> Reported:
    workdir = place.finished()
    with hold(workdir):
        return place.refused(*TINY, workdir=workdir)


@fault(
    "other configuration in the same workdir",
    "`--config.seed=7` in the workdir of seed 0",
    value=("DIR/run", "seed: 0 -> 7"),
    remedy=("--workdir=DIR", "values on the left"),
)
def other_configuration(place: Place) -> Reported:
    return place.refused(*TINY, "--config.seed=7", workdir=place.finished())


@fault(
    "config.json damaged",
    "cut in the middle",
    value=("DIR/run/config.json", "damaged"),
    remedy=("copy of it", "another folder"),
)
def config_damaged(place: Place) -> Reported:
    file = place.finished() / "config.json"
    file.write_bytes(file.read_bytes()[:100])
    return place.refused(*TINY)


@fault(
    "read-only workdir of an earlier run",
    "opening the folder's `lock` raises PermissionError",
    value=("DIR/run cannot be written", "Permission denied"),
    remedy=("another folder", "writable"),
)
def read_only(place: Place) -> Reported:
    workdir, real = place.finished(), pathlib.Path.open

    def refuse(path, mode="r", *arguments, **options):
        if path.is_relative_to(workdir) and set(mode) & set("wa+x"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, mode, *arguments, **options)

    place.patch.setattr(pathlib.Path, "open", refuse)
    return place.refused(*TINY)


@fault(
    "checkpoint trained on other images",
    "the data set's last 100 training images have other labels now",
    value=(STUDENT, "59129f92b48b", "6f6734bef5a0"),
    remedy="copy of the data set that it was trained on",
)
def other_images(place: Place) -> Reported:
    workdir, real = place.finished(), datasets.load_digits()
    target = real.target.copy()
    target[900:1000] = np.roll(target[900:1000], 1)
    warnings.filterwarnings("ignore", message=".*other pixels", category=UserWarning)  # pytest undoes it
    place.patch.setattr(datasets, "load_digits", lambda: type(real)(images=real.images, target=target))
    return place.refused(*TINY, "--mode=evaluate", workdir=workdir)


@fault(
    "checkpoint of another network",
    "`--mode=evaluate --config.model.width=8` on a network of width 4",
    value=(STUDENT, "model.width: 4 -> 8"),
    remedy="configuration that made it",
)
def other_network(place: Place) -> Reported:
    return place.refused(*TINY, "--mode=evaluate", "--config.model.width=8", workdir=place.finished())


@fault(
    "teacher's checkpoints gone",
    "the folder is moved away before the student's run is started again",
    value=(STUDENT, "DIR/run/checkpoints/teacher is gone"),
    remedy=("Put it back", "ltrobust evaluate", "another workdir"),
)
def teacher_gone(place: Place) -> Reported:
    workdir = place.finished()
    (workdir / "checkpoints" / "teacher").rename(place.folder / "teacher")
    return place.refused(*TINY, workdir=workdir)


@fault(
    "workdir moved",
    "and evaluated from the new place, whose name has a space and letters beyond ASCII",
    value="",
    remedy="",
)
def moved(place: Place) -> Reported:
    (place.folder / "alt").mkdir()
    before = place.finished("alt/vorher")
    after = before.rename(place.folder / "später 後で")
    shutil.move(after / "results", place.folder / "alt" / "results")
    status, text = place.main(*TINY, "--mode=evaluate", workdir=after)
    assert status == 0, text
    (path,) = (after / "results").glob("*.json")
    (old,) = (place.folder / "alt" / "results").glob("*.json")
    there = json.loads(old.read_text())["networks"]
    here = json.loads(path.read_text())["networks"]
    assert here == {name: there[name] for name in here}
    return Reported("nothing: the same numbers, from the verdicts that are there", "")


@fault("eval.limit above the number of test images", "`--config.eval.limit=1000000`", value="", remedy="")
def limit_too_large(place: Place) -> Reported:
    workdir = place.finished()
    status, text = place.main(*TINY, "--mode=evaluate", "--config.eval.limit=1000000", workdir=workdir)
    assert status == 0, text
    newest = max((workdir / "results").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert json.loads(newest.read_text())["data"]["evaluated"] == 797  # all of them
    return Reported("all images are evaluated, and the card says how many", "")


@fault(
    "few validation images of a class",
    "a digit with 4 of them, and `--config.student.selection_floor=10`",
    value=("student", "rarest class: 4"),
    allowed="student.selection_floor: 10",
    remedy="",
)
def few_validation_images(place: Place) -> Reported:
    lines = []
    place.patch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    status, text = place.main(*ALONE, "--config.student.selection_floor=10")
    assert status == 0, text
    assert list(weights(place.folder / "run")) == ["student/last"]
    assert card(place.folder / "run")["selection_rule"].startswith("no weights")
    (line,) = [line for line in lines if "no weights are selected" in line]
    return Reported("exit status 0; last weights only, the card says so", line)


@fault(
    "longer run in the same workdir",
    "`--config.student.epochs=4` in the workdir of a run of 2",
    value=("DIR/run", "student.epochs: 2 -> 4"),
    remedy=(
        "--workdir=DIR",
        "values on the left",
        "--workdir=NEW",
        "--config.student.initialize=DIR/run",
        "--config.teachers.teacher.path=DIR/run/checkpoints/teacher",
    ),
)
def longer_run(place: Place) -> Reported:
    place.finished()
    return place.refused(*TINY, "--config.student.epochs=4")


@fault(
    "first weights that are not there",
    "`--config.student.initialize=nowhere`",
    value=("student.initialize", "'nowhere'"),
    allowed=("scratch", "teacher", "a workdir", "folder of checkpoints"),
    remedy="",
)
def no_first_weights(place: Place) -> Reported:
    return place.refused(*ALONE, "--config.student.initialize=nowhere")


@fault(
    "workdir with files of somebody else",
    "a folder that holds `notes.txt` and `results.csv`",
    value=("DIR/run", "notes.txt and 1 more"),
    allowed="config.json",
    remedy=("--workdir=DIR", "--adopt"),
)
def foreign_folder(place: Place) -> Reported:
    (place.folder / "run").mkdir()
    for name in ("notes.txt", "results.csv"):
        (place.folder / "run" / name).write_text("mine")
    return place.refused(*ALONE)


@fault(
    "file called `lock` that is not ours",
    "in a folder that is used with `--adopt`",
    value=("DIR/run", "lock"),
    allowed="config.json",
    remedy=("move them away", "another folder"),
)
def foreign_lock(place: Place) -> Reported:
    (place.folder / "run").mkdir()
    (place.folder / "run" / "lock").write_text("mine")
    reported = place.refused(*ALONE, "--adopt", writes=True)
    assert (place.folder / "run" / "lock").read_text() == "mine"
    return reported


@fault(
    "config.json of another program",
    'a folder whose `config.json` holds `{"layers": 12}`',
    value="DIR/run/config.json",
    allowed="configuration of a run",
    remedy="--workdir=DIR",
)
def foreign_configuration(place: Place) -> Reported:
    (place.folder / "run").mkdir()
    (place.folder / "run" / "config.json").write_text('{"layers": 12}')
    return place.refused(*ALONE)


@fault(
    "finished run without its checkpoints",
    "`--config.checkpoint.dir=DIR/nowhere` in a finished run's workdir",
    value=("DIR/run", "finished student phase", "DIR/nowhere/student"),
    remedy=("checkpoint.dir", "another workdir"),
)
def checkpoints_elsewhere(place: Place) -> Reported:
    return place.refused(*TINY, f"--config.checkpoint.dir={place.folder / 'nowhere'}", workdir=place.finished())


def page_of_cards(place: Place, happens: str, change) -> Reported:
    """The report of a finished run that has a second card, changed by `change`, beside its own."""
    workdir, warned = place.finished(), []
    place.patch.setattr(logging, "warning", lambda text, *values: warned.append(text % values))
    (path,) = (workdir / "results").glob("*.json")
    (workdir / "results" / "copy.json").write_text(change(path.read_text()))
    status, text = place.main(*TINY, "--mode=report", workdir=workdir)
    assert status == 0, text
    (line,) = warned
    return Reported(happens, line)


@fault(
    "card cut off",
    "a second card of a finished run ends in its middle; `--mode=report`",
    value=("copy.json is skipped", "DIR/run/results/copy.json", "damaged"),
    remedy=("copy of it", "another folder"),
)
def card_cut_off(place: Place) -> Reported:
    return page_of_cards(place, "the page is drawn without it and names it", lambda text: text[: len(text) // 2])


@fault(
    "card edited by hand",
    "one image less counts as right in a second card; `--mode=report`",
    value=("copy.json is skipped", "DIR/run/results/copy.json", "changed"),
    remedy=("evaluate again", "put back a copy"),
)
def card_edited(place: Place) -> Reported:
    def change(text: str) -> str:
        card = json.loads(text)
        card["networks"]["student/last"]["columns"]["clean"]["correct"][0] -= 1
        return json.dumps(card)

    return page_of_cards(place, "the page is drawn without it and names it", change)


@fault(
    "card with a number of images that cannot be",
    "a class of a second card has -5 training images, and its seal is right; `--mode=report`",
    value=("copy.json is skipped", "DIR/run/results/copy.json", "data.class_counts[0] is -5"),
    allowed="from 0 to 2^53 - 1",
    remedy="Put back a copy",
)
def card_of_negative_counts(place: Place) -> Reported:
    def change(text: str) -> str:
        card = json.loads(text)
        card["data"]["class_counts"][0] = -5
        return json.dumps(card | {"sha256": cards.seal(card)})

    return page_of_cards(place, "the page is drawn without it and names it", change)


@fault(
    "card of another run",
    "the card of a run with another seed lies beside a finished run's own; `--mode=report`",
    value=("copy.json is skipped", "card of another run", "seed: 0 -> 7"),
    remedy=("move it away",),
)
def card_of_another_run(place: Place) -> Reported:
    def change(text: str) -> str:
        card = json.loads(text)
        card["config"]["seed"] = 7
        return json.dumps(card | {"sha256": cards.seal(card)})

    return page_of_cards(place, "the page is drawn without it and names it", change)


@fault(
    "card of an earlier version",
    "a second card of a finished run has `card_version` 2; `--mode=report`",
    value=("copy.json is skipped", "card of version 2", "this is version 3"),
    remedy=("ltrobust evaluate",),
)
def card_of_an_earlier_version(place: Place) -> Reported:
    def change(text: str) -> str:
        return json.dumps(json.loads(text) | {"card_version": 2})

    return page_of_cards(place, "the page is drawn without it and names it", change)


@fault(
    "checkpoints of the two phases swapped",
    "`checkpoints/teacher` and `checkpoints/student` have changed names",
    value=(STUDENT, "teacher phase"),
    allowed="student phase",
    remedy="swapped",
)
def phases_swapped(place: Place) -> Reported:
    workdir = place.finished()
    saved = workdir / "checkpoints"
    for old, new in (("teacher", "other"), ("student", "teacher"), ("other", "student")):
        (saved / old).rename(saved / new)
    return place.refused(*TINY, "--mode=evaluate", workdir=workdir)
