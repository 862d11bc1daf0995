"""Pixels of one of the user's own image files, and what a reader of results must know about them."""

import base64
import contextlib
import errno
import functools
import hashlib
import io
import pathlib
from typing import IO, Any

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps

from ltrobust.data import listing

# Part of fingerprints of decoded copies and of images in files: raise it when other pixels or findings are given.
VERSION = 1

# A JPEG file of 16x16 pixels with halved colours; another decoder may give it other pixels.
_REFERENCE = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeX"
    "BkeFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAQ"
    "ABADASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAABQb/xAAeEAABAwQDAAAAAAAAAAAAAAABAAQRAgMhQSIxUf/EABUBAQEAAAAAAAAAAA"
    "AAAAAAAAEE/8QAHBEAAQMFAAAAAAAAAAAAAAAAAAEEMQIDBREh/9oADAMBAAIRAxEAPwCcbsaRQMCYSlhhTAEDxJN2XDAPWglLDIQIBjGlNddU"
    "6XqQOPfQf//Z"
)

# What `read` finds in a file that is used.
TRANSPARENT = "with transparency, which is dropped"
FRAMES = "with several frames or pages, of which the first is used"
TURNED = "turned by their EXIF orientation"
FINDINGS = (TRANSPARENT, FRAMES, TURNED)

# Errors of the system that are of a disk.
OF_A_DISK = (errno.EIO, errno.ESTALE)
# Errors of the system that are a property of one file; all others are of a disk or the machine.
_OF_ONE_FILE = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

# What 8 bits per channel are made of without loss of range; wider modes would be cut off at 255.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
_ORIENTATION = 0x0112  # EXIF; 1 is upright
# TIFF.
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339


def check_pillow() -> None:
    """Refuses a setting of Pillow under which damaged files look like images.

    Raises:
      ValueError: some code of this process has set `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process, so that files that are cut off end in grey; "
            "set it to False."
        )


@functools.cache
def decoder() -> str:
    """SHA-256 of the pixels that this machine's Pillow makes of one JPEG file, in another size.

    Pillow and its libraries may decode otherwise in another version; version numbers do not say whether they do.
    """
    image, _ = decode(io.BytesIO(base64.b64decode(_REFERENCE)), 3)
    resized = image.resize((11, 9), Image.Resampling.BILINEAR)
    return hashlib.sha256(image.tobytes() + resized.tobytes()).hexdigest()


def read(file: pathlib.Path | IO[bytes], image_size: int, channels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 [H, W, C] of one file, and which of `FINDINGS` are true of it.

    Raises:
      Exception: as `decode`.
    """
    image, findings = decode(file, channels)
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels), findings


def decode(file: pathlib.Path | IO[bytes], channels: int) -> tuple[Image.Image, tuple[str, ...]]:
    """The image of one file in its own size, upright, RGB or grey, and which of `FINDINGS` are true of it.

    Raises:
      ValueError: more than 8 bits per channel, or a picture that is in the transparency only.
      Exception: Pillow's and its decoders' own, for files that are damaged or no images.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(file, pathlib.Path):  # Pillow would leave it open where reading its first bytes fails
            file = stack.enter_context(open(file, "rb"))
        opened = stack.enter_context(Image.open(file))
        if opened.mode not in _MODES:
            raise ValueError(f"pixels of mode {opened.mode}, which are not 8 bits; convert the file")
        _check_samples(opened)
        findings = [TURNED] if opened.getexif().get(_ORIENTATION, 1) in range(2, 9) else []
        # Telephones put a second picture behind many a JPEG file, which is then of the format MPO.
        if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
            findings.append(FRAMES)
        image = ImageOps.exif_transpose(opened)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency, which Pillow wants to be told of
    if _is_transparent(image):
        findings.append(TRANSPARENT)
    return image.convert("L" if channels == 1 else "RGB"), tuple(findings)


def check_system(error: Exception, file: pathlib.Path, *, disk: bool = False) -> None:
    """Raises an error that is no property of the file, such as of a failing disk, again with the file's name.

    Args:
      error: what was raised.
      file: where it was raised.
      disk: whether errors of a disk (`OF_A_DISK`) count as properties of the file.

    Raises:
      OSError: of the system, which has a number; those of Pillow have none.
      MemoryError: with a text, which Pillow's has not.
    """
    if isinstance(error, MemoryError):
        raise MemoryError(
            f"memory is short while {listing.printable(str(file))} is read; free some, or lower data.workers."
        ) from error
    allowed = (None, *_OF_ONE_FILE, *(OF_A_DISK if disk else ()))
    if isinstance(error, OSError) and error.errno not in allowed:
        error.filename = error.filename or str(file)  # reading raises them without one
        raise error


def problem(file: pathlib.Path, error: Exception) -> str:
    """Why a file cannot be read, without its path: what `decode` raised, in words."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "no image" if file.stat().st_size else "empty file"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or type(error).__name__
    return listing.printable(str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}")


def _check_samples(image: ImageFile.ImageFile) -> None:
    """Refuses samples that Pillow makes 8 bits of by leaving out the low ones, or by taking signs for values."""
    bits, signed = 8, False
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        bits, signed = max(tags.get(_BITS_PER_SAMPLE, (1,))), set(tags.get(_SAMPLE_FORMAT, (1,))) != {1}
    elif image.format == "PPM":  # the decoder is given the largest value, if it is not 255
        largest = [value for tile in image.tile for value in tile.args or () if isinstance(value, int)]
        bits = max(largest, default=255).bit_length()
    elif any(";16" in str(tile.args) for tile in image.tile):
        bits = 16
    if bits > 8 or signed:
        kind = "signed or floating-point samples" if signed else f"{bits} bits per channel"
        raise ValueError(f"{kind}, of which only 8 bits would be kept; convert the file to 8 bits per channel")


def _is_transparent(image: Image.Image) -> bool:
    """Whether not all pixels are opaque. A ValueError where there would be no picture without transparency."""
    if image.mode not in ("LA", "PA", "RGBA"):
        return "transparency" in image.info  # one colour is declared transparent
    extremes: Any = image.convert("RGBA").getextrema()
    if extremes[3] == (255, 255):
        return False
    if extremes[3][0] != extremes[3][1] and all(low == high for low, high in extremes[:3]):
        raise ValueError("one colour, whose picture is in the transparency only; save it on a background")
    return True
