"""Tiny-ImageNet-200 from its official archive `tiny-imagenet-200.zip`, or from the folder extracted from it.

The archive (http://cs231n.stanford.edu/tiny-imagenet-200.zip, MD5 90528d7ca1a48142e341f4ef8d21d0de) is only read.
"""

import contextlib
import dataclasses
import io
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from ltrobust.data import cache
from ltrobust.runtime.terminal import Progress

# Part of a decoded copy's fingerprint: raise it when `read` gives other images, labels or another order.
VERSION = 1

ARCHIVE = "tiny-imagenet-200.zip"
FOLDER = "tiny-imagenet-200"
URL = f"http://cs231n.stanford.edu/{ARCHIVE}"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
IMAGE_SIZE = (64, 64)

_FETCH = f"Get {ARCHIVE} from {URL} (MD5 {MD5})"


def read(source: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images uint8 [N, 64, 64, 3], labels int64 [N] and class names of one split.

    `train` is the official training part (500 images per class) and `test` the official *val* (50 per class, the part
    that papers report); the official test part has no labels. Labels number the sorted WordNet ids, which are the class
    names; a class is in the order of its file names. Classes are read from `wnids.txt` and counts from the files, so
    that partial copies work too. The other split's files are checked as well, so that damage is noticed at once.

    Args:
      source: the archive or the folder.
      split: `train` or `test`.

    Raises:
      ValueError: a damaged archive or another layout than the official one.
    """
    with _open_source(source) as tree:
        class_names = _class_ids(tree)
        listings = {"train": _train_images(tree), "test": _val_images(tree)}
        wanted = sorted(listings[split].items(), key=lambda entry: (entry[1], entry[0].rpartition("/")[2]))
        for path in listings["test" if split == "train" else "train"]:
            _check_image(tree, path, tree.read(path))
        images = np.empty((len(wanted), *IMAGE_SIZE, 3), np.uint8)
        with Progress(f"decoding tiny_imagenet {split}, once", len(wanted), "images") as progress:
            for position, (path, _) in enumerate(wanted):
                images[position] = _pixels(tree, path)
                progress.update(1)
    numbers = {class_id: number for number, class_id in enumerate(class_names)}
    return images, np.array([numbers[class_id] for _, class_id in wanted], np.int64), class_names


def fingerprint(source: pathlib.Path) -> str:
    """Fingerprint of an archive, or of a folder by all of its files; of either only a sample is read."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return cache.fingerprint_files(files, root=source.parent, form=f"reader {VERSION}", check="sample")


@dataclasses.dataclass(frozen=True)
class _Tree:
    """The files of an archive or folder, by path relative to the folder `tiny-imagenet-200`."""

    source: pathlib.Path
    paths: frozenset[str]
    read: Callable[[str], bytes]

    def text(self, path: str) -> str:
        if path not in self.paths:
            raise _wrong_layout(self, f"{path} is missing")
        return self.read(path).decode()


@contextlib.contextmanager
def _open_source(source: pathlib.Path) -> Iterator[_Tree]:
    """Lists the archive or folder; a damaged archive becomes a ValueError, also while it is being read."""
    if source.is_dir():
        paths = frozenset(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        yield _Tree(source, paths, lambda path: (source / path).read_bytes())
        return
    root = f"{FOLDER}/"
    try:
        with zipfile.ZipFile(source) as archive:
            names = (name for name in archive.namelist() if name.startswith(root) and not name.endswith("/"))
            paths = frozenset(name.removeprefix(root) for name in names)
            yield _Tree(source, paths, lambda path: archive.read(root + path))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{source} is no complete zip archive ({error}). {_FETCH} again.") from error


def _wrong_layout(tree: _Tree, problem: str) -> ValueError:
    return ValueError(
        f"{tree.source} does not have the official layout of Tiny-ImageNet: {problem}. Expected in {FOLDER}: "
        "wnids.txt, train/<WordNet id>/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt. "
        f"{_FETCH} again."
    )


def _class_ids(tree: _Tree) -> tuple[str, ...]:
    """WordNet ids, sorted; the position is the label."""
    class_ids = tree.text("wnids.txt").split()
    if not class_ids or len(set(class_ids)) != len(class_ids):
        raise _wrong_layout(tree, "wnids.txt is empty or names a class twice")
    return tuple(sorted(class_ids))


def _train_images(tree: _Tree) -> dict[str, str]:
    """Path -> WordNet id of every training image, sorted by class, then file name."""
    images = {
        path: path.split("/")[1] for path in sorted(tree.paths) if path.startswith("train/") and path.endswith(".JPEG")
    }
    result, known = set(images.values()), set(_class_ids(tree))
    if missing := sorted(known - result):
        raise _wrong_layout(tree, f"train/{missing[0]}/images has no JPEG ({len(missing)} such classes)")
    if unknown := sorted(result - known):
        raise _wrong_layout(tree, f"train/{unknown[0]} is a class that wnids.txt does not name")
    return images


def _val_images(tree: _Tree) -> dict[str, str]:
    """Path -> WordNet id of every official validation image, in the order of val_annotations.txt."""
    known, images = set(_class_ids(tree)), {}
    for number, line in enumerate(tree.text("val/val_annotations.txt").splitlines(), start=1):
        file_name, _, rest = line.partition("\t")
        class_id = rest.partition("\t")[0]
        if class_id not in known:
            raise _wrong_layout(tree, f"line {number} of val/val_annotations.txt gives {class_id!r}, not in wnids.txt")
        images[f"val/images/{file_name}"] = class_id
    present = {path for path in tree.paths if path.startswith("val/images/") and path.endswith(".JPEG")}
    if differing := sorted(present ^ images.keys()):
        raise _wrong_layout(tree, f"{differing[0]} is not both a file and a line of val/val_annotations.txt")
    if not images:
        raise _wrong_layout(tree, "val/val_annotations.txt is empty")
    return images


def _pixels(tree: _Tree, path: str) -> np.ndarray:
    """uint8 [64, 64, 3]; grey images become RGB."""
    encoded = tree.read(path)
    _check_image(tree, path, encoded)
    try:
        return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise _wrong_layout(tree, f"{path} is damaged ({error})") from error


def _check_image(tree: _Tree, path: str, encoded: bytes) -> None:
    """Refuses what is no JPEG of the right size, by its header."""
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            kind, size = image.format, image.size
    except (OSError, SyntaxError) as error:
        raise _wrong_layout(tree, f"{path} is not an image ({len(encoded)} bytes)") from error
    if kind != "JPEG" or size != IMAGE_SIZE:
        raise _wrong_layout(tree, f"{path} is a {kind} of {size[0]}x{size[1]} pixels, not a JPEG of 64x64")
