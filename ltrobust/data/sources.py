"""Named data sets as uint8 images and int64 labels, in their official order.

All but `digits` (bundled with scikit-learn) and `folder` (the user's own, `folder.py`) are read through TensorFlow
Datasets from prepared ArrayRecord files, without TensorFlow. Images are decoded once and then kept under `cache_dir`.
"""

import dataclasses
import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.constants import DATA_DIR
from tqdm import tqdm

from ltrobust.data import cache, folder, longtail, tiny_imagenet

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

# Records read at a time: array_record reads them side by side, and a few hundred small images fit anywhere.
_CHUNK = 500


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
      name: data set, one of `NAMES`.
      split: `train` or `test`.
      images: uint8 [N, H, W, C], C-contiguous, 0 to 255, in official order.
      labels: int64 [N], 0 to num_classes - 1.
      class_names: [num_classes], in label order.
      notes: what a reader of results must know about this copy, such as `partial copy: ...`; usually empty.
      fingerprint: SHA-256 of pixels and labels of a `folder`, which has no official order whose positions could be
        named instead; else empty.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not this split has images of each."""
        return len(self.class_names)


def load(
    name: str,
    split: Literal["train", "test"],
    *,
    data_dir: str | os.PathLike[str] = "",
    cache_dir: str | os.PathLike[str] = "~/.cache/ltrobust",
    image_size: int = 32,
    channels: int = 3,
) -> Split:
    """One split of a named data set; the other split is not opened.

    Official order: by TFDS's `id` (CIFAR, Tiny-ImageNet), or TFDS's own order where there are no ids (MNIST,
    SVHN, STL-10). `digits` are scikit-learn's 8x8 images, values 0 to 16 as `round(255 * v / 16)`; the first
    1,000 are `train` and the other 797 `test`, because consecutive blocks come from different writers.

    Args:
      name: one of `NAMES`. Fine labels for `cifar100`; the official val as `test` for `tiny_imagenet`.
      split: `train` or `test`.
      data_dir: local TFDS folder, by default TFDS's own (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`); for `folder`
        the one that holds `train` and `test`.
      cache_dir: where decoded images are kept; empty for no cache.
      image_size, channels: what the images of a `folder` are converted to (`folder.load`); others stay as they are.

    Raises:
      ValueError: unknown name or split, arguments of the wrong type, data that are not the official ones, or a folder
        that is no data set (`folder.load`).
      FileNotFoundError: data that are not there; the message gives the command that makes them, or what is expected.

    Warns:
      UserWarning: a partial copy of Tiny-ImageNet; files of a folder that are passed over.
    """
    _check_request(name, split, data_dir, cache_dir)
    if name == "digits":
        return _digits(split)
    cache_root = pathlib.Path(cache_dir).expanduser() if os.fspath(cache_dir) else None
    if name == "folder":
        entry, notes = folder.load(data_dir, split, image_size=image_size, channels=channels, cache_root=cache_root)
        for note in notes:
            warnings.warn(f"{split} of {os.fspath(data_dir)}: {note}.", UserWarning, stacklevel=2)
        return Split(name, split, entry.images, entry.labels, entry.class_names, notes, _digest(entry))
    builder = _open_builder(name, _existing_data_dir(name, data_dir), cache_root)
    entry = _cached_or_decoded(builder, split, cache_root)
    _check_labels(entry, builder, split)
    notes = ()
    if name == "tiny_imagenet":
        notes = tiny_imagenet.completeness(entry.labels, split=split, num_classes=len(entry.class_names))
    for note in notes:
        hint = "To prepare a complete archive instead, remove that folder first"
        warnings.warn(f"{entry.source} in {builder.data_path}: {note}. {hint}.", UserWarning, stacklevel=2)
    return Split(name, split, entry.images, entry.labels, entry.class_names, notes)


def form(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `load` that say what images are converted to, from a configuration's `data`.

    Runs from before there were folders have none of these keys.
    """
    return {key: data[key] for key in ("image_size", "channels") if key in data}


def _digest(entry: cache.Entry) -> str:
    """SHA-256 of the images' bytes, then of the labels' as `longtail.fingerprint` takes them."""
    digest = hashlib.sha256(entry.images.data)
    digest.update(entry.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _check_request(name: object, split: object, data_dir: object, cache_dir: object) -> None:
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"data set is {name!r}; known data sets: {', '.join(NAMES)}.")
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(f"split is {split!r}; known splits: {', '.join(SPLITS)}.")
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


def _existing_data_dir(name: str, data_dir: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(os.fspath(data_dir) or DATA_DIR).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"data_dir {path} is no folder, so {name} is not there. {_how_to_make(name, path)}")
    return path


def _how_to_make(name: str, data_dir: pathlib.Path) -> str:
    """The one sentence that ends every complaint about missing data."""
    if name == "tiny_imagenet":
        return f"{tiny_imagenet.TinyImagenet.MANUAL_DOWNLOAD_INSTRUCTIONS} Place: {data_dir}/downloads/manual/."
    return (
        "To make it: pip install 'ltrobust[tfds-prepare]' && "
        f"tfds build {name} --file_format=array_record --data_dir={data_dir}"
    )


def _open_builder(name: str, data_dir: pathlib.Path, cache_root: pathlib.Path | None) -> tfds.core.DatasetBuilder:
    """A builder whose ArrayRecord files are on disk."""
    try:
        if name == "tiny_imagenet":
            return tiny_imagenet.prepared(data_dir, cache_root)
        builder = tfds.builder(name, data_dir=str(data_dir))
    except (ValueError, OSError):
        raise
    except Exception as error:  # TFDS lets its parsers' own errors through
        raise ValueError(_damaged(f"{data_dir / name}", error) + _how_to_make(name, data_dir)) from error
    if not builder.is_prepared():
        raise FileNotFoundError(f"{builder.data_path} has no prepared {name}. {_how_to_make(name, data_dir)}")
    file_format = getattr(builder.info.file_format, "value", None)
    if file_format != "array_record":
        raise ValueError(
            f"{name} in {builder.data_path} is stored as {file_format}, which needs TensorFlow; "
            f"array_record is read without. {_how_to_make(name, data_dir)} --overwrite"
        )
    return builder


def _record_files(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[os.PathLike[str]]:
    """What an entry of this split depends on."""
    known = builder.info.splits
    files = [*known[split].filepaths, builder.data_path / "dataset_info.json"] if split in known else []
    if not files or not all(file.exists() for file in files):
        how = _how_to_make(builder.name, pathlib.Path(builder.data_path).parents[1])
        raise FileNotFoundError(f"{builder.data_path} lacks files of split {split}. Remove that folder. {how}")
    return files


def _cached_or_decoded(builder: tfds.core.DatasetBuilder, split: str, cache_root: pathlib.Path | None) -> cache.Entry:
    """The split's arrays, from the cache if it holds them."""
    fingerprint = cache.fingerprint_files(_record_files(builder, split))
    source = f"{builder.name}/{builder.version} {split}"
    if cache_root is None:
        return _decode(builder, split, source, fingerprint)
    path = cache.entry_path(cache_root, f"{builder.name}-{builder.version}-{split}", builder.data_path)
    entry = cache.read(path, fingerprint)
    if entry is None:
        entry = _decode(builder, split, source, fingerprint)
        cache.write(path, entry)
    return entry


def _decode(builder: Any, split: str, source: str, fingerprint: str) -> cache.Entry:
    """Decodes every record of a TFDS builder (untyped: TFDS annotates too little), in official order.

    One thread, about 0.1 ms per CIFAR image: TFDS parses records in Python, so threads wait for each other
    (measured slower), and processes would save seconds of work that happens once.
    """
    records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(records), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(records), np.int64)
    ids: list[str] = []
    with tqdm(total=len(records), desc=f"decoding {source}, once", unit="image") as progress:
        for start in range(0, len(records), _CHUNK):
            stop = min(start + _CHUNK, len(records))
            for position, example in enumerate(_read(builder, records, start, stop), start):
                images[position] = _pixels(example["image"], images.shape[1:], f"record {position} of {source}")
                labels[position] = example["label"]
                ids.extend([example["id"].decode()] if "id" in example else [])
            progress.update(stop - start)
    if ids:
        order = _official_order(ids, split, source)
        images, labels = images[order], labels[order]
    return cache.Entry(images, labels, tuple(builder.info.features["label"].names), source, fingerprint)


def _read(builder: Any, records: Any, start: int, stop: int) -> list[dict[str, Any]]:
    """Records from `start` to before `stop`; those of a file that was cut off come without values."""
    try:
        examples = records.__getitems__(range(start, stop))
        if any(value is None for example in examples for value in example.values()):
            raise ValueError("records without content")
        return examples
    except Exception as error:  # array_record raises its C++ library's messages as several types
        how = _how_to_make(builder.name, pathlib.Path(builder.data_path).parents[1])
        raise ValueError(_damaged(f"{builder.data_path}", error) + how) from error


def _damaged(folder: str, error: Exception) -> str:
    """The beginning of a complaint about a prepared folder that cannot be read."""
    return f"{folder} cannot be read ({type(error).__name__}: {error}); it may be damaged. Remove that folder. "


def _pixels(encoded: bytes, shape: tuple[int, ...], record: str) -> np.ndarray:
    """uint8 [H, W, C] from PNG or JPEG bytes; grey images become RGB where three channels are asked for."""
    try:
        image = Image.open(io.BytesIO(encoded)).convert("L" if shape[-1] == 1 else "RGB")
    except (OSError, SyntaxError) as error:  # Pillow's SyntaxError means a broken PNG.
        raise ValueError(
            f"{record} holds a damaged image ({len(encoded)} bytes); prepare the data set again."
        ) from error
    if (image.height, image.width) != shape[:2]:
        raise ValueError(f"{record} is {image.height}x{image.width} pixels, expected {shape[0]}x{shape[1]}.")
    return np.asarray(image).reshape(shape)


def _official_order(ids: list[str], split: str, source: str) -> np.ndarray:
    """Positions that sort records by id: by number for `train_00042`, else by text (Tiny-ImageNet)."""
    if "/" in ids[0]:
        return np.argsort(np.array(ids), kind="stable")
    texts = [text.removeprefix(f"{split}_") for text in ids]
    numbers = np.array([int(text) if text.isdecimal() else -1 for text in texts])
    if not np.array_equal(np.sort(numbers), np.arange(len(ids))):
        raise ValueError(
            f"the ids of {source} are not {split}_0 to {split}_{len(ids) - 1}, each once; prepare it again."
        )
    return np.argsort(numbers)


def _check_labels(entry: cache.Entry, builder: tfds.core.DatasetBuilder, split: str) -> None:
    """Labels in range, and for CIFAR the official sequence."""
    longtail.count_classes(entry.labels, len(entry.class_names))
    expected = LABEL_FINGERPRINTS.get((builder.name, split))
    found = longtail.fingerprint(entry.labels)
    if expected is not None and found != expected:
        how = _how_to_make(builder.name, pathlib.Path(builder.data_path).parents[1])
        raise ValueError(
            f"{entry.source} in {builder.data_path} is not the official data set: its {len(entry.labels):,} "
            f"labels have SHA-256 {found}, the official ones {expected}. Remove this copy. {how}"
        )
