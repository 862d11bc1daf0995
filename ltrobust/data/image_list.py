"""Lists of image files with labels, as they are published for ImageNet-LT: a line `PATH LABEL` for each image.

A list is the data set: its order is the official one. Files are looked up, and decoded only when they are needed.
"""

import dataclasses
import functools
import os
import pathlib
import stat
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ltrobust.data import cache, folder, listing, pixels
from ltrobust.data.images import SHORTER_SIDE, FileImages

SPLITS = ("train", "validation", "test")
EXPECTED = "a text file with a line 'PATH LABEL' for each image, labels from 0"
# Files that one thread looks up at a time.
_BLOCK = 1000


@dataclasses.dataclass(frozen=True)
class Lists:
    """The files of an image list. Attributes are keys of a configuration's `data.lists`.

    A relative path is one from the current folder or, if there is no such file, from the data's folder.

    Attributes:
      train, validation, test: lists; without `validation`, the validation part is taken from the training list.
      classes: a file with a line for each class, its name, in label order; empty: classes are named by numbers.
    """

    train: str = ""
    validation: str = ""
    test: str = ""
    classes: str = ""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """One list.

    Attributes:
      images: its files.
      labels: int64 [N].
      class_names: in label order.
      notes, warnings, files: as `folder.Loaded`.
      origin: the list, in words.
    """

    images: FileImages
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    files: Mapping[str, Any]
    origin: str


@dataclasses.dataclass(frozen=True)
class _List:
    """The lines of one list: where they are from, names of files, labels int64 [N], numbers of the lines.

    `places` are the files' paths without links to folders, however the names are spelt.
    """

    path: pathlib.Path
    names: list[str]
    places: list[str]
    labels: np.ndarray
    lines: list[int]


def load(
    data_dir: str | os.PathLike[str],
    split: str,
    *,
    lists: Lists,
    image_size: int,
    channels: int,
    resize: int = 0,
    skip_unreadable: bool = False,
    cache_check: str = "sample",
) -> Loaded:
    """The images of one list. The other lists are read too, because no image may be in two of them.

    Args:
      data_dir: the folder that paths in the lists are relative to.
      split: one of `SPLITS`.
      lists: the lists.
      image_size: height and width in pixels.
      channels: 1 or 3.
      resize: pixels of the shorter side before the centre is cut out; 0 for 256/224 of `image_size`.
      skip_unreadable: decode all images of the list now, once, and leave out those that cannot be read.
      cache_check: `full` to read all files of the list for their SHA-256; `sample` does not.

    Raises:
      ValueError: arguments that are not allowed; a list that is not given or empty, with a line that is not
        `PATH LABEL`, a label that is no class, or an image twice; images in two lists; a class without training images.
      FileNotFoundError: a list or images that are not there.
      MemoryError, OSError: as `FileImages.check`.
    """
    folder.check_arguments(image_size, channels, skip_unreadable, cache_check)
    check_resize(resize, image_size)
    root = pathlib.Path(data_dir).expanduser()
    parsed = {name: _read(lists, name, root) for name in SPLITS if name != "validation" or lists.validation}
    names = _class_names(lists, parsed, root)
    _check_labels(parsed, len(names))
    _check_shared(parsed)
    pixels.check_pillow()
    result = parsed[split]
    sizes = _sizes(result, root)
    paths = [root / name for name in result.names]
    images = FileImages(
        str(root),
        tuple(result.names),
        sizes,
        image_size,
        resize or round(image_size * SHORTER_SIDE),
        channels,
        contents=tuple(cache.digests(paths, full=True)) if cache_check == "full" else (),
    )
    return _account(images, result, split, names, skip_unreadable)


def unreadable(file: str, data_dir: str | os.PathLike[str]) -> list[str]:
    """Decodes all images of one list: a text `PATH (line N: PROBLEM)` for each that cannot be read.

    Args:
      file: the list.
      data_dir: the folder that its paths are relative to.

    Raises:
      ValueError, FileNotFoundError: as `load`, of this list.
      MemoryError, OSError: as `FileImages.check`.
    """
    root = pathlib.Path(data_dir).expanduser()
    found = _read(Lists(train=file), "train", root)
    pixels.check_pillow()
    images = FileImages(str(root), tuple(found.names), _sizes(found, root, disk=True), image_size=1, resize=1)
    problems = images.check(disk=True).items()
    return [f"{listing.printable(found.names[row])} (line {found.lines[row]}: {problem})" for row, problem in problems]


def _account(images: FileImages, found: _List, split: str, class_names: tuple[str, ...], skip: bool) -> Loaded:
    """What is used, and what is skipped if that was asked for."""
    problems = images.check() if skip else {}
    kept = np.array([row for row in range(len(images)) if row not in problems], np.int64)
    labels = found.labels[kept]
    used = np.bincount(labels, minlength=len(class_names))
    passed_over: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    if problems:
        count, named = len(problems), [f"{listing.printable(images.names[row])} ({problems[row]})" for row in problems]
        classes = Counter(class_names[found.labels[row]] for row in problems)
        tally = listing.Tally(dict(classes), tuple(named[: listing.NAMED]))
        passed_over = {folder.UNREADABLE: tally.as_json()}
        notes = (f"{count} file{'s' * (count > 1)} skipped, {folder.UNREADABLE}: {tally}",)
    if split == "train" and used.min() == 0:
        name = class_names[int(used.argmin())]
        raise ValueError(f"class {name} has no image in {found.path} that can be read; put some there.")
    files = {"used": used.tolist(), "passed_over": passed_over, "findings": {}}
    origin = f"{found.path}, decoded when they are needed"
    return Loaded(images.subset(kept), labels, class_names, notes, notes, files, origin)


def check_resize(resize: object, image_size: int) -> None:
    """Refuses a size of the shorter side that is out of range, with a ValueError."""
    if isinstance(resize, bool) or not isinstance(resize, int) or (resize and resize < image_size):
        raise ValueError(
            f"data.resize is {resize!r}; give pixels of the shorter side, at least data.image_size ({image_size}), or "
            "0 for 256/224 of it."
        )


def locate(path: str, root: pathlib.Path) -> pathlib.Path | None:
    """The file of `Lists` with this path, here or in the data's folder `root`; None if there is none."""
    places = (pathlib.Path(path).expanduser(), root / path)
    return next((place for place in places if place.is_file()), None)


def _found(path: str, key: str, root: pathlib.Path) -> pathlib.Path:
    """The file that a key names."""
    if not path:
        raise ValueError(f"data.lists.{key} is empty; give --config.data.lists.{key}=FILE: {EXPECTED}.")
    if (place := locate(path, root)) is not None:
        return place
    raise FileNotFoundError(f"data.lists.{key} is {path}, but there is no such file, here or in data.dir {root}.")


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """Numbers, from 1, and texts of the lines that are not blank."""
    # Bytes that are no UTF-8 may be part of a file's name.
    text = path.read_text("utf-8-sig", errors="surrogateescape")
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _read(lists: Lists, split: str, root: pathlib.Path) -> _List:
    """The lines of a list."""
    path = _found(getattr(lists, split), split, root)
    names, places, labels, numbers = [], [], [], []
    first: dict[str, int] = {}
    # A look-up of every file would be slow on a network disk; folders are few.
    resolve = functools.cache(os.path.realpath)
    for number, line in _lines(path):
        name, label = line.rsplit(maxsplit=1) if len(line.split(maxsplit=1)) > 1 else ("", "")
        if not (label.isascii() and label.isdecimal() and len(label) < 10):
            raise ValueError(
                f"{path}, line {number} is {listing.printable(line)!r}; expected is a path, a space and a label, which "
                "is a number from 0."
            )
        name = str(pathlib.PurePosixPath(name))  # keeps "..", which may follow a link to another folder
        folder_of, file = os.path.split(root / name)
        place = os.path.join(resolve(folder_of), file)
        if place in first:
            raise ValueError(
                f"{path}, line {number} names {listing.printable(name)}, as line {first[place]} does; remove one of "
                "them."
            )
        first[place] = number
        names.append(name)
        places.append(place)
        labels.append(int(label))
        numbers.append(number)
    if not names:
        raise ValueError(f"data.lists.{split} {path} has no line; expected is {EXPECTED}.")
    return _List(path, names, places, np.array(labels, np.int64), numbers)


def _class_names(lists: Lists, parsed: Mapping[str, _List], root: pathlib.Path) -> tuple[str, ...]:
    """From the file of names, else the numbers of the classes that the training list has."""
    if not lists.classes:
        labels = parsed["train"].labels
        if (highest := int(labels.max())) >= len(labels):
            number = parsed["train"].lines[int(labels.argmax())]
            raise ValueError(
                f"data.lists.train {parsed['train'].path}, line {number} has label {highest}, but its {len(labels)} "
                f"images have labels 0 to {len(labels) - 1} at most; number classes from 0 without gaps."
            )
        return tuple(map(str, range(highest + 1)))
    path = _found(lists.classes, "classes", root)
    names = tuple(listing.printable(line) for _, line in _lines(path))
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"data.lists.classes {path} names {repeated[0]} twice; give every class its own name.")
    return names


def _check_labels(parsed: Mapping[str, _List], classes: int) -> None:
    """Refuses labels beyond the classes, and classes without training images."""
    for split, found in parsed.items():
        for place in np.flatnonzero(found.labels >= classes)[:1]:
            raise ValueError(
                f"data.lists.{split} {found.path}, line {found.lines[place]} has label {found.labels[place]}, but the "
                f"{classes} classes of data.lists.{'classes' if split == 'train' else 'train'} are 0 to "
                f"{classes - 1}; correct one of them."
            )
    counts = np.bincount(parsed["train"].labels, minlength=classes)
    if len(absent := np.flatnonzero(counts == 0)):
        raise ValueError(
            f"data.lists.train {parsed['train'].path} has no image of {len(absent)} of {classes} classes: "
            f"{listing.some(absent.tolist())}. Every class needs training images; number classes from 0 without gaps."
        )


def _check_shared(parsed: Mapping[str, _List]) -> None:
    """Refuses an image in two lists: what is evaluated must not have been trained on."""
    lines = {split: dict(zip(found.places, found.lines, strict=True)) for split, found in parsed.items()}
    splits = list(parsed)
    for split, other in ((b, a) for number, a in enumerate(splits) for b in splits[number + 1 :]):
        both = [place for place in lines[split] if place in lines[other]]
        if both:
            names = dict(zip(parsed[split].places, parsed[split].names, strict=True))
            named = [
                f"{listing.printable(names[place])} (lines {lines[other][place]} and {lines[split][place]})"
                for place in both[: listing.NAMED]
            ]
            raise ValueError(
                f"{len(both)} images are in both data.lists.{other} {parsed[other].path} and data.lists.{split} "
                f"{parsed[split].path}: {listing.some(named, len(both))}. Remove them from one of the lists."
            )


def _sizes(found: _List, root: pathlib.Path, *, disk: bool = False) -> np.ndarray:
    """Bytes of each file, int64 [N]; see `_size`."""

    def look(start: int) -> np.ndarray:
        return np.array([_size(root / name, disk) for name in found.names[start : start + _BLOCK]], np.int64)

    # On a network disk a look-up is waiting.
    with ThreadPoolExecutor() as pool:
        sizes = np.concatenate(list(pool.map(look, range(0, len(found.names), _BLOCK))))
    if len(missing := np.flatnonzero(sizes < 0)):
        named = [f"{listing.printable(found.names[place])} (line {found.lines[place]})" for place in missing[:10]]
        raise FileNotFoundError(
            f"{len(missing)} of the {len(sizes)} images of {found.path} are not in data.dir {root}: "
            f"{listing.some(named, len(missing))}. Give the folder that the paths start from, or remove the lines."
        )
    return sizes


def _size(path: pathlib.Path, disk: bool) -> int:
    """Bytes of a file, -1 if there is none; where its disk fails 0 if `disk`, else an error."""
    try:
        status = path.stat()
    except ValueError:  # a name that holds a zero
        return -1
    except OSError as error:
        pixels.check_system(error, path, disk=disk)
        return 0 if error.errno in pixels.OF_A_DISK else -1  # reading meets it again
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
