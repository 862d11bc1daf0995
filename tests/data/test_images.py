"""Images in files: decoded when they are indexed, cropped as published, and named where they cannot be read."""

import errno
import os
import pickle
import shutil

import listed
import numpy as np
import PIL
import pytest
from PIL import Image

from ltrobust.analysis import cards
from ltrobust.data import images, pixels
from ltrobust.data.images import FileImages, UnreadableImage, crop_box, take

SIZES = {"wide.png": (50, 40), "tall.jpg": (33, 77), "strip.png": (300, 20), "small.jpg": (16, 16)}


@pytest.fixture
def files(tmp_path):
    for number, (name, (width, height)) in enumerate(SIZES.items()):
        pixels = np.random.RandomState(number).randint(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    sizes = np.array([(tmp_path / name).stat().st_size for name in SIZES])
    return FileImages(str(tmp_path), tuple(SIZES), sizes, image_size=16, resize=18)


def key(number: int) -> np.ndarray:
    return np.array([7, number], np.uint32)


def test_the_centre_is_cut_out_after_the_shorter_side_is_resized(files, tmp_path):
    """Sizes and corners are torchvision's: the longer side is cut off, half a pixel goes to the even number."""
    for row, (name, (size, corner)) in enumerate(
        {
            "wide.png": ((22, 18), (3, 1)),
            "tall.jpg": ((18, 42), (1, 13)),
            "strip.png": ((270, 18), (127, 1)),
            "small.jpg": ((18, 18), (1, 1)),
        }.items()
    ):
        resized = np.asarray(Image.open(tmp_path / name).resize(size, Image.Resampling.BILINEAR))
        left, top = corner
        np.testing.assert_array_equal(files[row], resized[top : top + 16, left : left + 16])


def test_they_are_indexed_as_an_array_is(files):
    whole = files[:]
    assert whole.shape == files.shape == (4, 16, 16, 3)
    assert whole.dtype == files.dtype == np.uint8
    for rows in ([2, 0], np.array([3, 3, 1, -1]), slice(1, None, 2), np.array([True, False, True, False]), []):
        rows = np.array(rows, int) if isinstance(rows, list) else rows
        np.testing.assert_array_equal(files[rows], whole[rows])
        np.testing.assert_array_equal(take(files, rows)[:], take(whole, rows))
    np.testing.assert_array_equal(files[-1], whole[-1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(files))[:], whole)
    with pytest.raises(IndexError):
        files[[4]]
    with pytest.raises(TypeError, match=r"4 images in files are not decoded all at once; index them"):
        np.asarray(files)


def test_grey_and_turned_images(files, tmp_path):
    grey = FileImages(files.folder, files.names, files.sizes, 16, 18, channels=1)
    assert grey[:2].shape == (2, 16, 16, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    upright = Image.open(tmp_path / "wide.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    turned = FileImages(files.folder, ("turned.png",), files.sizes[:1], 16, 18)
    np.testing.assert_array_equal(turned[0], files[0])


def test_a_random_crop_depends_on_file_and_key_alone(files):
    crops = [files.random_crop(0, key(number)) for number in range(20)]
    assert len({crop.tobytes() for crop in crops}) == 20
    assert {crop.shape for crop in crops} == {(16, 16, 3)}
    np.testing.assert_array_equal(files.subset([3, 0]).random_crop(1, key(5)), crops[5])


def test_a_random_crop_is_a_part_of_the_image_in_its_new_size(files, tmp_path):
    left, top, width, height = crop_box(50, 40, key(3))
    part = Image.open(tmp_path / "wide.png").crop((left, top, left + width, top + height))
    expected = np.asarray(part.resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(files.random_crop(0, key(3)), expected)


def test_parts_have_the_published_areas_ratios_and_places():
    boxes = np.array([crop_box(400, 300, key(number)) for number in range(3000)])
    left, top, width, height = boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 400).all()
    assert (top + height <= 300).all()
    area, ratio = width * height / (400 * 300), width / height
    assert 0.078 < area.min() < 0.1
    assert area.max() > 0.95
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    # Small parts always fit, so that they have the distributions that are drawn from.
    small = area < 0.4
    assert abs(area[small].mean() - 0.24) < 0.01
    assert abs(np.log(ratio[small]).mean()) < 0.02
    place = left[small] / (400 - width[small])
    assert abs(place.mean() - 0.5) < 0.03
    assert abs((place < 0.25).mean() - 0.25) < 0.03


def test_where_no_part_fits_it_is_the_largest_in_the_centre():
    assert crop_box(300, 20, key(0)) == (136, 0, 27, 20)
    assert crop_box(20, 300, key(0)) == (0, 136, 20, 27)


def test_files_that_cannot_be_read_are_counted_and_named(files, tmp_path):
    (tmp_path / "wide.png").write_bytes(b"")
    (tmp_path / "tall.jpg").write_bytes((tmp_path / "tall.jpg").read_bytes()[:900])
    (tmp_path / "strip.png").unlink()
    named = r"wide.png \(empty file\), tall.jpg \(.*truncated.*\), strip.png \(No such file or directory\)"
    with pytest.raises(
        UnreadableImage, match=rf"^3 of 4 images in .* cannot be read: {named}\. Mend .*skip_unreadable"
    ):
        files[[0, 1, 2, 3, 0]]
    with pytest.raises(
        UnreadableImage, match=r"^1 of 1 image in .* cannot be read: wide.png \(empty file\)"
    ) as refused:
        files.random_crop(0, key(0))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)  # a worker process hands it on
    assert list(files.check()) == [0, 1, 2]


OF_A_FILE = [errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG]


@pytest.mark.parametrize("number", OF_A_FILE, ids=errno.errorcode.get)
def test_errors_of_the_system_that_are_of_one_file_are_counted(files, monkeypatch, number):
    decode = pixels.decode

    def fail(file, channels):
        if file.name == "tall.jpg":
            raise OSError(number, os.strerror(number), str(file))
        return decode(file, channels)

    monkeypatch.setattr(pixels, "decode", fail)
    assert files.check() == {1: os.strerror(number)}
    with pytest.raises(UnreadableImage, match=rf"^1 of 4 images .* tall.jpg \({os.strerror(number)}\)"):
        files[:]


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOMEM, None],
    ids=lambda number: errno.errorcode.get(number),
)
def test_what_is_no_property_of_a_file_is_no_reason_to_leave_it_out_and_names_it(files, monkeypatch, number):
    """`None` stands for short memory. Neither `read` nor Pillow names the file."""

    def fail(*_):
        raise MemoryError if number is None else OSError(number, os.strerror(number))

    monkeypatch.setattr(pixels, "decode", fail)
    one = files.subset([1])
    for access in (one.check, lambda: one[:], lambda: one.random_crop(0, key(0))):
        with pytest.raises(MemoryError if number is None else OSError, match=r"tall\.jpg") as failed:
            access()
        passed_on = pickle.loads(pickle.dumps(failed.value))  # as by a worker process
        assert (type(passed_on), str(passed_on)) == (type(failed.value), str(failed.value))
        assert number is None or (passed_on.errno, passed_on.filename) == (number, str(one.folder) + "/tall.jpg")


def test_files_that_a_failing_disk_does_not_read_have_no_digest(files, tmp_path):
    """It would differ from that of the same files another time, when a run is to resume."""
    listed.fail(tmp_path / "tall.jpg")
    with pytest.raises(OSError, match=r"Input/output error: .*tall\.jpg"):
        files.digest()


def test_digests_know_another_decoder(files, monkeypatch):
    before, known = images.digest(files), pixels.decoder()
    assert len(known) == 64
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, _: resize(image, size, Image.Resampling.NEAREST))
    pixels.decoder.cache_clear()
    try:
        assert images.digest(files) != before
    finally:
        pixels.decoder.cache_clear()
    assert cards.software()["pillow"] == PIL.__version__


def test_digests_are_of_pixels_or_of_what_is_known_of_files(files, tmp_path):
    different = [files, files.subset([1, 0]), FileImages(files.folder, files.names, files.sizes + 1, 16, 18)]
    different += [FileImages(files.folder, files.names, files.sizes, 16, 20)]
    assert len({images.digest(each) for each in different}) == 4
    copy = shutil.copytree(files.folder, tmp_path / "elsewhere")
    assert images.digest(FileImages(str(copy), files.names, files.sizes, 16, 18)) == images.digest(files)


def test_ends_of_the_files_of_a_small_part_are_looked_into(tmp_path):
    names = tuple(f"{number:03d}.bin" for number in range(300))
    for name in names:
        (tmp_path / name).write_bytes(b"abc")
    part = FileImages(str(tmp_path), names, np.full(300, 3), 16, 18).subset(slice(100, 112))
    before = images.digest(part)
    for name in part.names:
        (tmp_path / name).write_bytes(b"abd")
        assert images.digest(part.subset(slice(None))) != before
        (tmp_path / name).write_bytes(b"abc")
    assert images.digest(part.subset(slice(None))) == before


@pytest.mark.parametrize("sizes", [np.zeros((1, 16), np.uint8), np.zeros(2, np.int64), np.zeros(1)])
def test_sizes_are_one_integer_for_each_name(sizes):
    with pytest.raises(ValueError, match=r"give int64 \[1\]"):
        FileImages("", ("a.png",), sizes, 8, 8)
