"""Images of a data set: NumPy arrays, or files that are decoded when they are indexed."""

import dataclasses
import functools
import hashlib
import math
import pathlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from ltrobust.data import cache, listing, pixels
from ltrobust.runtime import cores

# Shorter side over image size before the centre crop, as published for ImageNet: 256 for images of 224 pixels.
SHORTER_SIDE = 256 / 224
# Random resized crop, as published for ImageNet (Szegedy et al. 2015, arXiv:1409.4842; torchvision's defaults).
SCALE, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10
# Images at a time where all are looked at.
BLOCK = 256

_Result = TypeVar("_Result")


class Images(Protocol):
    """Images of one size. NumPy arrays and `FileImages` satisfy it.

    Attributes:
      shape: N, H, W and C.
      dtype: uint8 for images of data sets.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """The images at `rows`, a slice or integers [n]: an array [n, H, W, C]."""
        ...


class UnreadableImage(ValueError):
    """Image files that were decoded when they were needed, and could not be."""


@dataclasses.dataclass(frozen=True, eq=False)
class FileImages:
    """Images in files, decoded by every access. Small, and can be pickled: it holds names, not pixels.

    Pixels of an access by rows: EXIF orientation, transparency and colours as for folders (`pixels.decode`); the
    shorter side is resized to `resize` pixels (bilinear over the source's area, as Pillow does it), the longer one in
    proportion, rounded down; then the centre is cut out. These are torchvision's `Resize` and `CenterCrop` of a PIL
    image.

    Attributes:
      folder: which `names` are relative to.
      names: N files.
      sizes: int64 [N], bytes of each file when it was listed.
      image_size: H and W, pixels.
      resize: pixels, at least `image_size`.
      channels: 1 or 3.
      contents: N SHA-256 of the whole files where all were read (`data.cache_check = full`), else empty.
    """

    folder: str
    names: tuple[str, ...]
    sizes: np.ndarray
    image_size: int
    resize: int
    channels: int = 3
    contents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses sizes that are not one integer for each name."""
        if self.sizes.shape != (len(self.names),) or not np.issubdtype(self.sizes.dtype, np.integer):
            raise ValueError(f"sizes are {self.sizes.dtype}{list(self.sizes.shape)}; give int64 [{len(self.names)}].")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, H, W and C."""
        return (len(self.names), self.image_size, self.image_size, self.channels)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8."""
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """Refuses a conversion of all images to an array, which may not fit into memory.

        Raises:
          TypeError: always.
        """
        raise TypeError(f"{len(self):,} images in files are not decoded all at once; index them, such as images[:100].")

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Decodes the images at `rows`: uint8 [n, H, W, C], or [H, W, C] for one integer.

        Raises:
          UnreadableImage: files that are missing, damaged or no images: how many, and the first by name.
          MemoryError, OSError: as `check`.
          IndexError: a row that is not there.
        """
        if isinstance(rows, int | np.integer):
            return self[[rows]][0]
        # A batch is filled up by repeating a row, which is decoded once.
        chosen, places = np.unique(np.arange(len(self))[rows], return_inverse=True)
        if not len(chosen):
            return np.empty((0, *self.shape[1:]), np.uint8)
        return np.stack(self._map(self._centre, chosen.tolist()))[places]

    def subset(self, rows: Any) -> "FileImages":
        """The images at `rows`, a slice or integers [n], still in files."""
        chosen = np.arange(len(self))[rows]
        names, contents = (
            tuple(values[row] for row in chosen.tolist()) if values else () for values in (self.names, self.contents)
        )
        return dataclasses.replace(self, names=names, contents=contents, sizes=self.sizes[chosen])

    def random_crop(self, row: int, key: np.ndarray) -> np.ndarray:
        """A random resized crop of one image, uint8 [H, W, C]; it depends on the file and the key alone.

        A part of the decoded image, whose area is a fraction of the whole drawn uniformly in `SCALE` and whose ratio of
        width to height is drawn log-uniformly in `RATIO`, is resized to `image_size` (bilinear). If no part fits in
        `TRIES` tries, it is the largest part in the centre with an allowed ratio. As torchvision's `RandomResizedCrop`
        of a PIL image. Draws are raw numbers of NumPy's Philox generator under the key.

        Args:
          row: of the image.
          key: uint32 [2].

        Raises:
          UnreadableImage: the file is missing, damaged or no image.
          MemoryError, OSError: as `check`.
        """

        def crop(image: Image.Image) -> np.ndarray:
            left, top, width, height = crop_box(*image.size, key)
            part = image.crop((left, top, left + width, top + height))
            return self._array(part.resize((self.image_size, self.image_size), Image.Resampling.BILINEAR))

        return self._map(lambda place: crop(self._decode(place)), [int(row)])[0]

    def check(self, *, disk: bool = False) -> dict[int, str]:
        """Decodes all files, in bounded memory, and returns row -> problem of those that cannot be read.

        Args:
          disk: whether these are also files that their disk cannot read, which is else an error.

        Raises:
          MemoryError, OSError: what is no property of a file, such as a network disk that fails; names the file.
        """
        problems: dict[int, str] = {}

        def look(row: int) -> None:
            self._try(self._decode, row, problems, disk=disk)  # no image is kept

        with ThreadPoolExecutor(cores.usable()) as pool:
            for start in range(0, len(self), BLOCK):
                list(pool.map(look, range(start, min(start + BLOCK, len(self)))))
        return dict(sorted(problems.items()))

    def digest(self) -> str:
        """SHA-256 of what pixels depend on, of names and sizes in order, and of both ends of up to 64 files.

        Times do not count, so that copies on several machines have the same digest.
        """
        result = hashlib.sha256(
            f"{self.image_size} {self.resize} {self.channels} {pixels.VERSION} {pixels.decoder()}".encode()
        )
        for name, size in zip(self.names, self.sizes.tolist(), strict=True):
            result.update(f"\0{name}\0{size}".encode(errors="surrogateescape"))
        result.update("\0".join(self._ends).encode())
        return result.hexdigest()

    @functools.cached_property
    def _ends(self) -> list[str]:
        """SHA-256 of both ends of a sample of these files."""
        return cache.digests([self._path(row) for row in cache.sample(len(self))], full=False)

    def _map(self, function: Callable[[int], _Result], rows: Sequence[int]) -> list[_Result]:
        """`function` of every row, several at a time; files that cannot be read are collected into one error."""
        problems: dict[int, str] = {}

        def one(row: int) -> Any:
            return self._try(function, row, problems)

        if len(rows) == 1:
            results = [one(rows[0])]
        else:
            # Pillow's decoders and its resizing leave Python's lock to the others.
            with ThreadPoolExecutor(max(1, min(len(rows), cores.usable()))) as pool:
                results = list(pool.map(one, rows))
        if problems:
            named = [f"{listing.printable(self.names[row])} ({problems[row]})" for row in sorted(problems)]
            raise UnreadableImage(
                f"{len(named)} of {len(rows)} image{'s' * (len(rows) > 1)} in {listing.printable(self.folder)} cannot "
                f"be read: {listing.some(named)}. Mend them (ltrobust data image_list --dir=DIR --check=LIST names "
                "all) or leave them out (--config.data.skip_unreadable=True), and start in a new workdir: a run "
                "resumes with unchanged files only."
            )
        return results

    def _try(
        self, function: Callable[[int], _Result], row: int, problems: dict[int, str], *, disk: bool = False
    ) -> _Result | None:
        """`function` of a row; if its file cannot be read, None and an entry in `problems`."""
        try:
            return function(row)
        except Exception as error:  # Pillow lets its decoders' own errors through
            pixels.check_system(error, self._path(row), disk=disk)
            problems[row] = pixels.problem(self._path(row), error)
            return None

    def _path(self, row: int) -> pathlib.Path:
        return pathlib.Path(self.folder, self.names[row])

    def _decode(self, row: int) -> Image.Image:
        return pixels.decode(self._path(row), self.channels)[0]

    def _centre(self, row: int) -> np.ndarray:
        image = self._decode(row)
        shorter = min(image.size)
        # As torchvision: the longer side is rounded down, the corner to the even number.
        width, height = (self.resize if side == shorter else int(self.resize * side / shorter) for side in image.size)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (round((side - self.image_size) / 2) for side in image.size)
        return self._array(image.crop((left, top, left + self.image_size, top + self.image_size)))

    def _array(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image).reshape(self.shape[1:])


def crop_box(width: int, height: int, key: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of the random part of an image that `FileImages.random_crop` cuts out."""
    first, second = (int(part) for part in np.asarray(key, np.uint32))
    # Raw numbers rather than a `Generator`, whose methods may draw otherwise in another version of NumPy.
    raw = np.random.Philox(key=(first << 32) | second).random_raw((TRIES, 4))
    for area, ratio, across, down in (raw >> np.uint64(11)).astype(float) * 2.0**-53:
        target = width * height * (SCALE[0] + (SCALE[1] - SCALE[0]) * area)
        aspect = math.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * ratio)
        part = (round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect)))
        if 0 < part[0] <= width and 0 < part[1] <= height:
            return int(across * (width - part[0] + 1)), int(down * (height - part[1] + 1)), *part
    part = (width, height)
    if width / height < RATIO[0]:
        part = (width, round(width / RATIO[0]))
    elif width / height > RATIO[1]:
        part = (round(height * RATIO[1]), height)
    return (width - part[0]) // 2, (height - part[1]) // 2, *part


def as_images(images: Any) -> Images:
    """An array of what is like one; images in files as they are."""
    return images if isinstance(images, FileImages) else np.asarray(images)


def take(images: Images, rows: Any) -> Images:
    """The images at `rows`, a slice or integers [n]: an array of an array, files of files."""
    return images.subset(rows) if isinstance(images, FileImages) else images[rows]


def digest(images: Images) -> str:
    """SHA-256 of the pixels of an array, or of what is known of files without decoding them (`FileImages.digest`)."""
    if isinstance(images, FileImages):
        return images.digest()
    return hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()


def contents(parts: Sequence[Images]) -> dict[str, str]:
    """`contents`: SHA-256 of the contents of all files, in order; nothing where they were not all read."""
    known = [part.contents for part in parts if isinstance(part, FileImages) and len(part)]
    if not known or not all(known):
        return {}
    return {"contents": hashlib.sha256("".join(digest for part in known for digest in part).encode()).hexdigest()}
