"""A folder of class directories as a data set: `DIR/train/CLASS/...` and `DIR/test/CLASS/...`, an image per file.

Classes are numbered in the sorted order of their names, images in that of their paths. Files are decoded once, by
Pillow, and kept in the same cache as those of named data sets.
"""

import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from ltrobust.data import cache, listing, pixels


def load(
    data_dir: str | os.PathLike[str],
    split: str,
    *,
    image_size: int,
    channels: int,
    cache_root: pathlib.Path | None,
) -> tuple[cache.Entry, tuple[str, ...]]:
    """One split's arrays, and notes for the card. Of the other split only names are looked at.

    Pixels: EXIF orientation is applied, transparency dropped, colours are converted to RGB or to grey (ITU-R 601), then
    both sides are resized to `image_size` (bilinear over the source's area, as Pillow does it; the aspect ratio is not
    kept), unless they have it.

    Args:
      data_dir: holds the folders `train` and `test`; `val` counts as `test` where there is no `test`.
      split: `train` or `test`.
      image_size: height and width in pixels.
      channels: 1 or 3.
      cache_root: where decoded images are kept, or None.

    Raises:
      ValueError: no folder given, size or channels that are no images, classes that differ between the splits, a class
        without images, or files that cannot be read, by their paths.
      FileNotFoundError: a folder that is missing.
    """
    _check_form(image_size, channels)
    folders = _split_folders(data_dir)
    listings = {name: listing.read(folder) for name, folder in folders.items()}
    listing.check_classes(listings)
    found = listings[split]
    files = [file for images in found.images.values() for file in images]
    form = f"{image_size}x{image_size}x{channels}"
    fingerprint = cache.fingerprint_files(files, root=found.folder, form=form)
    path = None
    if cache_root is not None:
        path = cache.entry_path(cache_root, f"folder-{split}-{form}", found.folder)
        if (entry := cache.read(path, fingerprint)) is not None:
            return entry, found.notes
    labels = np.repeat(np.arange(len(found.images)), [len(images) for images in found.images.values()])
    images = _decode(files, image_size, channels, f"decoding {found.folder.name}, once")
    entry = cache.Entry(images, labels.astype(np.int64), tuple(found.images), f"folder {split}", fingerprint)
    if path is not None:
        cache.write(path, entry)
    return entry, found.notes


def _check_form(image_size: object, channels: object) -> None:
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"data.image_size is {image_size!r}; give the pixels of one side, at least 1.")
    if channels not in (1, 3):
        raise ValueError(f"data.channels is {channels!r}; give 1 (grey) or 3 (RGB).")


def _split_folders(data_dir: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
    """Split -> its folder."""
    if not os.fspath(data_dir):
        raise ValueError(
            f"data.name is 'folder' and data.dir is empty; give --config.data.dir=DIR: {listing.EXPECTED}."
        )
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"data.dir {root} is no folder; {listing.EXPECTED}.")
    found = {}
    for split, names in listing.FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if not there:
            held = listing.some(sorted(path for path in root.iterdir() if not path.name.startswith(".")))
            raise FileNotFoundError(
                f"data.dir {root} has no folder {' or '.join(names)}; {listing.EXPECTED}. "
                f"It holds: {held or 'nothing'}."
            )
        found[split] = there[0]
    return found


def _decode(files: Sequence[pathlib.Path], image_size: int, channels: int, title: str) -> np.ndarray:
    """uint8 [N, H, W, C]; all files that cannot be read are told together."""
    images = np.empty((len(files), image_size, image_size, channels), np.uint8)
    damaged: list[str] = []

    def decode(position: int) -> None:
        try:
            images[position] = pixels.read(files[position], image_size, channels)
        except Exception as error:  # Pillow lets its decoders' own errors through
            damaged.append(f"{files[position]} ({type(error).__name__}: {error})")

    # Pillow's decoders and its resizing leave Python's lock to the others.
    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(decode, range(len(files))), desc=title, total=len(files), unit="image"):
            pass
    if damaged:
        raise ValueError(
            f"{len(damaged)} of {len(files)} images cannot be read: {listing.some(sorted(damaged))}. Mend them."
        )
    return images
