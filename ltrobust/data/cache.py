"""Decoded images kept on disk: one checksummed, uncompressed `.npz` per split, written atomically.

A cache file is never trusted: it must carry the fingerprint of the record files it was decoded from, and the
SHA-256 of both of its arrays. Anything else is reported in one line and counts as absent, so that the caller
decodes anew.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import PIL
from absl import logging

# Part of every fingerprint: raise it when the meaning of a cache file changes.
FORMAT = 1

# What NumPy and zipfile raise for files that are cut off, overwritten or no archives at all.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A decoded split in official order, and where it came from.

    `images` uint8 [N, H, W, C], `labels` int64 [N], `class_names` in label order, `source` such as
    `cifar10/3.0.2 test`, `fingerprint` of the files that were decoded (see `fingerprint_files`).
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    fingerprint: str


def fingerprint_files(
    paths: Iterable[str | os.PathLike[str]], *, root: str | os.PathLike[str] | None = None, form: str = ""
) -> str:
    """SHA-256 of the files' names, sizes and modification times, hex.

    Contents are not read: it must cost milliseconds, also on a network disk. A copied folder may therefore be
    decoded once more, but a changed one is not mistaken for the old. Pillow's version counts too, because
    JPEG decoders may differ in the last bit.

    Args:
      paths: the files, in the order of the images.
      root: names are paths from this folder; None: the files' own names.
      form: what images are converted to while they are decoded, if anything.

    Raises:
      OSError: a file that does not exist.
    """
    files = [pathlib.Path(path) for path in paths]
    names = [file.name if root is None else file.relative_to(root).as_posix() for file in files]
    stats = [os.stat(file) for file in files]
    parts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(names, stats, strict=True)]
    about = [FORMAT, PIL.__version__, parts] + ([form] if form else [])
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def entry_path(cache_dir: str | os.PathLike[str], stem: str, location: str | os.PathLike[str]) -> pathlib.Path:
    """File of one split: `<cache_dir>/<stem>-<8 hex of the source's location>.npz`.

    With the location in the name, two copies of a data set do not overwrite each other; with the fingerprint
    inside the file, a copy that was prepared again replaces its own older entry.
    """
    digest = hashlib.sha256(os.path.realpath(location).encode()).hexdigest()
    return pathlib.Path(cache_dir).expanduser() / f"{stem}-{digest[:8]}.npz"


def read(path: pathlib.Path, fingerprint: str) -> Entry | None:
    """The entry in `path` if it is whole and was decoded from the files with this fingerprint, else None.

    A file that is there but damaged or older than its source is reported through absl logging.
    """
    if not path.exists():
        return None
    try:
        # Opened here, because np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
            metadata = json.loads(str(archive["metadata"]))
    except _UNREADABLE as error:
        logging.warning("Cache file %s is damaged (%s); decoding again.", path, type(error).__name__)
        return None
    if not isinstance(metadata, dict) or metadata.get("fingerprint") != fingerprint:
        logging.warning("Cache file %s is older than its source; decoding again.", path)
        return None
    if metadata.get("arrays") != _describe(images, labels):
        logging.warning("Cache file %s is damaged (checksum differs); decoding again.", path)
        return None
    return Entry(images, labels, tuple(metadata["class_names"]), metadata["source"], fingerprint)


def write(path: pathlib.Path, entry: Entry) -> None:
    """Writes an entry: into a temporary file beside `path` first, so that nobody ever sees half of one.

    A folder that cannot be written is reported through absl logging and is no error.
    """
    metadata = {
        "fingerprint": entry.fingerprint,
        "source": entry.source,
        "class_names": list(entry.class_names),
        "arrays": _describe(entry.images, entry.labels),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, images=entry.images, labels=entry.labels, metadata=np.array(json.dumps(metadata)))
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        logging.warning("No cache: %s cannot be written (%s); every start will decode again.", path, error)


def _describe(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Shape, dtype and SHA-256 of both arrays, as JSON gives them back."""
    return {
        name: {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(array).data).hexdigest(),
        }
        for name, array in (("images", images), ("labels", labels))
    }
