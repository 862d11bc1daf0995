"""A folder of class directories: what becomes of the files, and what is refused by name."""

import os
import pathlib
import warnings

import digits_folder
import numpy as np
import pytest
from PIL import Image

from ltrobust.data import folder, sources
from ltrobust.data.run_data import make_run_data

COUNTS = [9, 5, 7]
PARTS = {"profile": "exp", "seed": 0, "validation_fraction": 0.1, "validation_floor": 1, "validation_cap": 0.5}


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three digits: 9, 5 and 7 training images, 4 test images of each."""
    return digits_folder.write(tmp_path / "données 1", COUNTS, test=4)


def load(place: pathlib.Path, split="train", *, cache_dir="", image_size=8, channels=1, **options) -> sources.Split:
    form = {"image_size": image_size, "channels": channels, **options}
    return sources.load("folder", split, data_dir=place, cache_dir=cache_dir, **form)


def save(path: pathlib.Path, image: Image.Image, **options) -> None:
    """One image of a further class `digit 3`, in both splits."""
    for split in ("train", "test"):
        target = path / split / "digit 3"
        target.mkdir(parents=True, exist_ok=True)
        image.save(target / options.get("name", "0.png"), **{k: v for k, v in options.items() if k != "name"})


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_of_their_size_come_back_as_they_are(place, split):
    result, digits = load(place, split), sources.load("digits", split)
    counts = COUNTS if split == "train" else [4] * 3
    wanted = np.concatenate([digits.images[digits.labels == label][:count] for label, count in enumerate(counts)])
    np.testing.assert_array_equal(result.images, wanted)
    assert result.labels.tolist() == np.repeat(np.arange(3), counts).tolist()
    assert result.labels.dtype == np.int64
    assert result.class_names == ("digit 0", "digit 1", "digit 2")
    assert result.notes == ()


def test_grey_becomes_three_equal_channels_and_both_sides_the_asked_for_size(place):
    result = load(place, image_size=5, channels=3)
    assert result.images.shape == (21, 5, 5, 3)
    np.testing.assert_array_equal(result.images[..., 0], result.images[..., 2])
    # Bilinear: a constant image stays itself, a ramp stays a ramp, whatever the aspect ratio.
    save(place, Image.fromarray(np.tile(np.arange(0, 160, 10, dtype=np.uint8), (4, 1))))
    ramp = load(place, image_size=8).images[-1, ..., 0].astype(int)
    assert (np.diff(ramp[:, 1:-1]) == 20).all()
    assert (ramp == ramp[0]).all()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), [10, 20, 30]),
        (Image.new("CMYK", (8, 8), (0, 0, 0, 0)), [255, 255, 255]),
        (Image.new("1", (8, 8), 1), [255, 255, 255]),
        (Image.new("L", (8, 8), 77).convert("P"), [77, 77, 77]),
    ],
    ids=["RGBA", "CMYK", "1", "P"],
)
def test_modes_of_8_bits_become_rgb(place, image, expected):
    save(place, image, name="0.tif")
    with pytest.warns(UserWarning, match="1 file of one colour: train/digit 3/0.tif"):
        assert load(place, channels=3).images[-1, 0, 0].tolist() == expected


def test_orientation_is_applied(place):
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save(place, image, exif=exif)
    np.testing.assert_array_equal(load(place).images[-1, ..., 0], np.asarray(image)[::-1, ::-1])


def test_val_is_the_test_split_only_where_there_is_no_test(place):
    first = load(place, "test")
    (place / "test").rename(place / "val")
    np.testing.assert_array_equal(load(place, "test").images, first.images)
    (place / "test").mkdir()
    with pytest.raises(ValueError, match="test has no class directories"):
        load(place, "test")


def test_the_cache_is_used_until_a_file_changes(place, tmp_path, monkeypatch):
    cache_dir = tmp_path / "cache"
    first = load(place, cache_dir=cache_dir)
    with monkeypatch.context() as patch:
        patch.setattr(folder.pixels, "read", lambda *_: pytest.fail("decoded again"))
        second = load(place, cache_dir=cache_dir)
        np.testing.assert_array_equal(first.images, second.images)
        assert first.fingerprint == second.fingerprint
        with pytest.raises(pytest.fail.Exception, match="decoded again"):
            load(place, cache_dir=cache_dir, image_size=6)
    # The same names and the same sizes in bytes, in another class: only paths tell.
    files = [place / "train" / f"digit {label}" / "0004.png" for label in (0, 2)]
    files[0].rename(place / "moved")
    files[1].rename(files[0])
    (place / "moved").rename(files[1])
    third = load(place, cache_dir=cache_dir)
    assert third.fingerprint != first.fingerprint
    assert third.labels.tolist() == first.labels.tolist()
    np.testing.assert_array_equal(third.images[4], first.images[14 + 4])


def test_the_fingerprint_is_of_pixels_and_not_of_files(place):
    before = load(place).fingerprint
    file = place / "train" / "digit 0" / "0000.png"
    Image.open(file).save(file, optimize=True)
    os.utime(file, (0, 0))
    assert load(place).fingerprint == before
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file)
    assert load(place).fingerprint != before


def test_files_that_are_no_images_are_told_and_hidden_ones_are_only_counted(place):
    (place / "train" / "digit 1" / "notes.txt").write_text("")
    (place / "train" / "digit 1" / ".DS_Store").write_text("")
    with pytest.warns(UserWarning, match=r"train of .*: 1 file skipped, no image suffix: train/digit 1/notes.txt\.$"):
        result = load(place)
    assert len(result.images) == 21
    assert result.notes == (
        "1 file skipped, hidden: train/digit 1/.DS_Store",
        "1 file skipped, no image suffix: train/digit 1/notes.txt",
    )
    assert result.files["used"] == COUNTS
    assert result.files["passed_over"]["hidden"] == {
        "count": 1,
        "classes": {"digit 1": 1},
        "names": ["train/digit 1/.DS_Store"],
    }
    with warnings.catch_warnings(action="error"):
        assert load(place, "test").notes == ()
    (place / "val").mkdir()
    assert load(place, "test").notes == ("the folder val is not used, as there is a test",)


def test_files_that_cannot_be_read_are_left_out_and_counted_if_asked_for(place, tmp_path):
    (place / "train" / "digit 0" / "empty.png").write_bytes(b"")
    (place / "train" / "digit 0" / "page.png").write_bytes(b"<html>")
    damage(place, "digit 2/0001.png")
    for _ in range(2):  # the decoded copy is as strict as the files
        with pytest.warns(UserWarning, match="3 files skipped, unreadable: "):
            result = load(place, cache_dir=tmp_path / "cache", skip_unreadable=True)
        assert result.files["used"] == [9, 5, 6]
        assert result.labels.tolist() == np.repeat(np.arange(3), [9, 5, 6]).tolist()
        assert result.files["passed_over"]["unreadable"] == {
            "count": 3,
            "classes": {"digit 0": 2, "digit 2": 1},
            "names": [
                "train/digit 0/empty.png (empty file)",
                "train/digit 0/page.png (no image)",
                "train/digit 2/0001.png (OSError: image file is truncated)",
            ],
        }
        with pytest.raises(ValueError, match=r"3 of 23 images in .*train cannot be read.*skip_unreadable=True"):
            load(place, cache_dir=tmp_path / "cache")
    damage(place, *(f"digit 1/{number:04d}.png" for number in range(5)))
    with pytest.raises(ValueError, match=r"class digit 1 has no image in .*digit 1 that can be read"):
        load(place, skip_unreadable=True)


def test_a_failing_disk_is_not_remembered(place, tmp_path, monkeypatch):
    read = folder.pixels.read

    def failing(file, *form):
        if file.name == "0003.png":
            raise OSError(5, "Input/output error")
        return read(file, *form)

    def unopened(path, *mode):
        raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patch:
        patch.setattr(folder.pixels, "read", failing)
        patch.setattr(pathlib.Path, "open", unopened)  # nor can files be compared with those of a copy
        with pytest.warns(UserWarning, match=r"0003.png \(Input/output error\)"):
            load(place, cache_dir=tmp_path / "cache", skip_unreadable=True)
    assert load(place, cache_dir=tmp_path / "cache", skip_unreadable=True).files["used"] == COUNTS


def test_images_of_one_colour_are_named_and_refused_if_they_are_most(place, tmp_path):
    black = Image.new("L", (8, 8), 0)
    for number in range(21):
        black.save(place / "train" / "digit 1" / f"black{number}.png")
    for _ in range(2):
        with pytest.warns(UserWarning, match="21 files of one colour: train/digit 1/black0.png, .* and 16 more"):
            result = load(place, cache_dir=tmp_path / "cache")
        assert result.files["findings"]["of one colour"]["classes"] == {"digit 1": 21}
    black.save(place / "train" / "digit 2" / "black.png")
    with pytest.raises(ValueError, match=r"22 of 43 images in .*train are nothing but the colour \[0\] \(of 255\)"):
        load(place)
    for number in range(21):  # a data set of colours
        Image.new("L", (8, 8), number).save(place / "train" / "digit 1" / f"black{number}.png")
    with pytest.warns(UserWarning, match="22 files of one colour"):
        load(place)


def test_one_pixel_is_not_of_one_colour(place):
    with warnings.catch_warnings(action="error"):
        result = load(place, image_size=1)
    assert result.images.shape == (21, 1, 1, 1)
    assert result.notes == ()


def test_an_image_in_two_classes_is_used_in_both_and_named(place):
    (place / "train" / "digit 1" / "again.png").symlink_to("../digit 0/0002.png")
    with pytest.warns(
        UserWarning, match="2 files in several classes through links: train/digit 0/0002.png, train/digi"
    ):
        result = load(place)
    assert result.files["used"] == [9, 6, 7]
    assert result.files["findings"][folder.SHARED]["classes"] == {"digit 0": 1, "digit 1": 1}


def test_a_folder_that_cannot_be_opened_is_left_out_only_if_asked_for(place, monkeypatch):
    closed, scandir = place / "train" / "digit 1" / "closed", os.scandir
    closed.mkdir()

    def refuse(path):
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        ValueError, match=r"1 folders in .*train cannot be opened: train/digit 1/closed\. Mend or remove"
    ):
        load(place)
    with pytest.warns(UserWarning, match="digit 1/closed"):
        result = load(place, skip_unreadable=True)
    assert result.files["used"] == COUNTS
    assert result.files["passed_over"][folder.listing.CLOSED]["count"] == 1


def test_a_changed_file_of_the_same_size_and_time_is_decoded_again(place, tmp_path):
    file = place / "train" / "digit 0" / "0003.png"
    contents = [file.read_bytes(), (place / "train" / "digit 1" / "0001.png").read_bytes()]
    size, result = max(map(len, contents)), []
    for content in contents:
        file.write_bytes(content.ljust(size, b"\0"))
        os.utime(file, (0, 0))
        result.append(load(place, cache_dir=tmp_path / "cache").fingerprint)
    assert result[0] != result[1]


def test_contents_tell_where_a_disk_has_no_times(tmp_path, monkeypatch):
    """A sample of files is compared, and with `full` all of them."""
    files = [tmp_path / f"{number:03d}" for number in range(200)]
    for file in files:
        file.write_bytes(b"same")
    real = os.stat
    timeless = {"st_mtime_ns": 0, "st_ctime_ns": 0}
    monkeypatch.setattr(
        os, "stat", lambda path, **options: os.stat_result((*real(path, **options)[:7], 0, 0, 0), timeless)
    )
    before = {check: folder.cache.fingerprint_files(files, check=check) for check in folder.cache.CHECKS}
    for file, noticed in ((files[1], {"full"}), (files[0], {"sample", "full"}), (files[-1], {"sample", "full"})):
        file.write_bytes(b"SAME")
        now = {check: folder.cache.fingerprint_files(files, check=check) for check in folder.cache.CHECKS}
        assert {check for check in now if now[check] != before[check]} == noticed
        file.write_bytes(b"same")


def test_the_copy_that_was_used_is_named(place, tmp_path):
    assert load(place).origin == "decoded now, no copy kept"
    first, second = (load(place, cache_dir=tmp_path / "cache").origin for _ in range(2))
    (file,) = (tmp_path / "cache").iterdir()
    assert (first, second) == (f"decoded now, copy in {file}", f"decoded copy {file}")
    assert load(place, cache_dir=file / "under a file").origin == "decoded now, no copy kept"


def test_a_path_that_is_no_utf_8_is_read(place, tmp_path):
    odd = place.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    for file in (odd / "train" / "digit 0" / "gone.png", odd / "train" / "digit 0" / os.fsdecode(b"\xff.txt")):
        file.symlink_to("nowhere")
    with pytest.warns(UserWarning, match=r"train of .*caf\\xe9: .*digit 0/\\xff.txt"):
        assert load(odd, cache_dir=tmp_path / "cache").files["used"] == COUNTS


def test_other_decoders_decode_again(place, tmp_path, monkeypatch):
    load(place, cache_dir=tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(folder.cache.PIL.features, "version", lambda name: "0")
        assert load(place, cache_dir=tmp_path / "cache").origin.startswith("decoded now")
    monkeypatch.setattr(folder.pixels, "VERSION", 0)
    assert load(place, cache_dir=tmp_path / "cache").origin.startswith("decoded now")


def test_everything_is_kept_at_ratio_0_and_a_subset_above_it(place):
    source = load(place)
    whole = make_run_data(source, imbalance_ratio=0.0, **PARTS)
    held_out = np.bincount(whole.validation.labels)
    assert (whole.class_counts + held_out).tolist() == COUNTS
    assert held_out.min() >= 1
    seen = [image.tobytes() for image in np.concatenate([whole.training.images, whole.validation.images])]
    assert sorted(seen) == sorted(image.tobytes() for image in source.images)
    assert len(whole.fingerprints["pixels"]) == len(source.fingerprint) == 64
    few = make_run_data(source, imbalance_ratio=3.0, **PARTS | {"validation_fraction": 0.0})
    assert few.class_counts.tolist() == [8, 5, 2]


def rename(place: pathlib.Path, old: str, new: str) -> None:
    (place / old).rename(place / new)


def damage(place: pathlib.Path, *names: str) -> None:
    for name in names:
        file = place / "train" / name
        file.write_bytes(file.read_bytes()[:50])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda place: rename(place, "test", "holdout"),
            FileNotFoundError,
            r"no folder test or val; expected.*holdout",
        ),
        (lambda place: rename(place, "train", "images"), FileNotFoundError, r"no folder train; .*train/CLASS/IMAGE"),
        (
            lambda place: rename(place, "test/digit 1", "test/one"),
            ValueError,
            r"only in .*train: digit 1; only in .*test: one",
        ),
        (lambda place: (place / "train" / "empty").mkdir(), ValueError, "only in .*train: empty"),
        (
            lambda place: [
                (place / split / "empty").mkdir() for split in ("train", "val", "test") if (place / split).is_dir()
            ],
            ValueError,
            r"class empty has no image in .*train/empty",
        ),
        (
            lambda place: damage(place, "digit 0/0003.png", "digit 2/0001.png"),
            ValueError,
            r"2 of 21 images in .* cannot be read: .*digit 0/0003.png.*digit 2/0001.png",
        ),
        (
            lambda place: save(place, Image.fromarray(np.full((8, 8), 4096, np.uint16))),
            ValueError,
            r"digit 3/0.png \(pixels of mode I;16, which are not 8 bits",
        ),
    ],
    ids=["no test", "no train", "other classes", "one more class", "empty class", "damaged", "16 bits"],
)
def test_what_is_no_data_set_is_refused_by_name(place, change, error, message):
    change(place)
    with pytest.raises(error, match=message):
        load(place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_dir": ""}, "data.dir is empty; give --config.data.dir=DIR"),
        ({"image_size": 0}, "data.image_size is 0"),
        ({"image_size": True}, "data.image_size is True; give the pixels"),
        ({"channels": True}, "data.channels is True; give 1"),
        ({"skip_unreadable": 1}, "data.skip_unreadable is 1; give True or False"),
        ({"cache_check": "all"}, "data.cache_check is 'all'; known: sample, full"),
        ({"channels": 2}, r"data.channels is 2; give 1 \(grey\) or 3"),
    ],
    ids=str,
)
def test_arguments_that_make_no_images_are_refused(place, arguments, message):
    with pytest.raises(ValueError, match=message):
        sources.load("folder", "train", **{"data_dir": place, "cache_dir": "", **arguments})
