"""Named data sets: official order, one split at a time, a cache that is never trusted, errors that help."""

import dataclasses
import errno
import hashlib
import io
import os
import pathlib
import re
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image
from prepared import png, prepare
from sklearn import datasets

from ltrobust import data
from ltrobust.data import cache, sources

# Invented data are never complete.
pytestmark = pytest.mark.filterwarnings("ignore:.*(partial copy|not the official images):UserWarning")


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lines that the code under test reports through absl logging."""
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.fixture
def mnist(tmp_path: pathlib.Path) -> tuple[pathlib.Path, list[dict]]:
    """A prepared folder with 30 invented MNIST test images, and the examples in it."""
    pixels = np.random.RandomState(0).randint(0, 256, (30, 28, 28)).astype(np.uint8)
    examples = [{"image": png(image), "label": index % 10} for index, image in enumerate(pixels)]
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    prepare("mnist", features, examples, tmp_path / "tfds", "array_record")
    return tmp_path / "tfds", examples


def cifar10_test(shared_data: pathlib.Path, cache_dir: pathlib.Path | str) -> sources.Split:
    return sources.load("cifar10", "test", data_dir=shared_data / "tfds", cache_dir=cache_dir)


def test_digits_are_scikit_learns_in_two_sequential_parts():
    train, test = sources.load("digits", "train"), sources.load("digits", "test")
    assert train.images.shape == (1000, 8, 8, 1)
    assert test.images.shape == (797, 8, 8, 1)
    original = datasets.load_digits()
    labels = np.concatenate([train.labels, test.labels])
    np.testing.assert_array_equal(labels, original.target)
    images = np.concatenate([train.images, test.images])[..., 0]
    np.testing.assert_array_equal(np.round(images / 255 * 16), original.images)
    assert (images.min(), images.max()) == (0, 255)
    assert train.class_names == tuple("0123456789")
    assert train.num_classes == 10
    assert train.notes == ()


def check_form(split: sources.Split) -> None:
    assert split.images.dtype == np.uint8
    assert split.labels.dtype == np.int64
    assert split.images.flags.c_contiguous
    assert len(split.images) == len(split.labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_have_the_promised_form(split):
    check_form(sources.load("digits", split))


def test_a_split_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        sources.load("digits", "test").name = "mnist"  # type: ignore[misc]


@pytest.mark.slow
def test_real_cifar10_is_in_official_order_and_the_second_load_is_fast(shared_data, tmp_path):
    first = cifar10_test(shared_data, tmp_path)
    check_form(first)
    assert first.images.shape == (10000, 32, 32, 3)
    assert first.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert first.class_names[:2] == ("airplane", "automobile")
    start = time.perf_counter()
    second = cifar10_test(shared_data, tmp_path)
    assert time.perf_counter() - start < 2
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.class_names == second.class_names
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]


@pytest.mark.slow
def test_real_cifar10_images_follow_the_labels(shared_data):
    """Each image is compared with the record that carries its id, read one by one through TFDS itself."""
    loaded = cifar10_test(shared_data, "")
    builder = tfds.builder("cifar10", data_dir=str(shared_data / "tfds"))
    records = builder.as_data_source(split="test", decoders={"image": tfds.decode.SkipDecoding()})
    for index in range(0, 10000, 997):
        position = int(records[index]["id"].decode().removeprefix("test_"))
        image = np.asarray(Image.open(io.BytesIO(records[index]["image"])))
        np.testing.assert_array_equal(loaded.images[position], image)
        assert loaded.labels[position] == records[index]["label"]


@pytest.mark.slow
def test_real_cifar10_train_has_the_official_label_sequence(shared_data, decoded):
    train = sources.load("cifar10", "train", data_dir=shared_data / "tfds", cache_dir=decoded)
    assert train.images.shape == (50000, 32, 32, 3)
    assert hashlib.sha256(train.labels.tobytes()).hexdigest().startswith("f5cfe00b0f00968c")


@pytest.mark.slow
def test_only_the_asked_for_split_is_opened(shared_data, tmp_path):
    """A copy without the training records gives the test part and nothing else."""
    original = shared_data / "tfds" / "cifar10" / "3.0.2"
    copy = tmp_path / "tfds" / "cifar10" / "3.0.2"
    copy.mkdir(parents=True)
    for file in original.iterdir():
        if "train" not in file.name:
            (copy / file.name).symlink_to(file)
    assert len(sources.load("cifar10", "test", data_dir=tmp_path / "tfds", cache_dir="").labels) == 10000
    with pytest.raises(FileNotFoundError, match="lacks files of split train"):
        sources.load("cifar10", "train", data_dir=tmp_path / "tfds", cache_dir="")


def test_a_set_without_ids_keeps_the_order_of_its_records(mnist):
    data_dir, examples = mnist
    loaded = sources.load("mnist", "test", data_dir=data_dir, cache_dir="")
    check_form(loaded)
    assert loaded.images.shape == (30, 28, 28, 1)
    builder = tfds.builder("mnist", data_dir=str(data_dir))
    labels = [record["label"] for record in builder.as_data_source(split="test")]
    assert loaded.labels.tolist() == labels
    written = {example["image"] for example in examples}
    assert {png(image[..., 0]) for image in loaded.images} == written


def test_no_tensorflow_is_imported():
    assert "tensorflow" not in sys.modules


def damage_middle(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def repack(path: pathlib.Path) -> None:
    """Changes a pixel and writes a valid archive again: only the SHA-256 can tell."""
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["images"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "damage",
    [
        damage_middle,
        repack,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b"no archive"),
        lambda path: np.savez(path, images=np.zeros(3)),
    ],
    ids=["flipped bit", "changed pixel", "empty", "truncated", "text", "arrays missing"],
)
def test_a_damaged_cache_is_reported_in_one_line_and_rebuilt(mnist, tmp_path, warned, damage):
    data_dir, _ = mnist
    first = sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    damage(path)
    second = sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(first.images, second.images)
    assert len(warned) == 1
    assert str(path) in warned[0]
    assert "damaged" in warned[0]
    sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache")
    assert len(warned) == 1


def test_records_prepared_again_replace_their_cache_entry(mnist, tmp_path, warned):
    data_dir, _ = mnist
    first = sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache")
    (records,) = data_dir.glob("mnist/*/*test.array_record*")
    records.touch()
    second = sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(first.images, second.images)
    assert len(warned) == 1
    assert "decoded from other files" in warned[0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_records_changed_in_place_with_their_old_times_are_looked_at_again(mnist, tmp_path, warned):
    data_dir, _ = mnist
    (records,) = data_dir.glob("mnist/*/*test.array_record*")

    def origin() -> str:
        os.utime(records, (0, 0))
        return sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache").origin

    origins = [origin()]
    (file,) = (tmp_path / "cache").iterdir()
    content = records.read_bytes()
    records.write_bytes(content)
    origins += [origin()]
    assert origins == [f"decoded now, copy in {file}"] * 2
    assert "decoded from other files" in warned[0]
    records.write_bytes(bytes(len(content)))
    with pytest.raises(ValueError, match="cannot be read"):
        origin()


def test_two_copies_do_not_share_a_cache_entry(mnist, tmp_path, warned):
    data_dir, examples = mnist
    other = [{**example, "label": 9 - example["label"]} for example in examples]
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    prepare("mnist", features, other, tmp_path / "other", "array_record")
    for _ in range(2):
        first = sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "cache")
        second = sources.load("mnist", "test", data_dir=tmp_path / "other", cache_dir=tmp_path / "cache")
        np.testing.assert_array_equal(first.labels, 9 - second.labels)
    assert warned == []
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_failure(mnist, tmp_path, warned):
    data_dir, _ = mnist
    (tmp_path / "file").touch()
    loaded = sources.load("mnist", "test", data_dir=data_dir, cache_dir=tmp_path / "file" / "cache")
    assert len(loaded.labels) == 30
    assert len(warned) == 1
    assert "cannot be written" in warned[0]


def test_a_disk_that_fills_up_leaves_no_half_copy_and_the_old_one(tmp_path, monkeypatch, warned):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "copy.npz"
    entry = cache.Entry(np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int64), ("a",), "digits test", "fingerprint")
    assert cache.write(path, entry) == f"decoded now, copy in {path}"
    before = path.read_bytes()
    monkeypatch.setattr(np, "savez", full)
    assert cache.write(path, entry) == cache.NO_COPY
    assert "No space left on device" in warned[0]
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


CIFAR_FEATURES = {
    "image": tfds.features.Image(shape=(32, 32, 3)),
    "label": tfds.features.ClassLabel(num_classes=10),
    "id": tfds.features.Text(),
}


def test_a_relabelled_cifar10_is_refused(tmp_path):
    image = png(np.zeros((32, 32, 3), np.uint8))
    examples = [{"image": image, "label": index % 10, "id": f"test_{index:05d}"} for index in range(20)]
    prepare("cifar10", CIFAR_FEATURES, examples, tmp_path, "array_record")
    with pytest.raises(ValueError, match=r"test of .* is not the official cifar10.*SHA-256"):
        sources.load("cifar10", "test", data_dir=tmp_path, cache_dir="")


@pytest.mark.parametrize("ids", [("test_0", "test_2"), ("test_0", "train_1"), ("test_1", "test_01")])
def test_ids_that_are_no_permutation_are_refused(tmp_path, ids):
    image = png(np.zeros((32, 32, 3), np.uint8))
    examples = [{"image": image, "label": 0, "id": text} for text in ids]
    prepare("cifar10", CIFAR_FEATURES, examples, tmp_path, "array_record")
    with pytest.raises(ValueError, match=r"ids of cifar10/[\d.]+ test are not test_0 to test_1"):
        sources.load("cifar10", "test", data_dir=tmp_path, cache_dir="")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"no image", r"damaged image \(8 bytes\)"),
        (png(np.zeros((32, 32, 3), np.uint8))[:60], "damaged image"),
        (png(np.zeros((16, 32, 3), np.uint8)), "is 16x32 pixels, expected 32x32"),
    ],
    ids=["text", "truncated", "wrong size"],
)
def test_a_damaged_record_is_named(tmp_path, image, message):
    examples = [{"image": image, "label": 0, "id": "test_0"}]
    prepare("cifar10", CIFAR_FEATURES, examples, tmp_path, "array_record")
    with pytest.raises(ValueError, match=rf"record 0 of cifar10/[\d.]+ test .*{message}"):
        sources.load("cifar10", "test", data_dir=tmp_path, cache_dir="")


@pytest.mark.parametrize("name", ["cifar_10", "", None, 3, ["mnist"]])
def test_an_unknown_data_set_lists_the_known_ones(name):
    with pytest.raises(ValueError, match=r"known data sets: digits, cifar10, .*tiny_imagenet"):
        sources.load(name, "train")


@pytest.mark.parametrize("split", ["val", "", None, 0, ["train"]])
def test_an_unknown_split_lists_the_known_ones(split):
    with pytest.raises(ValueError, match="known splits: train, test"):
        sources.load("digits", split)


@pytest.mark.parametrize("settings", [{"data_dir": None}, {"cache_dir": 3}])
def test_a_folder_must_be_a_path(settings):
    with pytest.raises(ValueError, match="give a path"):
        sources.load("digits", "train", **settings)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "svhn_cropped", "stl10"])
def test_missing_data_come_with_the_archive_that_has_them(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=f"neither archive nor prepared records of {name}. Get .*http"
    ) as raised:
        sources.load(name, "test", data_dir=tmp_path)
    assert re.search(
        rf"and put (it|them) into {tmp_path} as (it is|they are); see ltrobust data {name}\.$", str(raised.value)
    )


@pytest.mark.parametrize("name", ["cifar10", "tiny_imagenet"])
def test_a_missing_data_dir_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        sources.load(name, "test", data_dir=tmp_path / "nowhere")


def test_records_of_another_version_or_without_their_description_are_refused(mnist):
    data_dir, _ = mnist
    (folder,) = (data_dir / "mnist").iterdir()
    older = folder.rename(folder.with_name("1.0.0"))
    with pytest.raises(FileNotFoundError, match=rf"{folder} has no prepared mnist\. Get .*http"):
        sources.load("mnist", "test", data_dir=data_dir, cache_dir="")
    folder = older.rename(folder)
    (folder / "dataset_info.json").unlink()
    (folder / "dataset_info.json").mkdir()  # as unreadable as a file of somebody else's
    with pytest.raises(ValueError, match=rf"{folder.parent} cannot be read .*dataset_info\.json.*Get .*http"):
        sources.load("mnist", "test", data_dir=data_dir, cache_dir="")


def test_records_need_tensorflow_datasets(mnist, monkeypatch):
    data_dir, _ = mnist
    monkeypatch.delattr(data, "prepared", raising=False)
    monkeypatch.delitem(sys.modules, "ltrobust.data.prepared", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        FileNotFoundError, match=r"mnist holds records .*tensorflow_datasets.* is not installed\. Install"
    ):
        sources.load("mnist", "test", data_dir=data_dir, cache_dir="")


def test_images_are_named_by_their_files_or_else_by_class_and_official_position():
    positions, labels = np.array([2, 0]), np.array([1, 0])
    names = {"class_names": ("cat", "dog")}
    assert sources.image_names("test", positions, labels, files=("a", "b", "c"), **names) == ["c", "a"]
    expected = ["train image 2 (dog)", "train image 0 (cat)"]
    assert sources.image_names("train", positions, labels, files=(), **names) == expected


def test_records_in_another_format_are_refused(mnist):
    data_dir, _ = mnist
    (info,) = data_dir.glob("mnist/*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=r"stored as .*tfrecord, which needs TensorFlow.*Get .*http"):
        sources.load("mnist", "test", data_dir=data_dir, cache_dir="")
