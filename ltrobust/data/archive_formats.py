"""Readers for official archives (`archives.py`): images, labels and class names of one split.

Files that do not have the official form raise a ValueError that names the file.
"""

import gzip
import io
import math
import pathlib
import string
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ltrobust.data import plain_pickle

# Part of a decoded copy's fingerprint: raise it when a reader gives other images, labels or another order.
VERSION = 1
# Images uint8 [N, H, W, C], labels int64 [N], class names in label order.
Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
_DIGITS = tuple(string.digits)
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
# Letters whose small form EMNIST does not tell from the capital one have one class there.
_MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")
EMNIST = {
    "balanced": _MERGED,
    "byclass": (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase),
    "bymerge": _MERGED,
    "digits": _DIGITS,
    "letters": tuple(string.ascii_uppercase),
    "mnist": _DIGITS,
}
# EMNIST's largest file has 697,932 images of 28x28.
LARGEST_IDX = 600_000_000
# SVHN's extra split has 531,131 images.
MOST_SVHN = 600_000


def unpack(path: pathlib.Path, folder: str, members: Sequence[str], largest: int) -> dict[str, bytes]:
    """The wanted members of a `.tar.gz`, read to its end, where its checksum is, or of a `.zip`.

    Args:
      path: the archive.
      folder, members: where they lie in it.
      largest: bytes that no official member exceeds. Sizes are looked at before anything is unpacked.

    Raises:
      ValueError: a member that is missing, there twice, larger, or no regular file; or an archive that unpacks to more
        than such members would.
    """
    contents: dict[str, bytes] = {}

    def wanted(full_name: str) -> str:
        place, _, name = full_name.removeprefix("./").rpartition("/")
        if place != folder or name not in members:
            return ""
        if name in contents:
            raise ValueError(f"it has {folder}/{name} twice")
        return name

    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if name := wanted(member.filename):
                    _check_size(name, member.file_size, largest)
                    contents[name] = archive.read(member)
    else:
        most = largest * (len(members) + 1)
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = wanted(member.name)
                if name and not member.isfile():
                    raise ValueError(f"{name} is a link or a special file in the archive")
                _check_size(name or "another member", member.size, largest)
                # Members that are skipped are decompressed too, which takes time but no memory.
                if member.offset_data + member.size > most:
                    raise ValueError(f"it unpacks to more than {most:,} bytes, which no official archive does")
                if name:
                    file = archive.extractfile(member)
                    contents[name] = file.read() if file else b""
    if missing := [name for name in members if name not in contents]:
        raise ValueError(f"it has no {folder}/{missing[0]}")
    return contents


def whole(path: pathlib.Path, largest: int) -> bytes:
    """The content of a file that an archive unpacks to.

    Raises:
      ValueError: it is larger than any official one.
    """
    _check_size(path.name, path.stat().st_size, largest)
    return path.read_bytes()


def _check_size(name: str, size: int, largest: int) -> None:
    if size > largest:
        raise ValueError(f"{name} has {size:,} bytes, official files at most {largest:,}")


def _gunzipped(content: bytes, name: str) -> bytes:
    """The content of a gzip file, read to its checksum; more than `LARGEST_IDX` bytes are refused while reading."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        result = file.read(LARGEST_IDX + 1)
    _check_size(name, len(result), LARGEST_IDX)
    return result


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


def _unpickled(content: bytes, labels: str, name: str) -> np.ndarray:
    """A batch of CIFAR's Python form as rows of one label and 3072 pixels, uint8 [N, 3073]."""
    try:
        batch = plain_pickle.load(content)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    pixels, numbers = batch.get("data"), batch.get(labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise ValueError(f"{name} has no uint8 array data of rows of 3,072")
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number < 256 for number in numbers):
        raise ValueError(f"{name} has no list {labels} of numbers from 0 to 255")
    if len(numbers) != len(pixels):
        raise ValueError(f"{name} has {len(pixels):,} images and {len(numbers):,} {labels}")
    return np.concatenate([np.array(numbers, np.uint8)[:, None], pixels], axis=1)


def _cifar_python(
    contents: Mapping[str, bytes], split: str, files: Mapping[str, tuple[str, ...]], meta: str, fine: str
) -> Arrays:
    """Pickled dicts of an array `data` of rows, channel after channel, and a list of labels; class names in `meta`."""
    rows = {part: [_unpickled(contents[file], f"{fine}labels", file) for file in files[part]] for part in files}
    names = plain_pickle.load(contents[meta]).get(f"{fine}label_names")
    if not isinstance(names, list):
        raise ValueError(f"{meta} has no list {fine}label_names")
    chosen = np.concatenate(rows[split])
    images = np.ascontiguousarray(chosen[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, chosen[:, 0].astype(np.int64), tuple(map(str, names))


def cifar10_python(contents: Mapping[str, bytes], split: str) -> Arrays:
    files = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
    return _cifar_python(contents, split, files, "batches.meta", "")


def cifar100_python(contents: Mapping[str, bytes], split: str) -> Arrays:
    return _cifar_python(contents, split, {"train": ("train",), "test": ("test",)}, "meta", "fine_")


def _idx(contents: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Arrays of IDX files, gzipped or not, by name without `.gz`: a big-endian header, then bytes.

    Those of the other split are unpacked too: gzip has a checksum.
    """
    arrays = {}
    for name, content in contents.items():
        content = _gunzipped(content, name) if name.endswith(".gz") else content
        # The third byte is the type, 8 for unsigned bytes; the fourth is the number of dimensions.
        dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if dimensions not in (1, 3) or len(content) != 4 + 4 * dimensions + math.prod(shape):
            raise ValueError(f"{name} is no whole IDX file of bytes")
        arrays[name.removesuffix(".gz")] = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    return arrays


def _of_idx(contents: Mapping[str, bytes], prefix: str, class_names: tuple[str, ...], first: int = 0) -> Arrays:
    """Images and labels of two IDX files; the first class has the number `first` there."""
    arrays = _idx(contents)
    images, labels = arrays[f"{prefix}-images-idx3-ubyte"], arrays[f"{prefix}-labels-idx1-ubyte"]
    return _checked(images[..., None].copy(), labels.astype(np.int64) - first, class_names)


def mnist(contents: Mapping[str, bytes], split: str) -> Arrays:
    return _of_idx(contents, "train" if split == "train" else "t10k", _DIGITS)


def fashion_mnist(contents: Mapping[str, bytes], split: str) -> Arrays:
    return _of_idx(contents, "train" if split == "train" else "t10k", _CLOTHES)


def emnist(part: str) -> Callable[[Mapping[str, bytes], str], Arrays]:
    """The reader of one of EMNIST's parts. Images lie on their side, as they are published; letters count from 1."""

    def read(contents: Mapping[str, bytes], split: str) -> Arrays:
        return _of_idx(contents, f"emnist-{part}-{split}", EMNIST[part], first=int(part == "letters"))

    return read


def svhn(contents: Mapping[str, bytes], split: str) -> Arrays:
    """MATLAB files: `X` [32, 32, 3, N] and `y` [N, 1], where 10 stands for the digit 0."""
    from scipy import io as scipy_io

    name = f"{split}_32x32.mat"
    try:
        # Shapes are in headers: nothing larger than SVHN is unpacked.
        shapes = {key: (shape, kind) for key, shape, kind in scipy_io.whosmat(io.BytesIO(contents[name]))}
        shape, kind = shapes.get("X", ((), ""))
        if shape[:3] != (32, 32, 3) or len(shape) != 4 or shape[3] > MOST_SVHN or kind != "uint8":
            raise ValueError(f"X is {kind or 'not there'} {list(shape)}; expected uint8 [32, 32, 3, N]")
        if math.prod(shapes.get("y", ((), ""))[0]) != shape[3]:
            raise ValueError("y does not have a number for each image")
        arrays = scipy_io.loadmat(io.BytesIO(contents[name]), variable_names=["X", "y"])
    except Exception as error:  # SciPy's reader raises many types for damaged files
        raise ValueError(f"{name}: {error}") from error
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
