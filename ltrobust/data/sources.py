"""Named data sets as uint8 images and int64 labels, in their official order.

All but `digits` (bundled with scikit-learn) and `folder` (the user's own, `folder.py`) are read through TensorFlow
Datasets from prepared ArrayRecord files, without TensorFlow (`prepared.py`). Images are decoded once and then kept
under `cache_dir`. A pack (`pack.py`) takes the place of any data set but `folder`, and needs none of that.
"""

import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ltrobust.data import cache, folder, pack_manifest
from ltrobust.names import nearest

NAMES = ("digits", "cifar10", "cifar100", "mnist", "svhn_cropped", "stl10", "tiny_imagenet", "folder")
SPLITS = ("train", "test")

# SHA-256 of the label sequences in official order (docs/protocols.md): a reordered or relabelled copy fails.
LABEL_FINGERPRINTS = {
    ("cifar10", "train"): "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
    ("cifar10", "test"): "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    ("cifar100", "train"): "8bf4935e7c77a3096270043c6f3b221b6ecb9c63d1a08608e9af66cff17e977a",
    ("cifar100", "test"): "80031c23f8300724c6fbc588e4bccbe41c6392041782148727bb497b0132c4ad",
}

DIGITS_TRAIN = 1000


@dataclasses.dataclass(frozen=True)
class Held:
    """Which images of a training split a partial copy holds.

    Attributes:
      positions: int64 [M], official positions of the images that are there, ascending.
      labels: int64 [N], of the complete split, in official order.
      choice: the long-tailed subset that was kept, in words (`longtail.describe_choice`).
    """

    positions: np.ndarray
    labels: np.ndarray
    choice: str


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
      name: data set, one of `NAMES`.
      split: `train` or `test`.
      images: uint8 [N, H, W, C], C-contiguous, 0 to 255, in official order.
      labels: int64 [N], 0 to num_classes - 1, of these images.
      class_names: [num_classes], in label order.
      notes: what a reader of results must know about this copy, such as `partial copy: ...`; usually empty.
      fingerprint: SHA-256 of pixels and labels of a `folder`, which has no official order whose positions could be
        named instead; else empty.
      held: None, or for the training split of a pack: which official images `images` are.
      files: of a `folder`, what was used and what was passed over (`folder.Loaded`); else empty.
      origin: where the decoded images come from on this machine, in words; may be empty.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    held: Held | None = None
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not this split has images of each."""
        return len(self.class_names)

    @property
    def official_labels(self) -> np.ndarray:
        """Labels of the complete split, int64 [N], in official order."""
        return self.labels if self.held is None else self.held.labels

    def rows_of(self, positions: np.ndarray, choice: str) -> np.ndarray:
        """Rows of `images` with these official positions, int64 [K].

        Args:
          positions: int64 [K], official positions.
          choice: what they were chosen by, for the message (`longtail.describe_choice`).

        Raises:
          ValueError: a pack does not hold all of them.
        """
        if self.held is None:
            return positions
        held = self.held.positions
        rows = np.minimum(np.searchsorted(held, positions), len(held) - 1)
        if missing := int((held[rows] != positions).sum()):
            raise ValueError(
                f"this pack of {self.name} holds the training images of {self.held.choice}; {choice} needs "
                f"{len(positions):,} images, of which {missing:,} are not in it. Make a pack with these settings, or "
                "give the folder of the full data set (data.dir)."
            )
        return rows


def load(
    name: str,
    split: Literal["train", "test"],
    *,
    data_dir: str | os.PathLike[str] = "",
    cache_dir: str | os.PathLike[str] = "~/.cache/ltrobust",
    image_size: int = 32,
    channels: int = 3,
    skip_unreadable: bool = False,
    cache_check: str = "sample",
) -> Split:
    """One split of a named data set; the other split is not opened.

    Official order: by TFDS's `id` (CIFAR, Tiny-ImageNet), or TFDS's own order where there are no ids (MNIST,
    SVHN, STL-10). `digits` are scikit-learn's 8x8 images, values 0 to 16 as `round(255 * v / 16)`; the first
    1,000 are `train` and the other 797 `test`, because consecutive blocks come from different writers.

    Args:
      name: one of `NAMES`. Fine labels for `cifar100`; the official val as `test` for `tiny_imagenet`.
      split: `train` or `test`.
      data_dir: local TFDS folder, by default TFDS's own (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`); for `folder`
        the one that holds `train` and `test`; or the folder of a pack of this data set (`pack.write`).
      cache_dir: where decoded images are kept; empty for no cache.
      image_size, channels: what the images of a `folder` are converted to (`folder.load`); others stay as they are.
      skip_unreadable, cache_check: of a `folder` only (`folder.load`).

    Raises:
      ValueError: unknown name or split, arguments of the wrong type, data that are not the official ones, or a folder
        that is no data set (`folder.load`) or no sound pack of it (`pack.read`).
      FileNotFoundError: data that are not there; the message gives the command that makes them, or what is expected.

    Warns:
      UserWarning: a partial copy of Tiny-ImageNet; files of a folder that are passed over, or used and doubtful.
    """
    _check_request(name, split, data_dir, cache_dir)
    # Both are imported where they are used: they build on this module, and only `prepared` needs TFDS.
    from ltrobust.data import pack

    if pack.is_pack(data_dir):
        return pack.read(data_dir, split, name=name)
    if name == "digits":
        return _digits(split)
    cache_root = pathlib.Path(cache_dir).expanduser() if os.fspath(cache_dir) else None
    if name == "folder":
        options = {"skip_unreadable": skip_unreadable, "cache_check": cache_check}
        found = folder.load(data_dir, split, image_size=image_size, channels=channels, cache_root=cache_root, **options)
        if found.warnings:
            place = folder.listing.printable(os.fspath(data_dir))
            warnings.warn(f"{split} of {place}: {'; '.join(found.warnings)}.", UserWarning, stacklevel=2)
        entry, kept = found.entry, {"files": found.files, "origin": found.origin}
        return Split(name, split, entry.images, entry.labels, entry.class_names, found.notes, _digest(entry), **kept)
    try:
        from ltrobust.data import prepared
    except ModuleNotFoundError as error:
        where = os.fspath(data_dir) or "the default data_dir"
        raise FileNotFoundError(
            f"{where} holds no pack of {name} ({pack_manifest.NAME}), and {error.name}, which complete data sets need, "
            "is not installed. Give the folder of a pack, or install tensorflow-datasets and array_record."
        ) from error
    return prepared.load(name, split, data_dir=data_dir, cache_root=cache_root)


def form(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load` that say what becomes of a folder's images, from a configuration's `data`.

    Runs from before the keys existed lack some of them.
    """
    return {key: data[key] for key in ("image_size", "channels", "skip_unreadable", "cache_check") if key in data}


def _digest(entry: cache.Entry) -> str:
    """SHA-256 of the images' bytes, then of the labels' as `longtail.fingerprint` takes them."""
    digest = hashlib.sha256(entry.images.data)
    digest.update(entry.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _check_request(name: object, split: object, data_dir: object, cache_dir: object) -> None:
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"data set is {name!r}; {nearest(name, NAMES)}known data sets: {', '.join(NAMES)}.")
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"split is {split!r}; {nearest(split, SPLITS)}known splits: {', '.join(SPLITS)}.")
    for key, value in (("data_dir", data_dir), ("cache_dir", cache_dir)):
        if not isinstance(value, str | os.PathLike):
            raise ValueError(f"{key} is {value!r}; give a path, or an empty string for the default.")


def _digits(split: str) -> Split:
    # Here, because importing scikit-learn takes a second that the other data sets need not wait.
    from sklearn import datasets

    bunch: Any = datasets.load_digits()
    part = slice(None, DIGITS_TRAIN) if split == "train" else slice(DIGITS_TRAIN, None)
    images = np.round(255 * bunch.images[part, ..., None] / 16).astype(np.uint8)
    return Split("digits", split, images, bunch.target[part].astype(np.int64), tuple(map(str, range(10))))
