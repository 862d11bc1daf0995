"""ImageNet from invented archives and folders of the official layout."""

import io
import pathlib
import tarfile

import numpy as np
import pytest
from invented import IMAGENET, IMAGENET_LABELS, IMAGENET_TRAIN, IMAGENET_VAL, jpeg, packed, place_imagenet
from PIL import Image

from ltrobust.data import imagenet, sources


@pytest.fixture
def archives(tmp_path) -> pathlib.Path:
    """A folder with the three official files."""
    folder = tmp_path / "archives"
    folder.mkdir()
    place_imagenet(folder)
    return folder


@pytest.fixture
def folders(tmp_path) -> pathlib.Path:
    """The same images in folders of classes, one class as an archive."""
    folder = tmp_path / "folders"
    for name, files in IMAGENET_TRAIN.items():
        (folder / "train" / name).mkdir(parents=True)
        for file, content in files.items():
            (folder / "train" / name / file).write_bytes(content)
    for (file, content), name in zip(IMAGENET_VAL.items(), IMAGENET_LABELS, strict=True):
        (folder / "val" / name).mkdir(parents=True, exist_ok=True)
        (folder / "val" / name / file).write_bytes(content)
    return folder


def load(split, folder: pathlib.Path, name: str = "imagenet", cache_dir="") -> sources.Split:
    return sources.load(name, split, data_dir=folder, cache_dir=cache_dir, image_size=8)


@pytest.fixture
def subset(monkeypatch) -> None:
    """Lets `imagenet10` be the first and the last class."""
    monkeypatch.setitem(imagenet.CLASSES, "imagenet10", (IMAGENET[2], IMAGENET[0]))


def test_archives_and_folders_hold_the_same_images_in_the_same_order(archives, folders):
    for split in sources.SPLITS:
        archived, unpacked = load(split, archives), load(split, folders)
        assert archived.images.shape == ((9 if split == "train" else 6), 8, 8, 3)
        assert archived.class_names == unpacked.class_names == IMAGENET
        assert archived.fingerprint == unpacked.fingerprint
    assert load("test", archives).labels.tolist() == [0, 0, 1, 1, 2, 2]
    # By name within a class, as a folder lists them.
    pixels = np.asarray(Image.open(io.BytesIO(IMAGENET_TRAIN[IMAGENET[1]][f"{IMAGENET[1]}_10.JPEG"])).resize((8, 8), 2))
    np.testing.assert_array_equal(load("train", archives).images[4], pixels)
    (folders / "train" / f"{IMAGENET[0]}.tar").write_bytes(packed(IMAGENET_TRAIN[IMAGENET[0]]))
    for file in (folders / "train" / IMAGENET[0]).iterdir():
        file.unlink()
    assert load("train", folders).fingerprint == load("train", archives).fingerprint


def test_some_classes_are_read_alone_and_kept_apart_in_the_cache(archives, subset, tmp_path):
    for split in sources.SPLITS:
        whole = load(split, archives)
        for _ in range(2):  # also from the cache
            some = load(split, archives, "imagenet10", tmp_path / "cache")
            assert some.class_names == (IMAGENET[0], IMAGENET[2])
            np.testing.assert_array_equal(some.images, whole.images[whole.labels != 1])
            np.testing.assert_array_equal(some.labels, whole.labels[whole.labels != 1] // 2)
        assert load(split, archives, cache_dir=tmp_path / "cache").class_names == IMAGENET


def test_classes_that_are_missing_are_named(archives, folders):
    for folder in (archives, folders):
        with pytest.raises(
            ValueError, match=r"lacks class n02979186 \(7 of 10 classes are missing\); it has 3, from n014"
        ):
            load("train", folder, "imagenet10")


def test_bad_archives_are_refused_by_name(archives):
    path = archives / imagenet.TRAIN
    content = path.read_bytes()
    for bad, message in (
        (content[: len(content) // 2], r"img_train.tar cannot be read as imagenet \(ReadError.*ltrobust data imagenet"),
        (packed({"n01440764.tar": b"abc"}), "cannot be read as imagenet"),
        (packed({"readme.txt": b"abc"}), "it has readme.txt, which is not the archive of a class"),
        (
            packed({"n01440764.tar": packed({"../evil.JPEG": jpeg(0)})}),
            r"has \.\./evil\.JPEG, which is not an image",
        ),
        (packed({"n01440764.tar": packed({"a.JPEG": b"abc"})}), r"n01440764/a\.JPEG in .* cannot be read as an image"),
        (b"<html>login</html>", "img_train.tar is a web page"),
    ):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=message):
            load("train", archives)
    (archives / imagenet.VAL).write_bytes(packed({"ILSVRC2012_val_00000007.JPEG": jpeg(0)}))
    with pytest.raises(ValueError, match=r"val_00000007\.JPEG, of which ILSVRC2012_devkit_t12.tar.gz knows no label"):
        load("test", archives)
    (archives / imagenet.LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=r"has only ILSVRC2012_img_val.tar of imagenet's test split"):
        load("test", archives)


def test_links_in_an_archive_of_images_are_refused(archives):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        entry = tarfile.TarInfo("a.JPEG")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    (archives / imagenet.TRAIN).write_bytes(packed({"n01440764.tar": content.getvalue()}))
    with pytest.raises(ValueError, match=r"n01440764 has a\.JPEG, which is not an image of ImageNet"):
        load("train", archives)
