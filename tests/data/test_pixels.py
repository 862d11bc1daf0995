"""One image file: what is refused because it would decode to something else, and what is said of it."""

import hashlib
import io
import pathlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from ltrobust.data import pixels

NOISE = np.random.RandomState(0).randint(0, 256, (8, 8, 4)).astype(np.uint8)
RGB = Image.fromarray(NOISE[..., :3])
BLACK = np.zeros((8, 8, 3), np.uint8)


def test_decoded_pixels_are_those_of_this_version():
    """Where this fails because of the code, raise `pixels.VERSION`: copies and runs with the old pixels exist."""
    file = io.BytesIO()
    RGB.save(file, "PNG")
    pixel, _ = pixels.read(file, 5, 3)
    digest = hashlib.sha256(pixel.tobytes()).hexdigest()
    assert (pixels.VERSION, digest[:16]) == (1, "fc3b8b32a0489c86")
    assert pixels.decoder() == "807905429b6db0ae78f92b8535505f77f02c95ed86cc0a045f820beb86d6cbae"


def png(samples: np.ndarray, colour_type: int) -> bytes:
    """A PNG file with 16 bits per channel, which Pillow cannot write. `samples` [H, W, C]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(data: bytes, *, bits: int, sample_format: int) -> bytes:
    """An uncompressed grey TIFF file of 8 x 8 pixels."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: 1, 273: 8 + 2 + 10 * 12 + 4, 277: 1, 278: 8, 279: len(data)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (tags | {339: sample_format}).items()]
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0) + data


def read(path: pathlib.Path, image: Image.Image | bytes, channels=3, **options) -> tuple[np.ndarray, tuple[str, ...]]:
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path, **options)
    return pixels.read(path, 8, channels)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rgb.png", png(np.arange(192).reshape(8, 8, 3), 2)),  # 0 to 191 of 65535: black, if only the high byte counts
        ("rgba.png", png(np.arange(256).reshape(8, 8, 4), 6)),
        ("la.png", png(np.arange(128).reshape(8, 8, 2), 4)),
        ("grey.png", png(np.arange(64).reshape(8, 8, 1), 0)),
        ("rgb.ppm", b"P6 8 8 65535\n" + bytes(384)),
        ("plain.ppm", b"P3 8 8 1023\n" + b"7 " * 192),
        ("grey.pgm", b"P5 8 8 65535\n" + bytes(128)),
        ("grey.tif", tiff(bytes(128), bits=16, sample_format=1)),
        ("float.tif", tiff(bytes(256), bits=32, sample_format=3)),
        ("signed.tif", tiff(bytes(64), bits=8, sample_format=2)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("channels", [1, 3])
def test_samples_that_are_not_8_bits_are_refused(tmp_path, name, content, channels):
    with pytest.raises(
        ValueError, match=r"16 bits per channel|10 bits per channel|signed or floating|mode (I|I;16|F),"
    ):
        read(tmp_path / name, content, channels)


@pytest.mark.parametrize(
    ("name", "content", "largest"),
    [
        ("rgb.ppm", b"P6 8 8 255\n" + bytes(range(192)), 191),
        ("few.ppm", b"P6 8 8 100\n" + bytes([100] * 192), 255),
        ("bits.ppm", b"P1 8 8 " + b"1 0 " * 32, 255),
        ("grey.tif", tiff(bytes(range(64)), bits=8, sample_format=1), 63),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_samples_of_up_to_8_bits_are_read(tmp_path, name, content, largest):
    image, findings = read(tmp_path / name, content)
    assert (image.max(), findings) == (largest, ())


@pytest.mark.parametrize("name", ["0.png", "0.tif", "0.webp"])
def test_a_picture_in_the_transparency_only_is_refused(tmp_path, name):
    image = Image.fromarray(np.dstack([BLACK, NOISE[..., 3]]))
    with pytest.raises(
        ValueError, match="one colour, whose picture is in the transparency only; save it on a background"
    ):
        read(tmp_path / name, image, **({"lossless": True, "exact": True} if name == "0.webp" else {}))


def test_transparency_is_dropped_and_said(tmp_path):
    image, findings = read(tmp_path / "0.png", Image.fromarray(NOISE))
    np.testing.assert_array_equal(image, NOISE[..., :3])
    assert findings == (pixels.TRANSPARENT,)
    opaque = np.dstack([NOISE[..., :3], np.full((8, 8), 255, np.uint8)])
    assert read(tmp_path / "0.png", Image.fromarray(opaque))[1] == ()
    assert read(tmp_path / "0.png", RGB, transparency=(1, 2, 3))[1] == (pixels.TRANSPARENT,)
    assert read(tmp_path / "0.png", RGB.quantize(8))[1] == ()
    assert read(tmp_path / "0.png", RGB.quantize(8), transparency=0)[1] == (pixels.TRANSPARENT,)


@pytest.mark.parametrize("name", ["0.png", "0.tif", "0.webp"])
def test_the_first_of_several_frames_is_used_and_said(tmp_path, name):
    exact = {"lossless": True} if name == "0.webp" else {}
    image, findings = read(tmp_path / name, RGB, save_all=True, append_images=[Image.fromarray(BLACK)], **exact)
    np.testing.assert_array_equal(image, NOISE[..., :3])
    assert findings == (pixels.FRAMES,)


def test_the_second_picture_of_a_telephone_is_not_mentioned(tmp_path):
    assert read(tmp_path / "0.jpg", RGB, format="MPO", save_all=True, append_images=[RGB])[1] == ()


def test_turning_is_said(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter, clockwise
    image, findings = read(tmp_path / "0.png", RGB, exif=exif)
    np.testing.assert_array_equal(image, np.rot90(NOISE[..., :3], -1))
    assert findings == (pixels.TURNED,)


def test_a_setting_that_hides_damage_is_refused(monkeypatch):
    pixels.check_pillow()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ValueError, match="LOAD_TRUNCATED_IMAGES is set"):
        pixels.check_pillow()
