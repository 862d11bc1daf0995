"""Cache of decoded images: one checksummed, uncompressed `.npz` per split, written atomically.

A cache file is never trusted: it must carry the fingerprint of the files it was decoded from, and the SHA-256 of
both of its arrays. Anything else is reported in one line and counts as absent, so that the caller
decodes again.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL
import PIL.features
from absl import logging

from ltrobust.data import pixels

# Part of every fingerprint: raise it when the meaning of a cache file changes.
FORMAT = 1

# How files are compared with those that a copy was decoded from; see `fingerprint_files`.
CHECKS = ("times", "sample", "full")
# A sample is so many files, evenly spaced, and so many bytes at either end of each: milliseconds on a disk.
_SAMPLE, _ENDS = 64, 4096
# Decoders whose versions may change pixels. Pillow may be linked to any version of them.
_DECODERS = ("libjpeg_turbo", "jpg", "webp", "libtiff")

NO_COPY = "decoded now, no copy kept"

# What NumPy and zipfile raise for files that are cut off, overwritten or no archives at all.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A decoded split in official order, and where it came from.

    `images` uint8 [N, H, W, C], `labels` int64 [N], `class_names` in label order, `source` such as
    `cifar10/3.0.2 test`, `fingerprint` of the files that were decoded (see `fingerprint_files`), `findings` about them
    as JSON holds them.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    fingerprint: str
    findings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def fingerprint_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    root: str | os.PathLike[str] | None = None,
    form: str = "",
    check: str = "times",
) -> str:
    """SHA-256, hex, of a set of files: differs between files and between versions of the same files.

    A copied folder may be decoded once more, but a changed one must not be mistaken for the old. The versions of Pillow
    and its decoders count too, because JPEG decoders may differ in the last bit.

    Args:
      paths: the files, in the order of the images.
      root: names are paths from this folder; None: the files' own names.
      form: what images are converted to while they are decoded, if anything.
      check: `times`: names, sizes and times of modification; also for folders. `sample`: also the times at which the
        file system last changed anything of a file, which no program can set, and both ends of some files, for disks
        that have no such times. `full`: also all contents.

    Raises:
      OSError: a file that does not exist.
    """
    files = [pathlib.Path(path) for path in paths]
    names = [file.name if root is None else file.relative_to(root).as_posix() for file in files]
    stats = [os.stat(file) for file in files]
    parts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in zip(names, stats, strict=True)]
    content = [FORMAT, PIL.__version__, parts] + ([form] if form else [])
    if check != "times":
        content += [[stat.st_ctime_ns for stat in stats], _contents(files, full=check == "full")]
        content += [PIL.features.version(name) for name in _DECODERS]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _contents(files: Sequence[pathlib.Path], *, full: bool) -> list[str]:
    """SHA-256 of all files, or of both ends of some; empty for a file that cannot be read, and if a disk fails."""
    try:
        return digests(files if full else [files[position] for position in sample(len(files))], full=full)
    except OSError:  # decoding meets it again, and names the file
        return []


def sample(files: int) -> list[int]:
    """Positions of up to 64 of so many files, evenly spaced."""
    return np.unique(np.linspace(0, files - 1, min(_SAMPLE, files)).astype(int)).tolist() if files else []


def digests(files: Sequence[pathlib.Path], *, full: bool) -> list[str]:
    """SHA-256 of each file, or of the 4,096 bytes at its both ends; empty for a file that cannot be read.

    Raises:
      OSError: what is no property of a file (`pixels.check_system`); names the file.
    """

    def digest(path: pathlib.Path) -> str:
        try:
            with path.open("rb") as file:
                if full:
                    return hashlib.file_digest(file, "sha256").hexdigest()
                head = file.read(_ENDS)
                file.seek(max(os.fstat(file.fileno()).st_size - _ENDS, len(head)))
                return hashlib.sha256(head + file.read(_ENDS)).hexdigest()
        except OSError as error:
            pixels.check_system(error, path)
            return ""  # decoding names it

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, files))


def entry_path(cache_dir: str | os.PathLike[str], stem: str, location: str | os.PathLike[str]) -> pathlib.Path:
    """File of one split: `<cache_dir>/<stem>-<8 hex of the source's location>.npz`.

    With the location in the name, two copies of a data set do not overwrite each other; with the fingerprint
    inside the file, a copy that was prepared again replaces its own older entry.
    """
    digest = hashlib.sha256(os.fsencode(os.path.realpath(location))).hexdigest()
    return pathlib.Path(cache_dir).expanduser() / f"{stem}-{digest[:8]}.npz"


def read(path: pathlib.Path, fingerprint: str) -> Entry | None:
    """The entry in `path` if it is whole and was decoded from the files with this fingerprint, else None.

    A file that is there but damaged or of another state of its source is reported through absl logging.
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
        logging.warning("Cache file %s was decoded from other files or in another way; decoding again.", path)
        return None
    if metadata.get("arrays") != _describe(images, labels):
        logging.warning("Cache file %s is damaged (checksum differs); decoding again.", path)
        return None
    return Entry(
        images, labels, tuple(metadata["class_names"]), metadata["source"], fingerprint, metadata.get("findings", {})
    )


def write(path: pathlib.Path, entry: Entry) -> str:
    """Writes an entry: into a temporary file beside `path` first, so that a reader never sees half of one.

    Returns in words whether there is a copy now. A folder that cannot be written is reported through absl logging and
    is not an error.
    """
    metadata = {
        "fingerprint": entry.fingerprint,
        "source": entry.source,
        "class_names": list(entry.class_names),
        "findings": dict(entry.findings),
        "arrays": _describe(entry.images, entry.labels),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, images=entry.images, labels=entry.labels, metadata=np.array(json.dumps(metadata)))
            # Atomic: another process sees the old file or the whole new one.
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        logging.warning("No cache: %s cannot be written (%s); every start will decode again.", path, error)
        return NO_COPY
    return f"decoded now, copy in {path}"


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
