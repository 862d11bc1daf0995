"""Faults of data sets on disk and of their cache."""

import io
import json
import os
import shutil
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable

import digits_folder
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import logging
from injection import ALONE, TINY, Place, Reported, fault
from PIL import Image
from prepared import png, prepare

from ltrobust.data import identity, run_data, sources

LABEL = tfds.features.ClassLabel(num_classes=10)
# Remedies that several messages have.
CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MNIST = (
    "Remove that folder",
    "t10k-labels-idx1-ubyte.gz",
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "into DIR/données 1",
)
LAYOUT = ("train/CLASS/IMAGE", "test/CLASS/IMAGE")
SKIP = ("remove them", "--config.data.skip_unreadable=True")


def mnist(place: Place):
    """A prepared folder, in a path with a space and letters beyond ASCII, with 30 invented MNIST test images."""
    pixels = np.random.RandomState(0).randint(0, 256, (30, 28, 28)).astype(np.uint8)
    examples = [{"image": png(image), "label": index % 10} for index, image in enumerate(pixels)]
    features = {"image": tfds.features.Image(shape=(28, 28, 1)), "label": LABEL}
    prepare("mnist", features, examples, place.folder / "données 1", "array_record")
    return place.folder / "données 1"


def load(place: Place, data_dir) -> sources.Split:
    warnings.filterwarnings("ignore", message=".*partial copy", category=UserWarning)  # pytest undoes it
    return sources.load("mnist", "test", data_dir=data_dir, cache_dir=place.folder / "cache à part")


def loaded_again(place: Place, damage: Callable) -> str:
    """What is warned of when the same images are loaded again after the cache file was damaged."""
    lines = []
    place.patch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    data_dir = mnist(place)
    first = load(place, data_dir)
    (file,) = (place.folder / "cache à part").iterdir()
    damage(file)
    second = load(place, data_dir)
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    return "; ".join(lines).replace(file.name, "FILE")


@fault(
    "data directory missing",
    "`--config.data.name=cifar10 --config.data.dir=DIR/nowhere`",
    value=("DIR/nowhere is not a folder", "cifar10"),
    remedy=(CIFAR10, "SHA-256 SHA", "into DIR/nowhere"),
)
def no_data_dir(place: Place) -> Reported:
    return place.refused(*TINY, "--config.data.name=cifar10", f"--config.data.dir={place.folder / 'nowhere'}")


@fault(
    "data directory that is a file",
    "`--config.data.name=cifar10 --config.data.dir=DIR/cifar-10-binary.tar.gz`",
    value=("data_dir DIR/cifar-10-binary.tar.gz", "a file"),
    allowed="folder that holds it: DIR",
    remedy="",
)
def data_dir_is_a_file(place: Place) -> Reported:
    file = place.folder / "cifar-10-binary.tar.gz"
    file.write_bytes(b"")
    return place.refused(*TINY, "--config.data.name=cifar10", f"--config.data.dir={file}")


@fault(
    "data not prepared",
    "`--config.data.name=cifar10 --config.data.dir=DIR`, an empty folder",
    value=("DIR has neither archive", "cifar10"),
    remedy=(CIFAR10, "SHA-256 SHA", "into DIR"),
)
def no_data(place: Place) -> Reported:
    return place.refused(*TINY, "--config.data.name=cifar10", f"--config.data.dir={place.folder}")


@fault("cache missing", "the decoded copy is moved away between two starts", value="", remedy="")
def cache_missing(place: Place) -> Reported:
    warned = loaded_again(place, lambda file: file.rename(place.folder / "gone"))
    return Reported("decoded again: the same images", warned)


@fault("cache damaged", "cut in the middle", value=("DIR/cache à part/FILE", "BadZipFile"), remedy="decoding again")
def cache_cut(place: Place) -> Reported:
    warned = loaded_again(place, lambda file: file.write_bytes(file.read_bytes()[:5000]))
    return Reported("decoded again: the same images", warned)


@fault(
    "cache with a wrong checksum",
    "one pixel changed, in a valid archive",
    value=("DIR/cache à part/FILE", "checksum"),
    remedy="decoding again",
)
def cache_checksum(place: Place) -> Reported:
    def damage(file):
        with np.load(file) as archive:
            arrays = dict(archive)
        arrays["images"][0, 0, 0, 0] ^= 1
        np.savez(file, **arrays)

    return Reported("decoded again: the same images", loaded_again(place, damage))


@fault(
    "data set with a wrong checksum",
    "CIFAR-10 records with other labels",
    value=("test of DIR", "cifar10", "20 labels have SHA-256 SHA"),
    allowed="official ones SHA",
    remedy=("another copy", "ltrobust data cifar10"),
)
def relabelled(place: Place) -> Reported:
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL, "id": tfds.features.Text()}
    image = png(np.zeros((32, 32, 3), np.uint8))
    examples = [{"image": image, "label": index % 10, "id": f"test_{index:05d}"} for index in range(20)]
    prepare("cifar10", features, examples, place.folder, "array_record")
    return place.raised(ValueError, lambda: sources.load("cifar10", "test", data_dir=place.folder, cache_dir=""))


@fault(
    "half-downloaded archive",
    "the first half of a `tiny-imagenet-200.zip`",
    value=("DIR/tiny-imagenet-200.zip", "not a zip file"),
    allowed="90528d7ca1a48142e341f4ef8d21d0de",
    remedy="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
)
def half_archive(place: Place) -> Reported:
    file = place.folder / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "n01\n" * 1000)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return place.refused(*TINY, "--config.data.name=tiny_imagenet", f"--config.data.dir={place.folder}")


@fault(
    "archive cut off",
    "the first half of a `cifar-10-binary.tar.gz`",
    value=("DIR/cifar-10-binary.tar.gz", "cifar10", "EOFError"),
    allowed="SHA-256 SHA",
    remedy=(CIFAR10, "into DIR"),
)
def half_cifar(place: Place) -> Reported:
    file = place.folder / "cifar-10-binary.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        entry = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        entry.size = 30730
        archive.addfile(entry, io.BytesIO(np.random.RandomState(0).bytes(entry.size)))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return place.refused(*TINY, "--config.data.name=cifar10", f"--config.data.dir={place.folder}")


@fault(
    "partial copy",
    "an `mnist` of 30 images",
    value=("DIR/données 1", "30 of 10,000 test images", "3 to 3 per class"),
    allowed="892 to 1135",
    remedy="",
)
def partial_copy(place: Place) -> Reported:
    data_dir = mnist(place)
    with pytest.warns(UserWarning, match="partial copy") as caught:
        result = sources.load("mnist", "test", data_dir=data_dir, cache_dir="")
    assert result.claim == "not the complete official data"
    return Reported("continues; the card has the note", str(caught[0].message))


@fault(
    "other pixels under official labels",
    "CIFAR-10 with one pixel changed",
    value="3e1e84abf668",
    allowed="official e54a434ec350",
    remedy="not those of the official data",
)
def other_pixels(place: Place) -> Reported:
    shape, labels = (10000, 2, 2, 1), np.repeat(np.arange(10), 1000)
    result = identity.identify(
        "cifar10", "test", np.zeros(shape, np.uint8), labels, official_labels=labels, num_classes=10
    )
    return Reported("continues; warned, and the card has the note", result.notes[0])


@fault(
    "records cut off",
    "the first half of an ArrayRecord file",
    value=("DIR/données 1/mnist/3.0.1", "ValueError"),
    remedy=MNIST,
)
def half_records(place: Place) -> Reported:
    data_dir = mnist(place)
    (file,) = data_dir.glob("mnist/*/*test.array_record*")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return place.raised(ValueError, lambda: load(place, data_dir))


@fault(
    "records of another version",
    "the folder `3.0.1` is named `1.0.0`",
    value="DIR/données 1/mnist/3.0.1 has no prepared mnist",
    remedy=MNIST[1:],
)
def other_version(place: Place) -> Reported:
    data_dir = mnist(place)
    (folder,) = (data_dir / "mnist").iterdir()
    folder.rename(folder.with_name("1.0.0"))
    return place.raised(FileNotFoundError, lambda: load(place, data_dir))


@fault(
    "dataset_info.json cut off",
    "the first half of the file",
    value=("DIR/données 1/mnist", "Failed to load JSON"),
    remedy=MNIST,
)
def half_info(place: Place) -> Reported:
    data_dir = mnist(place)
    (file,) = data_dir.glob("mnist/*/dataset_info.json")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return place.raised(ValueError, lambda: load(place, data_dir))


def own_images(place: Place):
    """A folder of one's own: two classes of three images, in two splits."""
    images = digits_folder.write(place.folder / "own", [3, 3], test=3)
    return images, [f"--config.data.{key}" for key in ("name=folder", f"dir={images}", "image_size=8", "cache_dir=")]


@fault(
    "folder without a test split",
    "`--config.data.name=folder`, whose folders are `train` and `holdout`",
    value=("data.dir DIR/own", "DIR/own/holdout"),
    allowed="test or val",
    remedy=LAYOUT,
)
def no_test_split(place: Place) -> Reported:
    images, flags = own_images(place)
    (images / "test").rename(images / "holdout")
    return place.refused(*TINY, *flags)


@fault(
    "folder of images that is not there",
    "`--config.data.name=folder --config.data.dir=DIR/nowhere`",
    value="data.dir DIR/nowhere",
    allowed=LAYOUT,
    remedy="",
)
def no_folder(place: Place) -> Reported:
    flags = [f"--config.data.{key}" for key in ("name=folder", f"dir={place.folder / 'nowhere'}", "image_size=8")]
    return place.refused(*TINY, *flags)


@fault(
    "folder whose splits have other classes",
    "a directory in `test` has another name than in `train`",
    value=("DIR/own/train: digit 1", "DIR/own/test: one"),
    allowed="same classes",
    remedy=LAYOUT,
)
def other_classes(place: Place) -> Reported:
    images, flags = own_images(place)
    (images / "test" / "digit 1").rename(images / "test" / "one")
    return place.refused(*TINY, *flags)


@fault(
    "class directory without images",
    "all files of a class have the suffix `.txt`",
    value=("digit 1", "DIR/own/train/digit 1", "3 skipped"),
    allowed=(".jpg", ".png"),
    remedy=("put some there", "remove the class"),
)
def no_images(place: Place) -> Reported:
    images, flags = own_images(place)
    for file in (images / "train" / "digit 1").iterdir():
        file.rename(file.with_suffix(".txt"))
    return place.refused(*TINY, *flags)


@fault(
    "image file cut off",
    "the first 50 bytes of a PNG file in a class directory",
    value=("1 of 6 images", "DIR/own/train", "train/digit 0/0001.png", "truncated"),
    remedy=SKIP,
)
def half_image(place: Place) -> Reported:
    images, flags = own_images(place)
    file = images / "train" / "digit 0" / "0001.png"
    file.write_bytes(file.read_bytes()[:50])
    return place.refused(*TINY, *flags)


@fault(
    "image with 16 bits per channel",
    "an RGB PNG file with values 0 to 191 of 65535",
    value=("1 of 6 images", "DIR/own/train", "train/digit 0/0001.png", "16 bits"),
    allowed="only 8 bits",
    remedy=("convert the file", *SKIP),
)
def deep_image(place: Place) -> Reported:
    images, flags = own_images(place)
    rows = b"".join(
        b"\0" + bytes(byte for value in range(row, row + 24) for byte in (0, value)) for row in range(0, 192, 24)
    )
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    (images / "train" / "digit 0" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return place.refused(*TINY, *flags)


@fault(
    "picture in the transparency only",
    "an RGBA PNG file of one colour, whose alpha channel varies",
    value=("1 of 6 images", "train/digit 0/0001.png", "transparency"),
    remedy=("on a background", *SKIP),
)
def alpha_only(place: Place) -> Reported:
    images, flags = own_images(place)
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 3] = np.arange(64).reshape(8, 8)
    Image.fromarray(pixels).save(images / "train" / "digit 0" / "0001.png")
    return place.refused(*TINY, *flags)


@fault(
    "images that decode to one colour",
    "four of six images are black",
    value=("4 of 6 images", "DIR/own/train", "[0, 0, 0]"),
    remedy="8-bit RGB or grey",
)
def black_images(place: Place) -> Reported:
    images, flags = own_images(place)
    for number in range(4):
        Image.new("L", (8, 8)).save(images / "train" / f"digit {number // 2}" / f"000{number % 2}.png")
    return place.refused(*TINY, *flags)


@fault(
    "image files left out",
    "one is cut off, one is empty, with `--config.data.skip_unreadable=True`",
    value=("2 files", "train/digit 0/0001.png", "truncated", "train/digit 1/0002.png", "empty file"),
    remedy="skipped",
)
def skipped_images(place: Place) -> Reported:
    images, _ = own_images(place)
    file = images / "train" / "digit 0" / "0001.png"
    file.write_bytes(file.read_bytes()[:50])
    (images / "train" / "digit 1" / "0002.png").write_bytes(b"")
    return counted(images, [2, 2], skip_unreadable=True)


@fault(
    "links in a folder",
    "one leads nowhere, one to a folder above it, one to a folder of three images",
    value=("dangling link: train/digit 0/gone.png", "folder above: train/digit 0/up"),
    remedy="skipped",
)
def links(place: Place) -> Reported:
    images, _ = own_images(place)
    (images / "train" / "digit 0").rename(place.folder / "elsewhere")
    (images / "train" / "digit 0").mkdir()
    for name, target in (("gone.png", "nowhere"), ("up", ".."), ("linked", place.folder / "elsewhere")):
        (images / "train" / "digit 0" / name).symlink_to(target)
    return counted(images, [3, 3])


@fault(
    "what other programs leave in a folder",
    "`.ipynb_checkpoints/x.png`, `@eaDir/x.png` and `Thumbs.db` in a class directory",
    value=(
        "hidden: train/digit 0/.ipynb_checkpoints/x.png",
        "2 files",
        "train/digit 0/@eaDir/x.png",
        "train/digit 0/Thumbs.db",
    ),
    remedy="skipped",
)
def left_behind(place: Place) -> Reported:
    images, _ = own_images(place)
    for name in (".ipynb_checkpoints/x.png", "@eaDir/x.png", "Thumbs.db"):
        file = images / "train" / "digit 0" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((images / "train" / "digit 0" / "0000.png").read_bytes())
    return counted(images, [3, 3])


@fault(
    "class name that is no text",
    "bytes that are no UTF-8, and a control character",
    value="caf\\xe9 \\x1b[31m",
    remedy="",
)
def odd_name(place: Place) -> Reported:
    images, _ = own_images(place)
    for part in ("train", "test"):
        (images / part / "digit 0").rename(images / part / os.fsdecode(b"caf\xe9 \x1b[31m"))
    return Reported("continues; terminal, card and page have escapes", sources_of(images).class_names[0])


def sources_of(images, **options) -> sources.Split:
    return sources.load("folder", "train", data_dir=images, cache_dir="", image_size=8, **options)


def counted(images, used: list[int], **options) -> Reported:
    """What is noted of a folder that is used."""
    with warnings.catch_warnings(action="ignore"):  # the notes that call for something to be done
        result = sources_of(images, **options)
    assert result.files["used"] == used
    return Reported("continues; the terminal and the card have the counts", "; ".join(result.notes))


@fault(
    "test images that are training images",
    "a `test` folder that is a copy of `train`",
    value=("4 test images", "4 copies", "test/digit 0/0000.png of train/digit 0/0000.png"),
    allowed="6 training images",
    remedy="",
)
def copied_test(place: Place) -> Reported:
    images, flags = own_images(place)
    (images / "test").rename(place.folder / "test before")
    shutil.copytree(images / "train", images / "test")
    settings = ("data.imbalance_ratio=0.0", "data.validation_fraction=0.0", "student.batch_size=6")
    status, text = place.main(*ALONE, *flags, *(f"--config.{setting}" for setting in settings))
    assert status == 0, text
    card = json.loads((place.folder / "run" / "results" / "validation.json").read_text())
    warning = card["data"]["overlap"]["warnings"][-1]
    assert f"warning: {warning}." in text
    return Reported("continues; warned, and the card and the page have the counts", warning)


@fault(
    "class without training images",
    "data set of 3 classes, images of 2",
    value=("digits", "class 1 (b)"),
    allowed="every class needs some",
    remedy="",
)
def empty_class(place: Place) -> Reported:
    labels = np.repeat([0, 2], 20)
    source = sources.Split("digits", "train", np.zeros((40, 8, 8, 1), np.uint8), labels, ("a", "b", "c"))
    return place.raised(ValueError, lambda: split(source))


@fault(
    "validation part without some classes",
    "10, 8 and 4 images, of which `validation_cap` 0.2 spares 2, 1 and 0",
    value=("1 of 3 classes", ": c;"),
    remedy="raise data.validation_cap",
)
def small_validation(place: Place) -> Reported:
    lines = []
    place.patch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    labels = np.repeat([0, 1, 2], [10, 8, 4])
    source = sources.Split("digits", "train", np.zeros((22, 8, 8, 1), np.uint8), labels, ("a", "b", "c"))
    made = split(source)
    assert made.notes
    assert made.notes[0] in lines[0]
    return Reported("continues; the card has the note", lines[0])


def split(source: sources.Split) -> run_data.RunData:
    """Validation by the values of `configs/default.py`."""
    return run_data.make_run_data(
        source,
        imbalance_ratio=2.5,
        profile="exp",
        seed=0,
        validation_fraction=0.05,
        validation_floor=10,
        validation_cap=0.2,
    )
