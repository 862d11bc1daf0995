"""Official archives of CIFAR, MNIST, SVHN, STL-10 and Tiny-ImageNet, read where they lie, in their own order.

Nothing is prepared or unpacked on disk: images go from the archive into the cache (`cache.py`). The folder that an
archive unpacks to is read as well.
"""

import dataclasses
import gzip
import hashlib
import os
import pathlib
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping

from absl import logging

from ltrobust.data import archive_formats, cache, tiny_imagenet
from ltrobust.data.archive_formats import Arrays

# Ends `cache.Entry.source` of images from archives with the published checksums.
PUBLISHED = "published archive"
# Where archives are looked for in `data_dir`, in this order.
_PLACES = ("", "downloads/manual")


@dataclasses.dataclass(frozen=True)
class File:
    """A published file: where it is from, its bytes, and its checksum as `sha256:<hex>` or `md5:<hex>`."""

    url: str
    size: int
    checksum: str

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rpartition("/")[2]

    def is_published(self, path: pathlib.Path) -> bool:
        """Whether a file on disk has this size and checksum."""
        kind, _, expected = self.checksum.partition(":")
        if path.stat().st_size != self.size and self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, kind).hexdigest() == expected


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a data set is published.

    Attributes:
      files: all of them are needed.
      folder: what the only file unpacks to; empty where files are read as they are.
      members: the files in that folder that are read.
      read: images, labels and class names from the members' bytes and a split (`archive_formats.py`); None for
        Tiny-ImageNet, which has its own module.
      other: a common form of the same data that is not read.
    """

    files: tuple[File, ...]
    read: Callable[[Mapping[str, bytes], str], Arrays] | None = None
    folder: str = ""
    members: tuple[str, ...] = ()
    other: str = ""


def load(name: str, split: str, *, data_dir: pathlib.Path, cache_root: pathlib.Path | None) -> tuple[cache.Entry, str]:
    """The arrays of one split, in the archive's order, and which copy they are from, in words.

    Reading one split also checks that the other is there.

    Args:
      name: one of `NAMES`.
      split: `train` or `test`.
      data_dir: the folder that holds the archives; it is only read.
      cache_root: where decoded images are kept, or None.

    Raises:
      FileNotFoundError: an archive is missing; the message says what to get and where to put it.
      ValueError: damaged archives, or files in them of another form.
    """
    paths = find(name, data_dir)
    if name == "tiny_imagenet":
        fingerprint = tiny_imagenet.fingerprint(paths[0])
    else:
        files = [path / member for path in paths for member in LAYOUTS[name].members] if paths[0].is_dir() else paths
        fingerprint = cache.fingerprint_files(files, form=f"reader {archive_formats.VERSION}", check="sample")
    file = None
    if cache_root is not None:
        file = cache.entry_path(cache_root, f"{name}-archive-{split}", paths[0])
        if (entry := cache.read(file, fingerprint)) is not None:
            return entry, f"decoded copy {file}"
    logging.info("Reading %s from %s, once.", name, paths[0])
    images, labels, class_names = _read(name, split, paths, data_dir)
    entry = cache.Entry(images, labels, class_names, f"{name} {split}{_origin(name, paths)}", fingerprint)
    return entry, cache.NO_COPY if file is None else cache.write(file, entry)


def find(name: str, data_dir: pathlib.Path) -> list[pathlib.Path]:
    """The archives of a data set, or the folder that its archive unpacks to.

    Raises:
      FileNotFoundError: not all of them are there.
    """
    if data_dir.is_file():
        raise FileNotFoundError(f"data_dir {data_dir} is a file; give the folder that holds it: {data_dir.parent}.")
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"data_dir {data_dir} is no folder, so {name} is not there. {how_to_get(name, data_dir)}"
        )
    layout = LAYOUTS[name]
    places = [data_dir / place for place in _PLACES]
    for place in places:
        paths = [place / file.name for file in layout.files]
        if all(path.is_file() for path in paths):
            return paths
        folder = place / layout.folder
        if layout.folder and folder.is_dir() and all((folder / member).is_file() for member in layout.members):
            return [folder]
    here = [place / file.name for place in places for file in layout.files if (place / file.name).is_file()]
    there = f"only {', '.join(path.name for path in here)}" if here else "neither archive nor prepared records"
    other = next((place / layout.other for place in places if layout.other and (place / layout.other).exists()), None)
    note = f" {other} is another form of it, which is not read." if other else ""
    raise FileNotFoundError(f"{data_dir} has {there} of {name}.{note} {how_to_get(name, data_dir)}")


def how_to_get(name: str, data_dir: pathlib.Path) -> str:
    """The sentence that ends every complaint about missing data."""
    first, *others = LAYOUTS[name].files
    if others:
        names = ", ".join(file.name for file in LAYOUTS[name].files)
        return f"Get {names} from {first.url.rpartition('/')[0]} and put them into {data_dir} as they are."
    kind, _, checksum = first.checksum.partition(":")
    size = f"{first.size:,} bytes, " if first.size else ""
    kind = {"sha256": "SHA-256", "md5": "MD5"}[kind]
    return f"Get {first.url} ({size}{kind} {checksum}) and put it into {data_dir} as it is."


def _origin(name: str, paths: list[pathlib.Path]) -> str:
    """`, published archive` for files with the published checksums, else nothing."""
    files = LAYOUTS[name].files
    pairs = list(zip(files, paths, strict=False))
    same = len(paths) == len(files) and all(path.is_file() and file.is_published(path) for file, path in pairs)
    return f", {PUBLISHED}" if same else ""


def _read(name: str, split: str, paths: list[pathlib.Path], data_dir: pathlib.Path) -> Arrays:
    """Opens archives or folder; what is wrong with them becomes a ValueError."""
    if name == "tiny_imagenet":
        return tiny_imagenet.read(paths[0], split)
    layout = LAYOUTS[name]
    assert layout.read is not None
    try:
        if not layout.folder:
            contents = {path.name: path.read_bytes() for path in paths}
        elif paths[0].is_dir():
            contents = {member: (paths[0] / member).read_bytes() for member in layout.members}
        else:
            contents = archive_formats.unpack(paths[0], layout.folder, layout.members)
        return layout.read(contents, split)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, KeyError, ValueError, struct.error) as error:
        where = ", ".join(map(os.fspath, paths))
        raise ValueError(
            f"{where} cannot be read as {name} ({type(error).__name__}: {error}). {how_to_get(name, data_dir)}"
        ) from error


_CIFAR = "https://www.cs.toronto.edu/~kriz"
_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
# Sizes and SHA-256 as TFDS has registered them.
LAYOUTS = {
    "cifar10": Layout(
        files=(
            File(
                f"{_CIFAR}/cifar-10-binary.tar.gz",
                170052171,
                "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        folder="cifar-10-batches-bin",
        members=(*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", "batches.meta.txt"),
        other="cifar-10-python.tar.gz",
        read=archive_formats.cifar10,
    ),
    "cifar100": Layout(
        files=(
            File(
                f"{_CIFAR}/cifar-100-binary.tar.gz",
                168513733,
                "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        folder="cifar-100-binary",
        members=("train.bin", "test.bin", "fine_label_names.txt"),
        other="cifar-100-python.tar.gz",
        read=archive_formats.cifar100,
    ),
    "mnist": Layout(
        files=(
            File(
                f"{_MNIST}/train-images-idx3-ubyte.gz",
                9912422,
                "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            File(
                f"{_MNIST}/train-labels-idx1-ubyte.gz",
                28881,
                "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            File(
                f"{_MNIST}/t10k-images-idx3-ubyte.gz",
                1648877,
                "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            File(
                f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
                4542,
                "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        read=archive_formats.mnist,
    ),
    "svhn_cropped": Layout(
        files=(
            File(
                f"{_SVHN}/train_32x32.mat",
                182040794,
                "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
            ),
            File(
                f"{_SVHN}/test_32x32.mat",
                64275384,
                "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
            ),
        ),
        read=archive_formats.svhn,
    ),
    "stl10": Layout(
        files=(
            File(
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                2640397119,
                "sha256:f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
            ),
        ),
        folder="stl10_binary",
        members=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt"),
        read=archive_formats.stl10,
    ),
    "tiny_imagenet": Layout(
        files=(File(tiny_imagenet.URL, 0, f"md5:{tiny_imagenet.MD5}"),),
        folder=tiny_imagenet.FOLDER,
    ),
}
NAMES = tuple(LAYOUTS)
