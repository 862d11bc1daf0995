"""Pixels of one of the user's own image files."""

import pathlib

import numpy as np
from PIL import Image, ImageOps

# What 8 bits per channel are made of without loss of range; wider modes would be cut off at 255.
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


def read(file: pathlib.Path, image_size: int, channels: int) -> np.ndarray:
    """uint8 [H, W, C] of one file."""
    with Image.open(file) as opened:
        if opened.mode not in _MODES:
            raise ValueError(f"pixels of mode {opened.mode}, which are not 8 bits; convert the file")
        image = ImageOps.exif_transpose(opened)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency, which Pillow wants to be told of
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image_size, image_size, channels)
