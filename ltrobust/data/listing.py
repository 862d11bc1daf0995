"""Lists the images of each class in a folder of class directories, by names and links alone.

What is skipped is counted by reason and class. Links are followed; each folder and file counts once per class.
"""

import dataclasses
import os
import pathlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Split -> names of its folder, the first one that is there.
FOLDERS = {"train": ("train",), "test": ("test", "val")}
EXPECTED = "expected are train/CLASS/IMAGE and test/CLASS/IMAGE (or val), with the same classes in both"

# Reasons to pass a file over, in the order of the table.
HIDDEN = "hidden"
SYSTEM = "system file"
NO_IMAGE = "no image suffix"
OTHER_FORMAT = "format not read"
OUTSIDE = "in no class folder"
DANGLING = "dangling link"
REPEATED = "linked twice"
LOOP = "link to a folder above"
SPECIAL = "no regular file"
CLOSED = "folder cannot be opened"
REASONS = (HIDDEN, SYSTEM, NO_IMAGE, OTHER_FORMAT, OUTSIDE, DANGLING, REPEATED, LOOP, SPECIAL, CLOSED)
# What every computer leaves behind; no warning is raised for it.
QUIET = (HIDDEN, SYSTEM)

# In lower case: folders of Synology, QNAP, macOS archives, Windows and file systems; lists of thumbnails and icons.
_SYSTEM = (
    *("@eadir", "@recycle", "#recycle", "__macosx", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
)
# Pictures whose suffix is not read: their owner expects them to be used.
_OTHER_FORMATS = (
    *(".arw", ".avif", ".cr2", ".dcm", ".dng", ".exr", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jfif", ".jp2"),
    *(".jpe", ".jxl", ".nef", ".pbm", ".pnm", ".psd", ".svg", ".tga"),
)
# How many files a message names.
NAMED = 5
# Categories of characters that move the cursor, change the direction of text or are no text at all.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_DIRECTIONS = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclasses.dataclass(frozen=True)
class Tally:
    """Number of files of each class in one category, and the first few of them by name.

    `classes` holds class names with their numbers; files in no class stand under an empty name.
    """

    classes: dict[str, int]
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """Over all classes."""
        return sum(self.classes.values())

    def __str__(self) -> str:
        return some(self.names, self.count)

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return {"count": self.count, "classes": self.classes, "names": list(self.names)}


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of one split.

    Attributes:
      folder: where it lies.
      images: class name as it is printed, in label order -> its images, in order.
      passed_over: reason, one of `REASONS` -> files.
      shared: images that lie in several classes, through links.
    """

    folder: pathlib.Path
    images: dict[str, tuple[pathlib.Path, ...]]
    passed_over: dict[str, Tally]
    shared: Tally


def read(folder: pathlib.Path) -> Listing:
    """The listing of one split's folder.

    Raises:
      ValueError: no class directories, or two whose names are printed alike.
    """
    directories: list[os.DirEntry[str]] = []
    loose: list[_Passed] = []
    for entry in _entries(folder):
        reason = _reason(entry)
        if not reason and entry.is_dir():
            directories.append(entry)
        else:
            # A file beside the class folders belongs to no class, even if it is an image.
            loose += _all_in(entry, reason if reason in (*QUIET, DANGLING) else OUTSIDE)
    if not directories:
        raise ValueError(f"{folder} has no class directories; {EXPECTED}.")
    used: dict[str, dict[str, str]] = {}
    passed = {"": loose}
    for entry in directories:
        name = printable(entry.name)
        if name in used:
            raise ValueError(f"two class directories in {folder} are both printed as {name}; rename one.")
        used[name], passed[name] = _read_class(entry.path)
    classes_of: dict[str, list[str]] = {}
    for name, paths in used.items():
        for real in paths:
            classes_of.setdefault(real, []).append(name)
    by_reason = {
        reason: tally(
            ((name, item.path) for name, items in passed.items() for item in items if item.reason == reason), folder
        )
        for reason in REASONS
    }
    return Listing(
        folder,
        images={name: tuple(map(pathlib.Path, paths.values())) for name, paths in used.items()},
        passed_over={reason: result for reason, result in by_reason.items() if result.count},
        shared=tally(
            ((name, used[name][real]) for real, names in classes_of.items() if len(names) > 1 for name in names), folder
        ),
    )


def tally(found: Iterable[tuple[str, str | os.PathLike[str]]], folder: pathlib.Path) -> Tally:
    """Pairs of class name and path, counted. Paths in the folder are named from it on."""
    pairs = list(found)
    return Tally(dict(Counter(name for name, _ in pairs)), tuple(named(path, folder) for _, path in pairs[:NAMED]))


def named(path: str | os.PathLike[str], folder: pathlib.Path) -> str:
    """A file in a split's folder as messages and cards write it: `train/cat/1.png`."""
    return printable(os.path.relpath(path, folder.parent).replace(os.sep, "/"))


def check_classes(listings: dict[str, Listing]) -> None:
    """The same classes in both splits, none of them empty."""
    train, test = listings["train"], listings["test"]
    if set(train.images) != set(test.images):
        only = [
            f"only in {one.folder}: {', '.join(sorted(set(one.images) - set(other.images))) or 'none'}"
            for one, other in ((train, test), (test, train))
        ]
        raise ValueError(f"the classes of data.dir's splits differ ({'; '.join(only)}); {EXPECTED}.")
    for listing in listings.values():
        for name, images in listing.images.items():
            if not images:
                passed = [
                    f"; {result.classes[name]} skipped: {reason}"
                    for reason, result in listing.passed_over.items()
                    if name in result.classes
                ]
                raise ValueError(
                    f"class {name} has no image in {listing.folder / name} (images end in {', '.join(SUFFIXES)}"
                    f"{''.join(passed)}); put some there, or remove the class from both splits."
                )


def some(things: Sequence[object], count: int | None = None) -> str:
    """The first few, and how many more there are of `count` (default: of these)."""
    more = (len(things) if count is None else count) - len(things[:NAMED])
    return ", ".join(map(str, things[:NAMED])) + (f" and {more} more" if more else "")


def printable(text: str) -> str:
    """The text with escapes for what a terminal or a page cannot show as it is.

    These are bytes that are no UTF-8 (`\\xe9`), control characters, ends of lines, and marks of the direction of text.
    """
    return "".join(_escaped(character) for character in text) if not text.isascii() or not text.isprintable() else text


def _escaped(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in _UNPRINTABLE or character in _DIRECTIONS:
        return character.encode("unicode_escape", "backslashreplace").decode("ascii")
    return character


@dataclasses.dataclass(frozen=True)
class _Passed:
    """A file or folder that is not read."""

    path: str
    reason: str


def _read_class(directory: str) -> tuple[dict[str, str], list[_Passed]]:
    """Images of a class, real path -> path in order of paths, and what is skipped."""
    used: dict[str, str] = {}
    passed: list[_Passed] = []
    _walk(directory, os.path.realpath(directory), {os.path.realpath(directory)}, used, passed)
    return used, passed


def _walk(directory: str, real: str, entered: set[str], used: dict[str, str], passed: list[_Passed]) -> None:
    """Adds a directory's files to `used` and `passed`, and itself and its folders to `entered`, all by real paths."""
    try:
        entries = _entries(directory)
    except OSError:
        passed.append(_Passed(directory, CLOSED))
        return
    for entry in entries:
        if reason := _reason(entry):
            passed += _all_in(entry, reason)
            continue
        target = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
        if entry.is_dir():
            # Compared by real paths: a link to a folder above would never end, and a folder that was entered already
            # would count its images twice.
            if f"{real}/".startswith(f"{target.rstrip('/')}/"):
                passed.append(_Passed(entry.path, LOOP))
            elif target in entered:
                passed.append(_Passed(entry.path, REPEATED))
            else:
                entered.add(target)
                _walk(entry.path, target, entered, used, passed)
        elif target in used:
            passed.append(_Passed(entry.path, REPEATED))
        else:
            used[target] = entry.path


def _reason(entry: os.DirEntry[str]) -> str:
    """Why a file or folder is skipped, empty if it is not."""
    if entry.name.startswith("."):
        return HIDDEN
    if entry.name.lower() in _SYSTEM:
        return SYSTEM
    if entry.is_symlink() and not os.path.exists(entry.path):
        return DANGLING
    if entry.is_dir():
        return ""
    if not entry.is_file():
        return SPECIAL
    suffix = pathlib.PurePath(entry.name).suffix.lower()
    if suffix in SUFFIXES:
        return ""
    return OTHER_FORMAT if suffix in _OTHER_FORMATS else NO_IMAGE


def _all_in(entry: os.DirEntry[str], reason: str) -> list[_Passed]:
    """The file, or every file in the folder; a link to a folder is one file."""
    if entry.is_symlink() or not entry.is_dir():
        return [_Passed(entry.path, reason)]
    return [
        _Passed(os.path.join(where, file), reason) for where, _, files in os.walk(entry.path) for file in sorted(files)
    ]


def _entries(directory: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    # Sorted, because file systems list in any order, and labels, splits and fingerprints follow this one.
    with os.scandir(directory) as result:
        return sorted(result, key=lambda entry: entry.name)
