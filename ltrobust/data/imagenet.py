"""ImageNet (ILSVRC 2012) from its official archives, or from folders of classes; some of its classes or all.

Training images are in `ILSVRC2012_img_train.tar`, or in `train/CLASS/*.JPEG` or `train/CLASS.tar`, where CLASS is a
WordNet id. The test split is the official val: `ILSVRC2012_img_val.tar` with `ILSVRC2012_devkit_t12.tar.gz`, which has
its labels, or `val/CLASS/*.JPEG`. Archives are not unpacked: where each image lies in them is looked up, and it is read
from there.
"""

import dataclasses
import io
import os
import pathlib
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ltrobust.data import cache, pixels
from ltrobust.runtime import contents, terminal

# Part of a decoded copy's fingerprint: raise it when the same files give other images, labels or another order.
VERSION = 1
TRAIN, VAL, LABELS = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
# Data set -> its classes; those of `imagenet10` are Imagenette's: tench, English springer, cassette player, chain saw,
# church, French horn, garbage truck, gas pump, golf ball, parachute. Empty for all that there are.
CLASSES = {
    "imagenet": (),
    "imagenet10": (
        *("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"),
        *("n03394916", "n03417042", "n03425413", "n03445777", "n03888257"),
    ),
}
_CLASS = re.compile(r"n\d{8}")
_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
# Bytes that no official image or list of labels exceeds.
_LARGEST = 100_000_000


@dataclasses.dataclass(frozen=True)
class _Image:
    """Where the bytes of an image lie: its class, its name, the file, and the part of the file (`size` -1: all)."""

    label: str
    name: str
    file: pathlib.Path
    offset: int = 0
    size: int = -1

    def content(self) -> bytes:
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def load(
    split: str,
    *,
    places: Sequence[pathlib.Path],
    image_size: int,
    classes: Sequence[str],
    cache_root: pathlib.Path | None,
    how: str,
) -> tuple[cache.Entry, str]:
    """One split of some classes, in the order of WordNet ids, then of file names; and where the arrays come from.

    Args:
      split: `train` or `test`, which is the official val.
      places: folders to look into.
      image_size: pixels that either side is resized to, as for folders of images (`folder.load`).
      classes: WordNet ids; empty for all that there are.
      cache_root: where decoded images are kept, or None.
      how: the sentence that says how to get the data.

    Raises:
      FileNotFoundError: neither archives nor folders.
      ValueError: a class that is not there, or damaged archives or images.
    """
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise ValueError(f"data.image_size is {image_size!r}; give the pixels of one side, at least 1.")
    sources = _sources(split, places, how)
    form = f"imagenet {VERSION}, {image_size}, decoder {pixels.VERSION}, {','.join(sorted(classes))}"
    images = None
    files = sources
    if sources[0].is_dir():
        images = _chosen(_in_folder(sources[0]), classes, sources[0])
        files = [image.file for image in images]
    fingerprint = cache.fingerprint_files(files, form=form, check="sample")
    path = None
    if cache_root is not None:
        path = cache.entry_path(cache_root, f"imagenet{len(classes) or ''}-{split}-{image_size}", sources[0])
        if (entry := cache.read(path, fingerprint)) is not None:
            return entry, f"decoded copy {path}"
    if images is None:
        images = _chosen(_in_archives(sources, classes, how), classes, sources[0])
    names = tuple(sorted({image.label for image in images}))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[image.label] for image in images], np.int64)
    entry = cache.Entry(_decoded(images, image_size, split), labels, names, f"imagenet {split}", fingerprint)
    return entry, cache.NO_COPY if path is None else cache.write(path, entry)


def _sources(split: str, places: Sequence[pathlib.Path], how: str) -> list[pathlib.Path]:
    """The folder of classes, or the archives."""
    wanted = [TRAIN] if split == "train" else [VAL, LABELS]
    for place in places:
        if (folder := place / ("train" if split == "train" else "val")).is_dir():
            return [folder]
        result = [place / name for name in wanted]
        if all(path.is_file() for path in result):
            return result
    here = [place / name for place in places for name in wanted if (place / name).is_file()]
    there = f"only {here[0].name}" if here else "neither archives nor folders"
    raise FileNotFoundError(f"{places[0]} has {there} of imagenet's {split} split ({', '.join(wanted)}). {how}")


def _in_folder(folder: pathlib.Path) -> Iterator[_Image]:
    """The images of a folder of classes."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and _CLASS.fullmatch(entry.name):
            for file in sorted(entry.iterdir()):
                if file.suffix.lower() in (".jpeg", ".jpg"):
                    yield _Image(entry.name, file.name, file)
        elif entry.suffix == ".tar" and _CLASS.fullmatch(entry.stem):
            with tarfile.open(entry, "r:") as archive:
                yield from _members(archive, entry.stem, entry)


def _in_archives(sources: Sequence[pathlib.Path], classes: Sequence[str], how: str) -> list[_Image]:
    """The images of an official archive. What is wrong with it becomes a ValueError."""
    for path in sources:
        if words := contents.mistaken_for(path):
            raise ValueError(f"{path} is {words}. {how}")
    try:
        return list(_training_images(sources[0], classes) if len(sources) == 1 else _val_images(*sources))
    except (tarfile.TarError, EOFError, KeyError, ValueError, OSError) as error:
        raise ValueError(f"{sources[0]} cannot be read as imagenet ({type(error).__name__}: {error}). {how}") from error


def _training_images(path: pathlib.Path, classes: Sequence[str]) -> Iterator[_Image]:
    """From the archive of a `.tar` for each class; those of other classes are not opened."""
    with tarfile.open(path, "r:") as outer:
        for member in outer:
            name, _, suffix = member.name.rpartition(".")
            if not member.isfile() or suffix != "tar" or not _CLASS.fullmatch(name):
                raise ValueError(f"it has {member.name}, which is not the archive of a class")
            if classes and name not in classes:
                # Only the name is needed, for the message about a class that is missing.
                yield _Image(name, "", path, 0, 0)
            elif (inner := outer.extractfile(member)) is not None:
                with tarfile.open(fileobj=inner, mode="r:") as archive:
                    yield from _members(archive, name, path, member.offset_data)


def _members(archive: tarfile.TarFile, label: str, path: pathlib.Path, start: int = 0) -> Iterator[_Image]:
    """The images of an archive without folders, whose first byte is byte `start` of `path`."""
    for member in sorted(archive, key=lambda member: member.name):
        if not member.isfile() or member.issparse() or "/" in member.name or member.size > _LARGEST:
            raise ValueError(f"{label} has {member.name}, which is not an image of ImageNet")
        yield _Image(label, member.name, path, start + member.offset_data, member.size)


def _val_images(path: pathlib.Path, devkit: pathlib.Path) -> Iterator[_Image]:
    """From the archive of all images, with the labels of the development kit."""
    labels = _val_labels(devkit)
    with tarfile.open(path, "r:") as archive:
        for image in sorted(_members(archive, "val", path), key=lambda image: image.name):
            result = _VAL_NAME.fullmatch(image.name)
            if result is None or not 1 <= int(result[1]) <= len(labels):
                raise ValueError(f"it has {image.name}, of which {devkit.name} knows no label")
            yield dataclasses.replace(image, label=labels[int(result[1]) - 1])


def _val_labels(devkit: pathlib.Path) -> list[str]:
    """WordNet ids of the validation images, in the order of their numbers."""
    from scipy import io as scipy_io

    wanted = {"meta.mat": b"", "ILSVRC2012_validation_ground_truth.txt": b""}
    with tarfile.open(devkit, "r:gz") as archive:
        for member in archive:
            if (name := member.name.rpartition("/")[2]) in wanted and member.isfile() and member.size <= _LARGEST:
                file = archive.extractfile(member)
                wanted[name] = file.read() if file else b""
    if missing := [name for name, content in wanted.items() if not content]:
        raise ValueError(f"{devkit.name} has no {missing[0]}")
    synsets = scipy_io.loadmat(io.BytesIO(wanted["meta.mat"]), squeeze_me=True)["synsets"]
    ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}
    return [ids[int(number)] for number in wanted["ILSVRC2012_validation_ground_truth.txt"].split()]


def _chosen(found: Iterable[_Image], classes: Sequence[str], source: pathlib.Path) -> list[_Image]:
    """The images of the wanted classes, by class, then name."""
    images = list(found)
    known = sorted({image.label for image in images})
    if not known:
        raise ValueError(f"{source} has no class of ImageNet; expected are folders or archives such as n01440764.")
    if unknown := sorted(set(classes) - set(known)):
        raise ValueError(
            f"{source} lacks class {unknown[0]} ({len(unknown)} of {len(classes)} classes are missing); "
            f"it has {len(known)}, from {known[0]} to {known[-1]}."
        )
    kept = [image for image in images if not classes or image.label in classes]
    return sorted(kept, key=lambda image: (image.label, image.name))


def _decoded(images: Sequence[_Image], image_size: int, split: str) -> np.ndarray:
    """uint8 [N, image_size, image_size, 3]."""
    pixels.check_pillow()
    decoded = np.empty((len(images), image_size, image_size, 3), np.uint8)

    def decode(position: int) -> None:
        image = images[position]
        try:
            decoded[position], _ = pixels.read(io.BytesIO(image.content()), image_size, 3)
        except Exception as error:  # Pillow lets its decoders' own errors through
            where = f"{image.label}/{image.name} in {os.fspath(image.file)}"
            raise ValueError(f"{where} cannot be read as an image ({type(error).__name__}: {error}).") from error

    with (
        ThreadPoolExecutor() as pool,
        terminal.Progress(f"decoding imagenet {split}, once", len(images), "images") as progress,
    ):
        for _ in pool.map(decode, range(len(images))):
            progress.update(1)
    return decoded
