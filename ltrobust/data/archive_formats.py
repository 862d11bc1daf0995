"""What the bytes in official archives mean (`archives.py`): readers of images, labels and class names of one split.

Files that do not have the official form raise a ValueError that names the file.
"""

import gzip
import io
import pathlib
import struct
import tarfile
from collections.abc import Mapping, Sequence

import numpy as np

# Part of a decoded copy's fingerprint: raise it when a reader gives other images, labels or another order.
VERSION = 1
# Images uint8 [N, H, W, C], labels int64 [N], class names in label order.
Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
_DIGITS = tuple("0123456789")


def unpack(path: pathlib.Path, folder: str, members: Sequence[str]) -> dict[str, bytes]:
    """The wanted members of a `.tar.gz`, read to its end, where its checksum is."""
    contents = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            place, _, name = member.name.removeprefix("./").rpartition("/")
            if place == folder and name in members and (file := archive.extractfile(member)):
                contents[name] = file.read()
    if missing := [name for name in members if name not in contents]:
        raise ValueError(f"it has no {folder}/{missing[0]}")
    return contents


def _records(content: bytes, length: int, name: str) -> np.ndarray:
    """uint8 [N, length]."""
    if not content or len(content) % length:
        raise ValueError(f"{name} has {len(content):,} bytes, which are no whole records of {length:,}")
    return np.frombuffer(content, np.uint8).reshape(-1, length)


def _names(content: bytes) -> tuple[str, ...]:
    return tuple(line.strip() for line in content.decode().splitlines() if line.strip())


def _cifar(contents: Mapping[str, bytes], split: str, *, files: Mapping[str, tuple[str, ...]], names: str) -> Arrays:
    """Rows of one label (CIFAR-100: coarse, fine) and 3072 pixels, channel after channel."""
    width = 2 if names.startswith("fine") else 1
    rows = {
        part: np.concatenate([_records(contents[file], width + 3072, file) for file in files[part]]) for part in files
    }
    chosen = rows[split]
    images = np.ascontiguousarray(chosen[:, width:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, chosen[:, width - 1].astype(np.int64), _names(contents[names])


def cifar10(contents: Mapping[str, bytes], split: str) -> Arrays:
    files = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
    return _cifar(contents, split, files=files, names="batches.meta.txt")


def cifar100(contents: Mapping[str, bytes], split: str) -> Arrays:
    return _cifar(contents, split, files={"train": ("train.bin",), "test": ("test.bin",)}, names="fine_label_names.txt")


def mnist(contents: Mapping[str, bytes], split: str) -> Arrays:
    """IDX files: big-endian header, then bytes. Those of the other split are unpacked too: gzip has a checksum."""
    arrays = {}
    for name, content in contents.items():
        content = gzip.decompress(content)
        # The third byte is the type, 8 for unsigned bytes; the fourth is the number of dimensions.
        dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if dimensions not in (1, 3) or len(content) != 4 + 4 * dimensions + int(np.prod(shape)):
            raise ValueError(f"{name} is no whole IDX file of bytes")
        arrays[name] = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    prefix = "train" if split == "train" else "t10k"
    images, labels = arrays[f"{prefix}-images-idx3-ubyte.gz"], arrays[f"{prefix}-labels-idx1-ubyte.gz"]
    return _checked(images[..., None].copy(), labels.astype(np.int64), _DIGITS)


def svhn(contents: Mapping[str, bytes], split: str) -> Arrays:
    """MATLAB files: `X` [32, 32, 3, N] and `y` [N, 1], where 10 stands for the digit 0."""
    from scipy import io as scipy_io

    try:
        arrays = scipy_io.loadmat(io.BytesIO(contents[f"{split}_32x32.mat"]))
    except Exception as error:  # SciPy's reader raises many types for damaged files
        raise ValueError(f"{split}_32x32.mat: {error}") from error
    images = np.ascontiguousarray(np.moveaxis(arrays["X"], -1, 0))
    return _checked(images, arrays["y"].reshape(-1).astype(np.int64) % 10, _DIGITS)


def stl10(contents: Mapping[str, bytes], split: str) -> Arrays:
    """Pixels channel after channel, column after column; labels from 1."""
    images = _records(contents[f"{split}_X.bin"], 3 * 96 * 96, f"{split}_X.bin").reshape(-1, 3, 96, 96)
    labels = np.frombuffer(contents[f"{split}_y.bin"], np.uint8).astype(np.int64) - 1
    return _checked(np.ascontiguousarray(images.transpose(0, 3, 2, 1)), labels, _names(contents["class_names.txt"]))


def _checked(images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> Arrays:
    if len(images) != len(labels) or images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{images.dtype} images {images.shape} do not fit {len(labels)} labels")
    return images, labels, class_names
