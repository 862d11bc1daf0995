"""A folder of class directories as a data set: `DIR/train/CLASS/...` and `DIR/test/CLASS/...`, an image per file.

Classes are numbered in the sorted order of their names, images in that of their paths. Files are decoded once, by
Pillow, and kept in the same cache as those of named data sets.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from ltrobust.data import cache

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Split -> names of its folder, the first one that is there.
FOLDERS = {"train": ("train",), "test": ("test", "val")}
EXPECTED = "expected are train/CLASS/IMAGE and test/CLASS/IMAGE (or val), with the same classes in both"

# How many files a message names.
_NAMED = 5
# What 8 bits per channel are made of without loss of range; wider modes would be cut off at 255.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of one split: where it lies, its classes in label order, and of each class the images in order.

    `others` are files in class directories that are no images by their suffix.
    """

    folder: pathlib.Path
    images: dict[str, tuple[pathlib.Path, ...]]
    others: tuple[pathlib.Path, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know."""
        if not self.others:
            return ()
        return (f"{len(self.others)} files were passed over, as they are no images by suffix: {_some(self.others)}",)


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
    listings = {name: _list(folder) for name, folder in folders.items()}
    _check_classes(listings)
    listing = listings[split]
    files = [file for images in listing.images.values() for file in images]
    form = f"{image_size}x{image_size}x{channels}"
    fingerprint = cache.fingerprint_files(files, root=listing.folder, form=form)
    path = None
    if cache_root is not None:
        path = cache.entry_path(cache_root, f"folder-{split}-{form}", listing.folder)
        if (entry := cache.read(path, fingerprint)) is not None:
            return entry, listing.notes
    labels = np.repeat(np.arange(len(listing.images)), [len(images) for images in listing.images.values()])
    images = _decode(files, image_size, channels, f"decoding {listing.folder.name}, once")
    entry = cache.Entry(images, labels.astype(np.int64), tuple(listing.images), f"folder {split}", fingerprint)
    if path is not None:
        cache.write(path, entry)
    return entry, listing.notes


def _check_form(image_size: object, channels: object) -> None:
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"data.image_size is {image_size!r}; give the pixels of one side, at least 1.")
    if channels not in (1, 3):
        raise ValueError(f"data.channels is {channels!r}; give 1 (grey) or 3 (RGB).")


def _split_folders(data_dir: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
    """Split -> its folder."""
    if not os.fspath(data_dir):
        raise ValueError(f"data.name is 'folder' and data.dir is empty; give --config.data.dir=DIR: {EXPECTED}.")
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"data.dir {root} is no folder; {EXPECTED}.")
    found = {}
    for split, names in FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if not there:
            held = _some(sorted(path for path in root.iterdir() if not path.name.startswith(".")))
            raise FileNotFoundError(
                f"data.dir {root} has no folder {' or '.join(names)}; {EXPECTED}. It holds: {held or 'nothing'}."
            )
        found[split] = there[0]
    return found


def _list(folder: pathlib.Path) -> Listing:
    """Names only; what begins with a dot is passed over."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder} has no class directories; {EXPECTED}.")
    images, others = {}, []
    for directory in classes:
        files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
        images[directory.name] = tuple(file for file in files if file.suffix.lower() in SUFFIXES)
        others += [file for file in files if file.suffix.lower() not in SUFFIXES]
    return Listing(folder, images, tuple(others))


def _check_classes(listings: dict[str, Listing]) -> None:
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
                raise ValueError(
                    f"class {name} has no image in {listing.folder / name} (images end in {', '.join(SUFFIXES)}); "
                    "put some there, or remove the class from both splits."
                )


def _decode(files: Sequence[pathlib.Path], image_size: int, channels: int, title: str) -> np.ndarray:
    """uint8 [N, H, W, C]; all files that cannot be read are told together."""
    images = np.empty((len(files), image_size, image_size, channels), np.uint8)
    damaged: list[str] = []

    def decode(position: int) -> None:
        try:
            images[position] = _pixels(files[position], image_size, channels)
        except Exception as error:  # Pillow lets its decoders' own errors through
            damaged.append(f"{files[position]} ({type(error).__name__}: {error})")

    # Pillow's decoders and its resizing leave Python's lock to the others.
    with ThreadPoolExecutor() as pool:
        for _ in tqdm(pool.map(decode, range(len(files))), desc=title, total=len(files), unit="image"):
            pass
    if damaged:
        raise ValueError(f"{len(damaged)} of {len(files)} images cannot be read: {_some(sorted(damaged))}. Mend them.")
    return images


def _pixels(file: pathlib.Path, image_size: int, channels: int) -> np.ndarray:
    """uint8 [H, W, C] of one file."""
    with Image.open(file) as opened:
        if opened.mode not in _MODES:
            raise ValueError(f"pixels of mode {opened.mode}, which are not 8 bits; convert the file")
        image = ImageOps.exif_transpose(opened)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency, which Pillow wants to be told of
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels)


def _some(things: Sequence[object]) -> str:
    """The first few, and how many more there are."""
    more = f" and {len(things) - _NAMED} more" if len(things) > _NAMED else ""
    return ", ".join(map(str, things[:_NAMED])) + more
