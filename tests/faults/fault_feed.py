"""Faults of images that are read on the host while a phase trains."""

import warnings

import listed
import numpy as np
from injection import ALONE, TINY, Place, Reported, fault, last_words, run_main

from ltrobust.data import loader


def listed_images(place: Place) -> list[str]:
    """Flags of an image list: three classes, with 40 training images and two test images each."""
    lists = listed.write(place.folder, train=[40, 40, 40], test=[2, 2, 2])
    keys = {"name": "image_list", "dir": place.folder, "image_size": 8, "validation_fraction": 0, "workers": 1}
    keys |= {f"lists.{part}": file for part, file in lists.items()}
    return [f"--config.data.{key}={value}" for key, value in keys.items()]


@fault(
    "unknown place for training images",
    "`--config.data.residence=gpu`",
    value="data.residence is 'gpu'",
    allowed="auto, device, host",
    remedy="",
)
def unknown_residence(place: Place) -> Reported:
    return place.refused(*TINY, "--config.data.residence=gpu")


@fault(
    "image list that is to be kept on the devices",
    "`--config.data.residence=device` with an image list",
    value="data.residence is 'device'",
    remedy="use 'auto' or 'host'",
)
def files_on_devices(place: Place) -> Reported:
    return place.refused(*ALONE, *listed_images(place), "--config.data.residence=device")


@fault(
    "corrupt JPEG in the middle of an epoch",
    "one file of an image list is cut off; a worker process finds it",
    value=("train/n1/002.jpg", "OSError"),
    remedy=("Mend", "--config.data.skip_unreadable=True", "new workdir"),
)
def corrupt_while_training(place: Place) -> Reported:
    flags = listed_images(place)
    flags += ["--config.data.imbalance_ratio=0"]
    file = place.folder / "train/n1/002.jpg"
    content = file.read_bytes()
    listed.truncate(file)
    reported = place.refused(*ALONE, *flags, writes=True)
    # Each remedy leads to a run that comes to its end; in the same workdir it would be refused.
    with warnings.catch_warnings(action="ignore"):
        skip = place.main(*ALONE, *flags, "--config.data.skip_unreadable=True", workdir=place.folder / "skipped")
    assert skip[0] == 0, skip
    file.write_bytes(content)
    mended = place.main(*ALONE, *flags, workdir=place.folder / "mended")
    assert mended[0] == 0, mended
    return reported


@fault(
    "disk that fails in the middle of an epoch",
    "reading one file of an image list gives EIO; a worker process meets it",
    value=("Input/output error", "train/n1/004.jpg"),
    remedy=("Look at the disk", "give the same command again"),
)
def failing_disk(place: Place) -> Reported:
    flags = [*listed_images(place), "--config.data.imbalance_ratio=0"]
    listed.fail(place.folder / "train/n1/004.jpg")  # not one whose ends are looked into at the start
    before, workdir = set(place.folder.rglob("*")), place.folder / "run"
    # Not `place.refused`, which reads all files.
    status, text = run_main(place.patch, *ALONE, *flags, f"--workdir={workdir}")
    assert status == 1, (status, text)
    assert before <= set(place.folder.rglob("*"))
    assert (workdir / "config.json").exists()  # training had begun
    return Reported("exit status 1", last_words(text))


@fault(
    "worker process that is killed",
    "SIGKILL for a process that decodes images",
    value=("a process that decodes images", "exit code -9"),
    remedy=("lower data.workers", "The same command resumes"),
)
def killed_worker(place: Place) -> Reported:
    images = listed.Deadly(str(place.folder), ("a.jpg",), np.ones(1, np.int64), 8, 8)
    visits = loader.Visits(np.zeros((1, 1), np.int32))
    return place.raised(ChildProcessError, lambda: next(loader.read(images, visits, workers=1)))
