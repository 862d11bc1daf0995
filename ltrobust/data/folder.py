"""A folder of class directories as a data set: `DIR/train/CLASS/...` and `DIR/test/CLASS/...`, an image per file.

Classes are numbered in the sorted order of their names, images in that of their paths. Files are decoded once, by
Pillow, and kept in the same cache as those of named data sets.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ltrobust.data import cache, listing, pixels
from ltrobust.runtime.terminal import Progress

# Keys of an entry's findings besides `pixels.FINDINGS`.
UNREADABLE = "unreadable"
ONE_COLOUR = "of one colour"
SHARED = "in several classes through links"
# Of a split's images, above which one colour is taken for a mistake in reading them.
_MOST_OF_ONE_COLOUR = 0.5


@dataclasses.dataclass(frozen=True)
class Loaded:
    """One split of a folder.

    Attributes:
      entry: the decoded images.
      notes: what a reader of results must know.
      warnings: the notes that the user should act upon.
      files: for the card: `used`, images per class in label order; `passed_over`, reason -> files; `findings`, what is
        true of used files -> files. Files are a `count`, `classes` (name -> count) and the first few `names`.
      origin: whether images were decoded now, and where the decoded copy lies.
      names: of the images' files, in order; empty where some were left out as unreadable, so that positions name none.
    """

    entry: cache.Entry
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    files: Mapping[str, Any]
    origin: str
    names: tuple[str, ...]


def load(
    data_dir: str | os.PathLike[str],
    split: str,
    *,
    image_size: int,
    channels: int,
    cache_root: pathlib.Path | None,
    skip_unreadable: bool = False,
    cache_check: str = "sample",
) -> Loaded:
    """One split's arrays, and what was used and skipped. Of the other split only names are looked at.

    Pixels: EXIF orientation is applied, transparency dropped, colours are converted to RGB or to grey (ITU-R 601), then
    both sides are resized to `image_size` (bilinear over the source's area, as Pillow does it; the aspect ratio is not
    kept), unless they have it.

    Args:
      data_dir: holds the folders `train` and `test`; `val` counts as `test` where there is no `test`.
      split: `train` or `test`.
      image_size: height and width in pixels.
      channels: 1 or 3.
      cache_root: where decoded images are kept, or None.
      skip_unreadable: whether files that cannot be read are skipped, where they would be refused.
      cache_check: `sample` or `full`: how files are compared with the decoded copy's (`cache.fingerprint_files`).

    Raises:
      ValueError: no folder given, arguments that are not allowed, classes that differ between the splits, a class
        without images, files that cannot be read, by their names, or a split most of which is the same colour.
      FileNotFoundError: a folder that is missing.
    """
    check_arguments(image_size, channels, skip_unreadable, cache_check)
    folders = _split_folders(data_dir)
    listings = {name: listing.read(folder) for name, folder in folders.items()}
    listing.check_classes(listings)
    result = listings[split]
    if listing.CLOSED in result.passed_over and not skip_unreadable:
        raise ValueError(_refusal(f"folders in {result.folder} cannot be opened", result.passed_over[listing.CLOSED]))
    entry, origin = _cached_or_decoded(result, split, image_size, channels, cache_root, skip_unreadable, cache_check)
    loaded = _account(result, entry, origin)
    if UNREADABLE in entry.findings and not skip_unreadable:
        files = sum(map(len, result.images.values()))
        tally = listing.Tally(**entry.findings[UNREADABLE])
        raise ValueError(_refusal(f"of {files} images in {result.folder} cannot be read", tally))
    if 0 in loaded.files["used"]:
        name = entry.class_names[loaded.files["used"].index(0)]
        raise ValueError(f"class {name} has no image in {result.folder / name} that can be read; put some there.")
    return loaded


def _account(found: listing.Listing, entry: cache.Entry, origin: str) -> Loaded:
    """What was used and skipped, as notes and for the card."""
    findings = {key: listing.Tally(**value) for key, value in entry.findings.items()}
    passed_over = {**found.passed_over, **({UNREADABLE: findings.pop(UNREADABLE)} if UNREADABLE in findings else {})}
    if found.shared.count:
        findings[SHARED] = found.shared
    notes = {f"skipped, {reason}": tally for reason, tally in passed_over.items()} | findings
    lines = {key: f"{tally.count} file{'s' * (tally.count > 1)} {key}: {tally}" for key, tally in notes.items()}
    quiet = [f"skipped, {reason}" for reason in listing.QUIET] + [pixels.TURNED]
    files = {
        "used": np.bincount(entry.labels, minlength=len(found.images)).tolist(),
        "passed_over": {reason: tally.as_json() for reason, tally in passed_over.items()},
        "findings": {key: tally.as_json() for key, tally in findings.items()},
    }
    unused = ["the folder val is not used, as there is a test"] if _is_beside_val(found.folder) else []
    warnings = tuple(line for key, line in lines.items() if key not in quiet)
    paths = [file for images in found.images.values() for file in images]
    names = () if UNREADABLE in passed_over else tuple(listing.named(path, found.folder) for path in paths)
    return Loaded(entry, (*lines.values(), *unused), warnings, files, origin, names)


def _is_beside_val(folder: pathlib.Path) -> bool:
    """Whether this is the test split's folder although there is another that could be."""
    first, *others = listing.FOLDERS["test"]
    return folder.name == first and any((folder.parent / name).is_dir() for name in others)


def check_arguments(image_size: object, channels: object, skip_unreadable: object, cache_check: object) -> None:
    """Refuses settings that are out of range, with a ValueError."""
    if not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1:
        raise ValueError(f"data.image_size is {image_size!r}; give the pixels of one side, at least 1.")
    if isinstance(channels, bool) or channels not in (1, 3):
        raise ValueError(f"data.channels is {channels!r}; give 1 (grey) or 3 (RGB).")
    if not isinstance(skip_unreadable, bool):
        raise ValueError(f"data.skip_unreadable is {skip_unreadable!r}; give True or False.")
    if cache_check not in ("sample", "full"):
        raise ValueError(f"data.cache_check is {cache_check!r}; known: sample, full.")


def _refusal(problem: str, files: listing.Tally) -> str:
    return (
        f"{files.count} {problem}: {files}. Mend or remove them, or leave them out and have them counted with "
        "--config.data.skip_unreadable=True."
    )


def _split_folders(data_dir: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
    """Split -> its folder."""
    if not os.fspath(data_dir):
        raise ValueError(
            f"data.name is 'folder' and data.dir is empty; give --config.data.dir=DIR: {listing.EXPECTED}."
        )
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"data.dir {root} is not a folder; {listing.EXPECTED}.")
    result = {}
    for split, names in listing.FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if not there:
            held = listing.some(
                [listing.printable(str(path)) for path in sorted(root.iterdir()) if not path.name.startswith(".")]
            )
            raise FileNotFoundError(
                f"data.dir {root} has no folder {' or '.join(names)}; {listing.EXPECTED}. "
                f"It holds: {held or 'nothing'}."
            )
        result[split] = there[0]
    return result


def _cached_or_decoded(
    found: listing.Listing,
    split: str,
    image_size: int,
    channels: int,
    cache_root: pathlib.Path | None,
    keep_incomplete: bool,
    cache_check: str,
) -> tuple[cache.Entry, str]:
    """The images that can be read, and where they come from. A copy without some of the files is kept if asked for."""
    files = [file for images in found.images.values() for file in images]
    form = f"{image_size}x{image_size}x{channels}"
    # The fingerprint covers everything that changes pixels: the files, the size and channels, and the version of the
    # decoder.
    fingerprint = cache.fingerprint_files(
        files, root=found.folder, form=f"{form}, decoder {pixels.VERSION}", check=cache_check
    )
    path = None
    if cache_root is not None:
        path = cache.entry_path(cache_root, f"folder-{split}-{form}", found.folder)
        if (entry := cache.read(path, fingerprint)) is not None:
            return entry, f"decoded copy {path}"
    entry, lasting = _decode(found, image_size, channels, f"folder {split}", fingerprint)
    # An incomplete copy is kept only if the user asked to skip files, and only if they would be unreadable again: a
    # network disk that was away for a moment must not shrink the data set for good.
    complete = UNREADABLE not in entry.findings
    if path is None or not (complete or (keep_incomplete and lasting)):
        return entry, cache.NO_COPY
    return entry, cache.write(path, entry)


def _decode(
    found: listing.Listing, image_size: int, channels: int, source: str, fingerprint: str
) -> tuple[cache.Entry, bool]:
    """The images that can be read, and whether those that cannot will be the same another time."""
    pixels.check_pillow()
    files = [(name, file) for name, images in found.images.items() for file in images]
    images = np.empty((len(files), image_size, image_size, channels), np.uint8)
    findings: list[tuple[str, ...]] = [()] * len(files)
    problems: dict[int, str] = {}
    lasting = True

    def decode(position: int) -> None:
        nonlocal lasting
        try:
            images[position], findings[position] = pixels.read(files[position][1], image_size, channels)
        except Exception as error:  # Pillow lets its decoders' own errors through
            problems[position] = pixels.problem(files[position][1], error)
            # Errors of the system, such as of a network disk, have a number; those of Pillow have none.
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                lasting = False

    # Pillow's decoders and its resizing leave Python's lock to the others.
    title = f"decoding {found.folder.name}, once"
    with ThreadPoolExecutor() as pool, Progress(title, len(files), "images") as progress:
        for _ in pool.map(decode, range(len(files))):
            progress.update(1)
    kept = np.array([position for position in range(len(files)) if position not in problems], np.int64)
    constant = kept[_of_one_colour(images[kept])]
    _check_colours(images[constant], len(kept), found.folder)
    affected = {name: [position for position in kept if name in findings[position]] for name in pixels.FINDINGS}
    affected[ONE_COLOUR] = constant.tolist()
    tallies = {
        key: listing.tally((files[position] for position in positions), found.folder)
        for key, positions in affected.items()
        if positions
    }
    if problems:
        tally = listing.tally((files[position] for position in sorted(problems)), found.folder)
        named = zip(tally.names, (problems[position] for position in sorted(problems)), strict=False)
        tallies[UNREADABLE] = dataclasses.replace(tally, names=tuple(f"{name} ({problem})" for name, problem in named))
    labels = np.repeat(np.arange(len(found.images)), [len(each) for each in found.images.values()])
    entry = cache.Entry(
        images[kept] if problems else images,
        labels[kept].astype(np.int64),
        tuple(found.images),
        source,
        fingerprint,
        {key: {"classes": tally.classes, "names": tally.names} for key, tally in tallies.items()},
    )
    return entry, lasting


def _of_one_colour(images: np.ndarray) -> np.ndarray:
    """Positions of images all of whose pixels are equal, ascending; of single pixels that says nothing."""
    if images.shape[1] == 1:
        return np.zeros(0, np.int64)
    first = images[:, :1, :1]
    likely = np.flatnonzero((images[:, :1] == first).all((1, 2, 3)))  # of which most images are none
    return likely[(images[likely] == first[likely]).all((1, 2, 3))]


def _check_colours(constant: np.ndarray, total: int, folder: pathlib.Path) -> None:
    """Refuses a split most of whose images are the same colour."""
    if not len(constant):
        return
    colours, counts = np.unique(constant[:, 0, 0], axis=0, return_counts=True)
    if counts.max() > _MOST_OF_ONE_COLOUR * total:
        colour = colours[counts.argmax()].tolist()
        raise ValueError(
            f"{counts.max()} of {total} images in {folder} are nothing but the colour {colour} (of 255) once they are "
            "decoded. They are not read as they were meant; save them as 8-bit RGB or grey images."
        )
