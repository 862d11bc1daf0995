"""Images of one size as a grid in a lossless WebP file, and back; with Pillow and NumPy only.

The grid is filled row by row; cells behind the last image are black. Grey images have three equal channels in the file.
"""

import io

import numpy as np
import PIL
from PIL import Image, features

# Largest side of a grid in pixels. CIFAR images take 1,602 bytes each in grids of this size, 1,644 with twice the side.
SIDE = 1024
# Method 6 takes 6 times as long for 0.05 % fewer bytes.
WEBP = {"lossless": True, "quality": 100, "method": 5}


def codec() -> str:
    """Versions of Pillow and libwebp, in words.

    Raises:
      ValueError: Pillow has no WebP.
    """
    if not features.check("webp"):
        raise ValueError(f"Pillow {PIL.__version__} was built without WebP, which packs need. Install Pillow's wheel.")
    return f"Pillow {PIL.__version__} with libwebp {features.version('webp')}"


def capacity(height: int, width: int) -> int:
    """How many images of this size `encode` should be given at once."""
    return max(1, SIDE // width) * max(1, SIDE // height)


def encode(images: np.ndarray) -> bytes:
    """A WebP file with all images. The same images and codec always give the same bytes.

    Args:
      images: uint8 [N, H, W, C], C 1 or 3, 1 <= N <= `capacity(H, W)`.

    Raises:
      ValueError: another number of channels.
    """
    number, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images have {channels} channels; a pack holds grey (1) or RGB (3) images. Convert them.")
    columns = min(number, max(1, SIDE // width))
    rows = -(-number // columns)
    cells = np.zeros((rows * columns, height, width, channels), np.uint8)
    cells[:number] = images
    grid = cells.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    file = io.BytesIO()
    # WebP has no grey images.
    Image.fromarray(np.repeat(grid, 3 // channels, axis=-1)).save(file, "WEBP", **WEBP)
    return file.getvalue()


def decode(content: bytes, images: np.ndarray) -> None:
    """Fills `images`, uint8 [N, H, W, C], from a WebP file of `encode`.

    Raises:
      ValueError: the file is no such grid, or Pillow cannot read it.
    """
    number, height, width, channels = images.shape
    try:
        with Image.open(io.BytesIO(content), formats=("WEBP",)) as opened:
            grid = np.asarray(opened.convert("RGB"))[..., :channels]
        cells = grid.reshape(grid.shape[0] // height, height, -1, width, channels).swapaxes(1, 2)
        images[:] = cells.reshape(-1, height, width, channels)[:number]
    except Exception as error:  # Pillow lets its decoders' own errors through
        raise ValueError(f"{codec()} cannot decode it ({type(error).__name__}: {error})") from error
