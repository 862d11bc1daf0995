"""Faults of checkpoints on disk."""

import json
import pathlib
import re

import orbax.checkpoint as ocp
from etils import epath
from injection import ALONE, TINY, Place, Reported, fault, last_words, run_main, unharmed

from ltrobust.training import checksums

STUDENT = "DIR/run/checkpoints/student"
FULL = ("No space left on device", "N MB were free", "about N MB")


def newest(workdir: pathlib.Path) -> pathlib.Path:
    folders = (workdir / "checkpoints" / "student").iterdir()
    return max((path for path in folders if path.name.isdigit()), key=lambda path: int(path.name))


def sound_run(place: Place, workdir: pathlib.Path, *arguments: str) -> Reported:
    """What `main.py` says of the checkpoint in a run that ends well; its weights are those of the finished run."""
    status, text = place.main(*TINY, *arguments, workdir=workdir)
    assert status == 0, text
    (line,) = [line for line in text.splitlines() if line.startswith("checkpoint ") and "damaged" in line]
    return Reported("the one before is used, and nothing is deleted", line)


@fault(
    "checkpoint cut off",
    "the largest file of arrays in the newest checkpoint ends in its middle; evaluation",
    value=(f"{STUDENT}/14", "weights/ocdbt.process_0/d/FILE", "SHA-256"),
    remedy=(f"{STUDENT}/7 is used instead", "kept as 14"),
)
def cut_off(place: Place) -> Reported:
    workdir = place.finished()
    file = largest(newest(workdir) / "weights" / "ocdbt.process_0" / "d")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return sound_run(place, workdir, "--mode=evaluate")


@fault(
    "checkpoint with a flipped bit",
    "in the middle of the same file; evaluation",
    value=(f"{STUDENT}/14", "weights/ocdbt.process_0/d/FILE", "SHA-256"),
    remedy=(f"{STUDENT}/7 is used instead", "kept as 14"),
)
def flipped(place: Place) -> Reported:
    workdir = place.finished()
    file = largest(newest(workdir) / "weights" / "ocdbt.process_0" / "d")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return sound_run(place, workdir, "--mode=evaluate")


@fault(
    "checkpoint without its metadata",
    "`about/metadata` of the newest checkpoint is moved away; training continues",
    value=(f"{STUDENT}/14", "about/metadata is missing"),
    remedy=(f"{STUDENT}/7 is used instead", "kept as 14.damaged"),
)
def without_metadata(place: Place) -> Reported:
    workdir = place.finished()
    (newest(workdir) / "about" / "metadata").rename(place.folder / "metadata")
    # The step is trained again, and its checkpoint written again beside the damaged one.
    with unharmed(workdir.parent, moved=(newest(workdir),)):
        status, text = run_main(place.patch, *TINY, f"--workdir={workdir}")
    assert status == 0, text
    assert list(newest(workdir).parent.glob("*.damaged"))
    (line,) = [line for line in text.splitlines() if line.startswith("checkpoint ") and "damaged" in line]
    return Reported("the steps since the one before are trained again, and nothing is deleted", line)


@fault(
    "all checkpoints damaged",
    "`SHA256SUMS` of each is moved away",
    value=(STUDENT, "14: SHA256SUMS", "1: SHA256SUMS"),
    remedy=("undamaged copy", "move that folder away"),
)
def all_damaged(place: Place) -> Reported:
    workdir = place.finished()
    for number, file in enumerate((workdir / "checkpoints" / "student").glob("*/SHA256SUMS")):
        file.rename(place.folder / str(number))
    return place.refused(*TINY, "--mode=evaluate", workdir=workdir)


@fault(
    "checkpoint of another version",
    "`format` 99",
    value=(f"{STUDENT}/14", "format 99"),
    allowed="reads 3",
    remedy=("version of ltrobust that wrote it", "another workdir"),
)
def newer(place: Place) -> Reported:
    workdir = place.finished()
    (file,) = (newest(workdir) / "about").glob("metadata")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    checksums.write(epath.Path(newest(workdir)))
    return place.refused(*TINY, "--mode=evaluate", workdir=workdir)


@fault(
    "disk full while saving",
    "writing raises ENOSPC, at every checkpoint",
    value=(f"{STUDENT}/14", *FULL),
    remedy=("Free space", "checkpoint.keep", "same command again"),
)
def disk_full(place: Place) -> Reported:
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    place.patch.setattr(ocp.CheckpointManager, "save", full)
    status, text = place.main(*ALONE)
    assert status == 1, text
    return Reported("said at each; training continues until the last one; exit status 1", free(last_words(text)))


@fault(
    "disk full for a while",
    "writing raises ENOSPC, at the first checkpoint only",
    value=(f"{STUDENT}/1", *FULL),
    remedy=("Free space", "checkpoint.keep", "Training continues"),
)
def disk_full_once(place: Place) -> Reported:
    save, calls = ocp.CheckpointManager.save, []

    def full_at_first(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return save(*arguments, **options)

    place.patch.setattr(ocp.CheckpointManager, "save", full_at_first)
    status, text = place.main(*ALONE)
    assert status == 0, text
    (line,) = [line for line in text.splitlines() if "could not be written" in line]
    return Reported("said; training continues and the next checkpoint makes up for it", free(line))


def largest(folder: pathlib.Path) -> pathlib.Path:
    """The largest file in a folder. Of arrays: how many files Orbax writes them to is a matter of time."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def free(text: str) -> str:
    """The message with numbers of megabytes that are the same on every machine."""
    return re.sub(r"[\d.]+ MB", "N MB", text)
