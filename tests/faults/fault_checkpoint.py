"""Faults of checkpoints on disk."""

import json
import pathlib

import orbax.checkpoint as ocp
from injection import ALONE, TINY, Place, Told, fault, last_words


def newest(workdir: pathlib.Path) -> pathlib.Path:
    return max((workdir / "checkpoints" / "student").glob("[0-9]*"), key=lambda path: int(path.name))


@fault("checkpoint of a newer version", "`format` 99")
def newer(place: Place) -> Told:
    workdir = place.finished()
    (file,) = (newest(workdir) / "about").glob("metadata")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    return place.refused(*TINY, "--mode=evaluate", workdir=workdir)


@fault("disk full while saving", "orbax's `save` raises ENOSPC")
def disk_full(place: Place) -> Told:
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    place.patch.setattr(ocp.CheckpointManager, "save", full)
    status, text = place.main(*ALONE)
    return Told(f"exit status {status}", last_words(text))
