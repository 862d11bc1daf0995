"""Tiny-ImageNet-200 as a TFDS builder, which TFDS itself does not have; it needs no TensorFlow.

It reads the official archive `tiny-imagenet-200.zip` (http://cs231n.stanford.edu/tiny-imagenet-200.zip, MD5
90528d7ca1a48142e341f4ef8d21d0de) or the folder extracted from it, placed by hand: TFDS downloads only
what it can check by size and SHA-256, and those are not recorded for this archive.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ltrobust.data import cache

ARCHIVE = "tiny-imagenet-200.zip"
FOLDER = "tiny-imagenet-200"
URL = f"http://cs231n.stanford.edu/{ARCHIVE}"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
NUM_CLASSES = 200
# Images per class in the complete data set.
PER_CLASS = {"train": 500, "test": 50}
IMAGE_SIZE = (64, 64)

_FETCH = f"Get {ARCHIVE} from {URL} (MD5 {MD5})"


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Tiny-ImageNet-200: 200 ImageNet classes, 64x64 pixels; features `image`, `label` and `id`.

    Split `train` is the official training part (500 images per class) and split `test` the official *val* (50
    per class, the part that papers report); the official test part has no labels. Labels number the sorted
    WordNet ids, which are the class names. JPEG bytes are stored as they are. `id` is
    `<WordNet id>/<file name>`, so that sorting by it gives the official order: class, then file name. Classes
    are read from `wnids.txt` and counts from the files, so that partial copies work too; see `completeness`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 - TFDS reads a plain dict
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"{_FETCH} and put it, or the folder {FOLDER} extracted from it, there."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tiny-ImageNet-200 (Stanford CS231n), 200 classes; `test` is the official val.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(*IMAGE_SIZE, 3), encoding_format="jpeg"),
                    # Names follow from wnids.txt in `_split_generators`.
                    "label": tfds.features.ClassLabel(),
                    "id": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        source = _first_present(pathlib.Path(dl_manager.manual_dir))
        with _open_source(source) as tree:
            features: Any = self.info.features
            features["label"].names = list(_class_ids(tree))
            listings = {"train": _train_images(tree), "test": _val_images(tree)}
        return {split: self._generate_examples(source, listing) for split, listing in listings.items()}

    def _generate_examples(self, source: pathlib.Path, listing: dict[str, str]) -> Iterator[tuple[str, dict]]:
        with _open_source(source) as tree:
            for path, class_id in listing.items():
                example_id = f"{class_id}/{path.rpartition('/')[2]}"
                image = _checked_image(tree, path)
                yield example_id, {"image": image, "label": class_id, "id": example_id}


def prepared(data_dir: pathlib.Path, cache_dir: pathlib.Path | None) -> TinyImagenet:
    """The builder with its records on disk, preparing them first where that is needed (once, about a minute).

    Records go to `data_dir` if it may be written, else under `cache_dir`, in a folder of their own for each
    state of the archive. Preparing reads both splits, so that a damaged archive is noticed at once.

    Raises:
      FileNotFoundError: neither records nor archive nor folder found.
      ValueError: a damaged archive or another layout than the official one.
      PermissionError: nowhere to write.
    """
    builder = TinyImagenet(data_dir=str(data_dir), file_format="array_record")
    if builder.is_prepared():
        return builder
    source = find_source(data_dir)
    home = _home(data_dir, cache_dir, source)
    builder = TinyImagenet(data_dir=str(home), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=str(source.parent), try_download_gcs=False)
    )
    return builder


def find_source(data_dir: pathlib.Path) -> pathlib.Path:
    """The archive or the extracted folder: in TFDS's manual folder, else in `data_dir` itself.

    Raises:
      FileNotFoundError: not found; the message says what to put where.
    """
    manual = data_dir / "downloads" / "manual"
    for place in (manual, data_dir):
        with contextlib.suppress(FileNotFoundError):
            return _first_present(place)
    raise FileNotFoundError(
        f"no Tiny-ImageNet in {data_dir}: neither prepared records in {data_dir / 'tiny_imagenet'} nor "
        f"{ARCHIVE} nor a folder {FOLDER}, there or in {manual}. {_FETCH} and put it into {manual}."
    )


def completeness(labels: np.ndarray, *, split: str, num_classes: int) -> tuple[str, ...]:
    """One note if a split has fewer classes or images than the official one, none if it is complete.

    Args:
      labels: [N] integers below `num_classes`.
      split: `train` or `test`.
      num_classes: number of classes in the copy.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if num_classes == NUM_CLASSES and (counts == PER_CLASS[split]).all():
        return ()
    return (
        f"partial copy: {len(labels):,} of {NUM_CLASSES * PER_CLASS[split]:,} {split} images, "
        f"{counts.min()} to {counts.max()} per class (official {PER_CLASS[split]}), "
        f"{num_classes} of {NUM_CLASSES} classes",
    )


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
    found, known = set(images.values()), set(_class_ids(tree))
    if missing := sorted(known - found):
        raise _wrong_layout(tree, f"train/{missing[0]}/images has no JPEG ({len(missing)} such classes)")
    if unknown := sorted(found - known):
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


def _checked_image(tree: _Tree, path: str) -> bytes:
    """The file's bytes, untouched, after a look at the header."""
    encoded = tree.read(path)
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            kind, size = image.format, image.size
    except (OSError, SyntaxError) as error:
        raise _wrong_layout(tree, f"{path} is no image ({len(encoded)} bytes)") from error
    if kind != "JPEG" or size != IMAGE_SIZE:
        raise _wrong_layout(tree, f"{path} is a {kind} of {size[0]}x{size[1]} pixels, not a JPEG of 64x64")
    return encoded


def _first_present(place: pathlib.Path) -> pathlib.Path:
    """The archive or else the folder in `place`; the archive first, because it carries checksums."""
    for source in (place / ARCHIVE, place / FOLDER):
        if source.exists():
            return source
    raise FileNotFoundError(f"neither {ARCHIVE} nor a folder {FOLDER} in {place}. {_FETCH}.")


def _home(data_dir: pathlib.Path, cache_dir: pathlib.Path | None, source: pathlib.Path) -> pathlib.Path:
    """Where prepared records go: `data_dir`, or a folder in the cache that belongs to this source."""
    # A folder without any write bit is meant to stay as it is, even if root could write there.
    if os.access(data_dir, os.W_OK) and data_dir.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return data_dir
    if cache_dir is None:
        raise PermissionError(f"{data_dir} cannot be written; give a cache_dir where Tiny-ImageNet may be prepared.")
    return cache_dir / "tfds" / _source_fingerprint(source)[:16]


def _source_fingerprint(source: pathlib.Path) -> str:
    """Fingerprint of an archive, or of a folder by its lists and image folders, without reading images."""
    if source.is_file():
        return cache.fingerprint_files([source])
    folders = [*sorted(source.glob("train/*/images")), source / "val" / "images"]
    lists = [source / "wnids.txt", source / "val" / "val_annotations.txt"]
    return cache.fingerprint_files(path for path in (*lists, *folders) if path.exists())
