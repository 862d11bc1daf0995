"""Data sets that TensorFlow Datasets has prepared as ArrayRecord files, read without TensorFlow.

Only this module imports `tensorflow_datasets`; `sources.load` imports it when it needs it.
"""

import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from ltrobust.data import archives, cache, sources
from ltrobust.runtime.terminal import Progress

# Part of a decoded copy's fingerprint: raise it when `_decode` gives other images, labels or another order.
VERSION = 1

# Records read at a time: array_record reads them side by side, and a few hundred small images fit anywhere.
_CHUNK = 500


def load(name: str, split: str, *, data_dir: pathlib.Path, cache_root: pathlib.Path | None) -> sources.Split:
    """One split of a prepared data set; the other split is not opened.

    Args:
      name: one of `archives.NAMES`.
      split: `train` or `test`.
      data_dir: the folder that holds the folder `name` with the records.
      cache_root: where decoded images are kept, or None.

    Raises:
      ValueError: records that cannot be read.
      FileNotFoundError: records that are not there; the message says how to get the data.
    """
    entry, origin = _cached_or_decoded(_open_builder(name, data_dir), split, cache_root)
    return sources.Split(name, split, entry.images, entry.labels, entry.class_names, origin=origin)


def _open_builder(name: str, data_dir: pathlib.Path) -> tfds.core.DatasetBuilder:
    """A builder whose ArrayRecord files are on disk."""
    how = archives.how_to_get(name, data_dir)
    try:
        if name == "tiny_imagenet":  # TFDS has no such data set: an earlier version of this project prepared it
            builder = tfds.builder_from_directory(str(max((data_dir / name).glob("*/dataset_info.json")).parent))
        else:
            builder = tfds.builder(name, data_dir=str(data_dir))
    except Exception as error:  # TFDS lets its parsers' own errors through
        raise ValueError(_damaged(f"{data_dir / name}", error) + how) from error
    if not builder.is_prepared():
        raise FileNotFoundError(f"{builder.data_path} has no prepared {name}. {how}")
    file_format = getattr(builder.info.file_format, "value", None)
    if file_format != "array_record":
        raise ValueError(
            f"{name} in {builder.data_path} is stored as {file_format}, which needs TensorFlow. Remove that folder, or "
            f"name another data.dir. {how}"
        )
    return builder


def _record_files(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[os.PathLike[str]]:
    """What an entry of this split depends on."""
    known = builder.info.splits
    files = [*known[split].filepaths, builder.data_path / "dataset_info.json"] if split in known else []
    if not files or not all(file.exists() for file in files):
        how = archives.how_to_get(builder.name, pathlib.Path(builder.data_path).parents[1])
        raise FileNotFoundError(f"{builder.data_path} lacks files of split {split}. Remove that folder. {how}")
    return files


def _cached_or_decoded(
    builder: tfds.core.DatasetBuilder, split: str, cache_root: pathlib.Path | None
) -> tuple[cache.Entry, str]:
    """The split's arrays, from the cache if it holds them, and where they come from."""
    fingerprint = cache.fingerprint_files(_record_files(builder, split), form=f"decoder {VERSION}", check="sample")
    source = f"{builder.name}/{builder.version} {split}"
    if cache_root is None:
        return _decode(builder, split, source, fingerprint), cache.NO_COPY
    path = cache.entry_path(cache_root, f"{builder.name}-{builder.version}-{split}", builder.data_path)
    if (entry := cache.read(path, fingerprint)) is not None:
        return entry, f"decoded copy {path}"
    entry = _decode(builder, split, source, fingerprint)
    return entry, cache.write(path, entry)


def _decode(builder: Any, split: str, source: str, fingerprint: str) -> cache.Entry:
    """Decodes every record of a TFDS builder (untyped: TFDS annotates too little), in official order.

    One thread, about 0.1 ms per CIFAR image: TFDS parses records in Python, so threads wait for each other
    (measured slower), and processes would save seconds of work that happens once.
    """
    records = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    images = np.empty((len(records), *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(len(records), np.int64)
    ids: list[str] = []
    with Progress(f"decoding {source}, once", len(records), "images") as progress:
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
        how = archives.how_to_get(builder.name, pathlib.Path(builder.data_path).parents[1])
        raise ValueError(_damaged(f"{builder.data_path}", error) + how) from error


def _damaged(folder: str, error: Exception) -> str:
    """Beginning of the error about a prepared folder that cannot be read."""
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
