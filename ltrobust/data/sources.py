"""Named data sets as uint8 images and int64 labels, in their official order.

All but `digits` (bundled with scikit-learn) and the user's own (`folder.py`, `image_list.py`) are read from their
official archives (`archives.py`), or from ArrayRecord files that TensorFlow Datasets has prepared (`prepared.py`).
Images are decoded once and then kept under `cache_dir`, except for those of an `image_list`; `data_dir` is only read. A
pack (`pack.py`) takes the place of any official data set.
"""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ltrobust.data import archives, folder, identity, image_list, imagenet, longtail
from ltrobust.data.image_list import Lists
from ltrobust.data.images import Images
from ltrobust.runtime.names import nearest

NAMES = ("digits", *archives.NAMES, "folder", "image_list")
# The user's own, with nothing official to compare them with.
OWN = ("folder", "image_list")
SPLITS = ("train", "test")

# The first images are for training. Blocks come from different writers, so the test images are from new ones.
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
      split: `train` or `test`; of an `image_list` also `validation`.
      images: uint8 [N, H, W, C], 0 to 255, in official order: a C-contiguous array, or files of an `image_list`.
      labels: int64 [N], 0 to num_classes - 1, of these images.
      class_names: [num_classes], in label order.
      notes: what a reader of results must know about this copy, such as `partial copy: ...`; usually empty.
      fingerprint: SHA-256 of these images' pixels and labels (`identity.digest`).
      claim: what has been compared with the official data set, for the card (`identity.identify`).
      held: None, or for the training split of a pack: which official images `images` are.
      files: of the user's own, what was used and what was skipped (`folder.Loaded`); else empty.
      origin: where the decoded images come from on this machine, in words; may be empty.
      names: of the user's own, the images' files (`folder.Loaded`); else empty.
    """

    name: str
    split: str
    images: Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    claim: str = ""
    held: Held | None = None
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    origin: str = ""
    names: tuple[str, ...] = ()

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
        # Ascending, so each position is found by bisection. For one that is missing, bisection gives a neighbour, which
        # the next line counts.
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
    split: Literal["train", "validation", "test"],
    *,
    data_dir: str | os.PathLike[str] = "",
    cache_dir: str | os.PathLike[str] = "~/.cache/ltrobust",
    image_size: int = 32,
    channels: int = 3,
    skip_unreadable: bool = False,
    cache_check: str = "sample",
    lists: Lists = Lists(),  # noqa: B008 - frozen
    resize: int = 0,
) -> Split:
    """One split of a named data set; the other split is not opened.

    Official order: the archive's; Tiny-ImageNet by class, then file name. Records of TFDS are sorted by their `id`, or
    kept in TFDS's own order where there are no ids (MNIST, STL-10). `digits` are scikit-learn's 8x8 images, values 0 to
    16 as `round(255 * v / 16)`; the first 1,000 are `train` and the other 797 `test`, because consecutive blocks come
    from different writers.

    Args:
      name: one of `NAMES`. Fine labels for `cifar100`; the official val as `test` for `tiny_imagenet`.
      split: `train` or `test`; `validation` of an `image_list` that has one.
      data_dir: folder of the official archive or of TFDS's prepared records, which come first; by default TFDS's own
        (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`). For `folder` the one that holds `train` and `test`, for
        `image_list` the one that paths start from. Or the folder of a pack of this data set (`pack.write`).
      cache_dir: where decoded images are kept; empty for no cache.
      image_size, channels: what the user's own images are converted to (`folder.load`, `image_list.load`), and the size
        of those of `imagenet` and `imagenet10`; others stay as they are.
      skip_unreadable, cache_check: of the user's own only.
      lists, resize: of an `image_list` only.

    Raises:
      ValueError: unknown name or split, arguments of the wrong type, data that are not the official ones, or a folder
        or list that is no data set (`folder.load`, `image_list.load`) or no sound pack of it (`pack.read`).
      FileNotFoundError: data that are not there; the message names the archive and its place, or what is expected.

    Warns:
      UserWarning: a partial copy; pixels that are not the official ones; files of a folder that are skipped or
        doubtful.
    """
    _check_request(name, split, data_dir, cache_dir, lists)
    cache_root = pathlib.Path(cache_dir).expanduser() if os.fspath(cache_dir) else None
    form: dict[str, Any] = {"image_size": image_size, "channels": channels}
    form |= {"skip_unreadable": skip_unreadable, "cache_check": cache_check}
    if name == "image_list":
        form |= {"lists": lists, "resize": resize}
    result, published, different = _open(name, split, data_dir, cache_root, form)
    where = f"{split} of {os.fspath(data_dir) or name}"
    _check_labels(result, where)
    known = identity.identify(
        name,
        split,
        result.images,
        result.labels,
        official_labels=result.official_labels,
        num_classes=result.num_classes,
        published=published,
    )
    identity_notes = known.notes
    if different:
        # Where the checksum is another one, what is known of labels and pixels says what that means.
        warnings.warn(f"{where}: {different}: {'; '.join(known.notes) or known.claim}.", UserWarning, stacklevel=2)
        identity_notes = known.notes or ((different,) if known.claim != identity.OFFICIAL else ())
    notes = tuple(dict.fromkeys(result.notes + identity_notes))
    for note in () if different else known.notes if name in OWN else notes:  # of one's own: where urgent
        warnings.warn(f"{where}: {note}.", UserWarning, stacklevel=2)
    # A pack with a part of the images knows what was compared when it was made.
    claim = (len(result.labels) < len(result.official_labels) and result.claim) or known.claim
    return dataclasses.replace(result, notes=notes, fingerprint=known.fingerprint, claim=claim)


def _open(
    name: str, split: str, data_dir: str | os.PathLike[str], cache_root: pathlib.Path | None, form: Any
) -> tuple[Split, bool, str]:
    """A pack, digits, the user's own, prepared records or an archive.

    Also whether the archive has the published checksum, and what tells it from the published one, in words.

    `form` are the arguments of `load` that say what becomes of images of many sizes.
    """
    # Both are imported where they are used: they build on this module, and only `prepared` needs TFDS.
    from ltrobust.data import pack

    if pack.is_pack(data_dir):
        return pack.read(data_dir, split, name=name), False, ""
    if name == "digits":
        return _digits(split), False, ""
    if name in OWN:
        return _own(name, split, data_dir, cache_root, form), False, ""
    root = pathlib.Path(os.fspath(data_dir) or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    if name in imagenet.CLASSES:
        entry, origin = imagenet.load(
            split,
            places=archives.places(archives.published.DATA[name].forms[0], root),
            image_size=form["image_size"],
            classes=imagenet.CLASSES[name],
            cache_root=cache_root,
            how=archives.how_to_get(name, root),
        )
        return Split(name, split, entry.images, entry.labels, entry.class_names, origin=origin), False, ""
    if not any(root.glob(f"{name}/*/dataset_info.json")):
        entry, origin = archives.load(name, split, data_dir=root, cache_root=cache_root)
        read = Split(name, split, entry.images, entry.labels, entry.class_names, origin=origin)
        return read, archives.PUBLISHED in entry.source, entry.findings.get(archives.DIFFERENT, "")
    try:
        from ltrobust.data import prepared
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"{root / name} holds records that TFDS has prepared, and {error.name}, which reads them, is not installed."
            " Install tensorflow-datasets and array_record, or give a folder with the official archive instead."
        ) from error
    return prepared.load(name, split, data_dir=root, cache_root=cache_root), False, ""


def _own(
    name: str, split: str, data_dir: str | os.PathLike[str], cache_root: pathlib.Path | None, form: Mapping[str, Any]
) -> Split:
    """A folder or a list."""
    if name == "folder":
        result = folder.load(data_dir, split, cache_root=cache_root, **form)
        entry, names = result.entry, result.names
    else:
        entry = result = image_list.load(data_dir, split, **form)
        names = result.images.names
    if result.warnings:
        place = folder.listing.printable(os.fspath(data_dir))
        warnings.warn(f"{split} of {place}: {'; '.join(result.warnings)}.", UserWarning, stacklevel=4)
    kept = {"files": result.files, "origin": result.origin, "names": names}
    return Split(name, split, entry.images, entry.labels, entry.class_names, result.notes, **kept)


def _check_labels(found: Split, where: str) -> None:
    """Labels in range, and for CIFAR the official sequence."""
    longtail.count_classes(found.official_labels, found.num_classes)
    # A copy in another order would give other long-tailed subsets under the same seed.
    expected = identity.LABELS.get((found.name, found.split))
    actual = longtail.fingerprint(found.official_labels)
    if expected is not None and actual != expected:
        raise ValueError(
            f"{where} is not the official {found.name}: its {len(found.labels):,} labels have SHA-256 {actual}, "
            f"the official ones {expected}. Give another copy: see ltrobust data {found.name}."
        )


def image_names(
    split: str,
    positions: np.ndarray,
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    files: Sequence[str],
) -> list[str]:
    """Names of images in messages: their files, else class and position.

    Args:
      split: `train` or `test`.
      positions, labels: int64 [K], official positions in the split, and labels.
      class_names: in label order.
      files: names of all files of the split (`Split.names`), or nothing.
    """
    if files:
        return [files[int(position)] for position in positions]
    return [
        f"{split} image {position} ({class_names[label]})" for position, label in zip(positions, labels, strict=True)
    ]


def form(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load` that say what becomes of images in files, from a configuration's `data`.

    Runs from before the keys existed lack some of them.
    """
    keys = ("image_size", "channels", "skip_unreadable", "cache_check", "resize")
    return {key: data[key] for key in keys if key in data} | {"lists": Lists(**data.get("lists", {}))}


def check_form(data: Mapping[str, Any]) -> None:
    """Refuses settings of the user's own images, from a configuration's `data`, that are out of range (ValueError)."""
    if data["name"] in OWN:
        folder.check_arguments(*(data[key] for key in ("image_size", "channels", "skip_unreadable", "cache_check")))
    if data["name"] == "image_list":
        image_list.check_resize(data["resize"], data["image_size"])


def _check_request(name: object, split: object, data_dir: object, cache_dir: object, lists: Lists) -> None:
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"data set is {name!r}; {nearest(name, NAMES)}known data sets: {', '.join(NAMES)}.")
    known = image_list.SPLITS if name == "image_list" and lists.validation else SPLITS
    if not isinstance(split, str) or split not in known:
        raise ValueError(f"split is {split!r}; {nearest(split, known)}known splits: {', '.join(known)}.")
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
