"""Faults of official archives: what is not an archive, hostile content, and content of other bytes than published."""

import gzip
import os
import struct
import tarfile

import numpy as np
import pytest
import python2
from injection import Place, Reported, fault

from ltrobust.commands import data, parser
from ltrobust.data import sources

MEMBERS = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")


def load(place: Place, name: str, split: str = "test") -> sources.Split:
    return sources.load(name, split, data_dir=place.folder, cache_dir="")


def refused(place: Place, name: str) -> Reported:
    return place.raised(ValueError, lambda: load(place, name))


@fault(
    "web page in place of an archive",
    "a server's login page saved as `stl10_binary.tar.gz`",
    value=("DIR/stl10_binary.tar.gz", "a web page"),
    allowed="SHA-256 SHA",
    remedy=("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "into DIR", "ltrobust data stl10"),
)
def web_page(place: Place) -> Reported:
    (place.folder / "stl10_binary.tar.gz").write_bytes(b"<!DOCTYPE html>\n<html>Please log in</html>")
    return refused(place, "stl10")


@fault(
    "Git LFS pointer in place of an archive",
    "a clone without `git lfs pull`",
    value=("DIR/cifar-100-python.tar.gz", "a Git LFS pointer"),
    remedy=("git lfs pull", "ltrobust data cifar100"),
)
def pointer(place: Place) -> Reported:
    (place.folder / "cifar-100-python.tar.gz").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    return refused(place, "cifar100")


@fault(
    "pickle that would run a command",
    "a `test_batch` that names `os.system`",
    value=("DIR/cifar-10-batches-py", "test_batch", "posix.system", "which is not called"),
    remedy="ltrobust data cifar10",
)
def hostile_pickle(place: Place) -> Reported:
    sound = python2.dumps({"labels": [0], "data": np.zeros((1, 3072), np.uint8)})
    hostile = b"\x80\x02c" + os.system.__module__.encode() + b"\nsystem\nU\x05touchq\x00\x85R."
    folder = place.folder / "cifar-10-batches-py"
    folder.mkdir()
    for member in MEMBERS:
        (folder / member).write_bytes(hostile if member == "test_batch" else sound)
    return refused(place, "cifar10")


@fault(
    "link in an archive",
    "`test_batch.bin` is a symbolic link in `cifar-10-binary.tar.gz`",
    value=("DIR/cifar-10-binary.tar.gz", "test_batch.bin", "a link"),
    remedy="ltrobust data cifar10",
)
def link(place: Place) -> Reported:
    with tarfile.open(place.folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    return refused(place, "cifar10")


@fault(
    "archive that would fill the memory",
    "a member of 1 TB in the header of `cifar-10-binary.tar.gz`",
    value=("DIR/cifar-10-binary.tar.gz", "1,000,000,000,000"),
    allowed="250,000,000",
    remedy="ltrobust data cifar10",
)
def bomb(place: Place) -> Reported:
    entry = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    entry.size = 10**12
    with tarfile.open(place.folder / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.fileobj.write(entry.tobuf())
        archive.fileobj.write(bytes(10_000))
    return refused(place, "cifar10")


@fault(
    "archive with another checksum",
    "MNIST's four files with 30 images in them",
    value=("train-images-idx3-ubyte.gz is not the published file", "30 of 60,000 train images"),
    allowed="published 9,912,422",
    remedy="",
)
def other_checksum(place: Place) -> Reported:
    for part in ("train", "t10k"):
        images, labels = struct.pack(">4I", 0x0803, 30, 28, 28), struct.pack(">2I", 0x0801, 30)
        for name, content in (
            ("images-idx3", images + bytes(30 * 784)),
            ("labels-idx1", labels + bytes(number % 10 for number in range(30))),
        ):
            (place.folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.warns(UserWarning, match="not the published file") as caught:
        load(place, "mnist", "train")
    return Reported("continues; the card has the note", str(caught[0].message))


@fault(
    "ImageNet's validation images without their labels",
    "only `ILSVRC2012_img_val.tar`",
    value="only ILSVRC2012_img_val.tar",
    allowed="ILSVRC2012_devkit_t12.tar.gz",
    remedy=("into DIR", "ltrobust data imagenet"),
)
def no_devkit(place: Place) -> Reported:
    (place.folder / "ILSVRC2012_img_val.tar").write_bytes(b"")
    return place.raised(FileNotFoundError, lambda: load(place, "imagenet"))


@fault(
    "unknown data set in `ltrobust data`",
    "`ltrobust data cifar`",
    value="'cifar'",
    allowed=("data sets", "cifar100"),
    remedy="did you mean cifar10?",
)
def unknown_name(place: Place) -> Reported:
    return place.raised(parser.UsageError, lambda: data.main(["cifar"], "ltrobust data"))
