"""Official archives: read as they are, in their own order, without a package or a folder of prepared data."""

import dataclasses
import functools
import gzip
import io
import json
import pathlib
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import python2
from absl import logging
from invented import CLASSES, NUMBERS, SIZES, TAR, invent, pack_python_form, place, publish, python_form, tar
from scipy import io as scipy_io

from configs import digits as digits_recipe
from ltrobust import run as runs
from ltrobust.data import archive_formats, identity, longtail, published, run_data, sources


@pytest.fixture
def official(monkeypatch):
    """Lets invented labels of CIFAR pass for the official sequence."""

    def accept(name: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        for split, (_, labels) in data.items():
            if (name, split) in identity.LABELS:
                monkeypatch.setitem(identity.LABELS, (name, split), longtail.fingerprint(labels))

    return accept


def register(name: str, paths: list[pathlib.Path], patch: pytest.MonkeyPatch) -> None:
    """Lets these files pass for the published ones of the first form."""
    data = published.DATA[name]
    files = tuple(
        dataclasses.replace(file, size=path.stat().st_size, checksum=published.checksum(path, "sha256"))
        for file, path in zip(data.files, paths, strict=True)
    )
    forms = (dataclasses.replace(data.forms[0], files=files), *data.forms[1:])
    patch.setitem(published.DATA, name, dataclasses.replace(data, forms=forms))


def forget(name: str, patch: pytest.MonkeyPatch) -> None:
    """Takes away what reads a data set, so that only a decoded copy can be loaded."""
    data = published.DATA[name]
    forms = tuple(dataclasses.replace(form, read=None) for form in data.forms)
    patch.setitem(published.DATA, name, dataclasses.replace(data, forms=forms))


def load(name: str, split, folder: pathlib.Path, cache_dir: pathlib.Path | str = "") -> sources.Split:
    """Without the warning about a partial copy."""
    with warnings.catch_warnings():
        message = ".*(partial copy|not the official|not the published|nothing to compare)"
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
        return sources.load(name, split, data_dir=folder, cache_dir=cache_dir)


@pytest.mark.parametrize("inside", ["", "downloads/manual"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", SIZES)
def test_published_files_are_read_as_they_are(tmp_path, official, name, packed, inside):
    data = invent(name)
    official(name, data)
    place(name, publish(name, data), tmp_path / "data" / inside, packed)
    before = sorted(tmp_path.rglob("*"))
    for split, (images, labels) in data.items():
        result = load(name, split, tmp_path / "data")
        np.testing.assert_array_equal(result.images, images)
        np.testing.assert_array_equal(result.labels, labels)
        assert result.images.flags.c_contiguous
        second = {"fashion_mnist": "Trouser", "emnist_letters": "B"}.get(name, "1")
        assert result.class_names[1] == ("name 1" if name in TAR else second)
        assert len(result.class_names) == CLASSES.get(name, 10)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_python_form_of_cifar_is_read_and_is_the_same(tmp_path, official, name, packed):
    data = invent(name)
    official(name, data)
    files = python_form(name, data)
    if packed:
        pack_python_form(name, files, tmp_path)
    else:
        folder = tmp_path / published.DATA[name].forms[1].folder
        folder.mkdir()
        for member, content in files.items():
            (folder / member).write_bytes(content)
    place(name, publish(name, data), tmp_path / "binary")
    for split, (images, labels) in data.items():
        result, binary = load(name, split, tmp_path), load(name, split, tmp_path / "binary")
        np.testing.assert_array_equal(result.images, images)
        np.testing.assert_array_equal(result.labels, labels)
        assert result.images.flags.c_contiguous
        assert (result.fingerprint, result.class_names) == (binary.fingerprint, binary.class_names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((10, 3072), np.float32)}, "test_batch has no uint8 array data of rows of 3,072"),
        ({"data": [[0] * 3072] * 20}, "test_batch has no uint8 array data"),
        ({"labels": np.zeros(20, int)}, "test_batch has no list labels of numbers from 0 to 255"),
        ({"labels": [1000] * 20}, "no list labels of numbers"),
        ({"labels": [1] * 19}, "test_batch has 20 images and 19 labels"),
        ({"labels": range(20)}, r"test_batch: it names \w+\.x?range, which is not called"),
    ],
)
def test_batches_of_another_form_are_refused(tmp_path, official, change, message):
    data = invent("cifar10")
    official("cifar10", data)
    files = python_form("cifar10", data)
    files["test_batch"] = pickle.dumps(pickle.loads(files["test_batch"], encoding="latin1") | change, 2)
    pack_python_form("cifar10", files, tmp_path)
    with pytest.raises(ValueError, match=rf"cifar-10-python.tar.gz cannot be read as cifar10 .*{message}"):
        load("cifar10", "train", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "emnist_balanced"])
def test_idx_files_are_read_unpacked_and_where_torchvision_puts_them(tmp_path, name):
    data = invent(name)
    files = {file.removesuffix(".gz"): gzip.decompress(content) for file, content in publish(name, data).items()}
    inside = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw", "emnist_balanced": "EMNIST/raw"}[name]
    place(name, files, tmp_path / inside)
    for split, (images, labels) in data.items():
        result = load(name, split, tmp_path)
        np.testing.assert_array_equal(result.images, images)
        np.testing.assert_array_equal(result.labels, labels)


@pytest.mark.parametrize("packed", [True, False])
def test_emnist_is_read_from_the_archive_of_all_its_parts(tmp_path, packed):
    data = {name: invent(name) for name in ("emnist_letters", "emnist_balanced")}
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for name, splits in data.items():
            for member, content in publish(name, splits).items():
                archive.writestr(f"gzip/{member}", content)
    if not packed:
        with zipfile.ZipFile(tmp_path / "gzip.zip") as archive:
            archive.extractall(tmp_path / "unpacked")
    for name, splits in data.items():
        for split, (images, labels) in splits.items():
            result = load(name, split, tmp_path if packed else tmp_path / "unpacked")
            np.testing.assert_array_equal(result.images, images)
            np.testing.assert_array_equal(result.labels, labels)
    (tmp_path / "gzip.zip").write_bytes((tmp_path / "gzip.zip").read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"gzip.zip cannot be read as emnist_letters .BadZipFile"):
        load("emnist_letters", "train", tmp_path)


def bomb(path: pathlib.Path, name: str, size: int, where: str) -> pathlib.Path:
    """A `.tar.gz` with a member that unpacks to `size` zeros, in a few kilobytes."""
    with tarfile.open(path, "w:gz") as archive, pathlib.Path("/dev/zero").open("rb") as zeros:
        entry = tarfile.TarInfo(f"{where}/{name}")
        entry.size = size
        archive.addfile(entry, zeros)
    return path


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("data_batch_1.bin", "data_batch_1.bin has 3,000,000 bytes, official files at most 1,000,000"),
        ("readme.html", "another member has 3,000,000 bytes, official files at most 1,000,000"),
    ],
)
def test_sizes_are_known_before_anything_is_unpacked(tmp_path, monkeypatch, member, message):
    data = published.DATA["cifar10"]
    forms = (dataclasses.replace(data.forms[0], largest=1_000_000),)
    monkeypatch.setitem(published.DATA, "cifar10", dataclasses.replace(data, forms=forms))
    bomb(tmp_path / "cifar-10-binary.tar.gz", member, 3_000_000, TAR["cifar10"])
    with pytest.raises(ValueError, match=message):
        load("cifar10", "train", tmp_path)
    many = {f"other/{number}": bytes(900_000) for number in range(10)}
    tar(tmp_path / "cifar-10-binary.tar.gz", many)
    with pytest.raises(ValueError, match=r"it unpacks to more than 8,000,000 bytes, which no official archive does"):
        load("cifar10", "train", tmp_path)


def test_a_gzip_and_a_matlab_bomb_are_refused(tmp_path, monkeypatch):
    files = publish("mnist", invent("mnist"))
    place("mnist", files, tmp_path)
    monkeypatch.setattr(archive_formats, "LARGEST_IDX", 1000)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz has 1,001 bytes, official files at most 1,000"):
        load("mnist", "train", tmp_path)
    files = publish("svhn_cropped", invent("svhn_cropped"))
    file = io.BytesIO()
    scipy_io.savemat(file, {"X": np.zeros((32, 32, 3, 5)), "y": np.zeros((5, 1))}, do_compression=True)
    place("svhn_cropped", {**files, "train_32x32.mat": file.getvalue()}, tmp_path)
    with pytest.raises(ValueError, match=r"X is double \[32, 32, 3, 5\]; expected uint8 \[32, 32, 3, N\]"):
        load("svhn_cropped", "train", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_repeated_members_are_refused(tmp_path, official, kind):
    data = invent("cifar10")
    official("cifar10", data)
    files = publish("cifar10", data)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(f"{TAR['cifar10']}/test_batch.bin")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(ValueError, match=r"test_batch.bin is a link or a special file in the archive"):
        load("cifar10", "test", tmp_path)
    tar(path, {f"{TAR['cifar10']}/{name}": content for name, content in files.items()})
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo(f"{TAR['cifar10']}/test_batch.bin"))
    path.write_bytes(gzip.compress((tmp_path / "twice.tar").read_bytes()))
    with pytest.raises(ValueError, match=r"it has cifar-10-batches-bin/test_batch.bin twice"):
        load("cifar10", "test", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not the file itself"),
        (b"<?xml version='1.0'?><Error>", "is an XML page"),
        (b"", "is an empty file; download it again"),
    ],
)
def test_what_was_saved_in_place_of_an_archive_is_named(tmp_path, content, message):
    (tmp_path / "stl10_binary.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"stl10_binary.tar.gz {message}.*ltrobust data stl10"):
        load("stl10", "train", tmp_path)


def test_another_checksum_is_a_warning_that_says_what_differs(tmp_path, official, monkeypatch):
    data = invent("cifar10")
    official("cifar10", data)
    for split in sources.SPLITS:
        monkeypatch.setitem(identity.COUNTS, ("cifar10", split), (NUMBERS[split],) * 10)
        monkeypatch.setitem(identity.PIXELS, ("cifar10", split), identity.digest(*([part] for part in data[split])))
    file = place("cifar10", publish("cifar10", data), tmp_path / "published")
    register("cifar10", [file], monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sources.load("cifar10", "test", data_dir=file.parent, cache_dir="").claim == identity.OFFICIAL
    # Packed once more: the same content in other bytes.
    repacked = place("cifar10", {**publish("cifar10", data), "more": b"x"}, tmp_path / "repacked").parent
    for _ in range(2):  # also from the cache
        with pytest.warns(UserWarning, match=r"binary.tar.gz is not the published file .*: official pixels and labels"):
            result = sources.load("cifar10", "test", data_dir=repacked, cache_dir=tmp_path / "cache")
        assert (result.claim, result.notes) == (identity.OFFICIAL, ())
    images, labels = data["test"]
    altered = place("cifar10", publish("cifar10", {**data, "test": (255 - images, labels)}), tmp_path / "a").parent
    with pytest.warns(UserWarning, match=r"is not the published file .*: other pixels than the official ones"):
        assert "other pixels" in sources.load("cifar10", "test", data_dir=altered, cache_dir="").notes[0]


def test_the_files_of_another_data_set_are_recognised(tmp_path, monkeypatch):
    """MNIST and Fashion-MNIST have files of the same names."""
    files = publish("fashion_mnist", invent("fashion_mnist"))
    folder = place("fashion_mnist", files, tmp_path)
    register("fashion_mnist", [folder / file.name for file in published.DATA["mnist"].files], monkeypatch)
    with pytest.warns(UserWarning, match=r"train-images.* is not the published file .* but that of fashion_mnist; nor"):
        sources.load("mnist", "train", data_dir=folder, cache_dir="")


def test_the_second_load_is_from_the_cache_and_another_archive_is_read_again(tmp_path, monkeypatch):
    data = invent("mnist")
    place("mnist", publish("mnist", data), tmp_path / "data")
    first = load("mnist", "train", tmp_path / "data", tmp_path / "cache")
    with monkeypatch.context() as patch:
        forget("mnist", patch)
        second = load("mnist", "train", tmp_path / "data", tmp_path / "cache")
    np.testing.assert_array_equal(first.images, second.images)
    monkeypatch.setattr(logging, "warning", lambda *_: None)
    images, labels = data["train"]
    place("mnist", publish("mnist", {**data, "train": (255 - images, labels)}), tmp_path / "data")
    third = load("mnist", "train", tmp_path / "data", tmp_path / "cache")
    np.testing.assert_array_equal(third.images, 255 - first.images)


@pytest.mark.parametrize("name", ["cifar10", "stl10", "mnist"])
def test_a_truncated_archive_is_refused_whichever_split_is_read(tmp_path, official, name):
    data = invent(name)
    official(name, data)
    folder = tmp_path / "data"
    placed = place(name, publish(name, data), folder)
    file = placed if placed.is_file() else folder / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for split in sources.SPLITS:
        with pytest.raises(ValueError, match=f"{file.name}.* cannot be read as {name} .*Get .*http"):
            load(name, split, folder)


@pytest.mark.parametrize(
    ("name", "member", "message"),
    [
        ("cifar10", "data_batch_2.bin", "data_batch_2.bin has 3 bytes, which are no whole records of 3,073"),
        ("stl10", "test_y.bin", "do not fit 3 labels"),
        ("mnist", "train-labels-idx1-ubyte.gz", "Not a gzipped file"),
        ("svhn_cropped", "test_32x32.mat", "test_32x32.mat: "),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, official, name, member, message):
    data = invent(name)
    official(name, data)
    place(name, {**publish(name, data), member: b"abc"}, tmp_path)
    with pytest.raises(ValueError, match=f"cannot be read as {name} .*{message}"):
        load(name, "test", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:6], "cannot be read as mnist"),
        (lambda content: content[:-1], "is no whole IDX file of bytes"),
        (lambda content: content + b"\0", "is no whole IDX file of bytes"),
        (lambda content: b"\0\0\x0d" + content[3:], "is no whole IDX file of bytes"),  # floats
    ],
    ids=["header cut", "a byte less", "a byte more", "floats"],
)
def test_an_idx_file_that_is_not_what_its_header_says_is_refused(tmp_path, change, message):
    files, name = publish("mnist", invent("mnist")), "train-images-idx3-ubyte.gz"
    files[name] = gzip.compress(change(gzip.decompress(files[name])))
    place("mnist", files, tmp_path)
    for split in sources.SPLITS:
        with pytest.raises(ValueError, match=message):
            load("mnist", split, tmp_path)


def test_an_archive_without_one_of_its_files_is_refused(tmp_path, official):
    data = invent("cifar10")
    official("cifar10", data)
    files = publish("cifar10", data)
    del files["data_batch_4.bin"]
    place("cifar10", files, tmp_path)
    with pytest.raises(ValueError, match=r"cifar10 .*it has no cifar-10-batches-bin/data_batch_4\.bin.*Get .*http"):
        load("cifar10", "test", tmp_path)


def test_a_missing_part_is_named(tmp_path):
    files = publish("mnist", invent("mnist"))
    files.pop("t10k-labels-idx1-ubyte.gz")
    place("mnist", files, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has only train-images.*gz of mnist\. Get .*t10k-labels"):
        load("mnist", "train", tmp_path)


def test_other_labels_than_the_official_ones_are_refused(tmp_path):
    place("cifar100", publish("cifar100", invent("cifar100")), tmp_path)
    with pytest.raises(ValueError, match="is not the official cifar100: its 500 labels have SHA-256 "):
        load("cifar100", "train", tmp_path)


def test_the_claim_of_a_published_archive_needs_its_checksum(tmp_path, official, monkeypatch):
    """CIFAR-100 with the official labels, once in an archive with the published checksum and once reordered."""
    data = invent("cifar100")
    official("cifar100", data)
    for split in sources.SPLITS:
        monkeypatch.setitem(identity.COUNTS, ("cifar100", split), (NUMBERS[split],) * 100)
    file = place("cifar100", publish("cifar100", data), tmp_path / "published")
    register("cifar100", [file], monkeypatch)
    for _ in range(2):  # also from the cache
        result = load("cifar100", "train", tmp_path / "published", tmp_path / "cache")
        assert result.claim == "read from the published archive, whose checksum was compared"
    images, labels = data["train"]
    images = images.copy()
    first, second = np.flatnonzero(labels == 7)[:2]
    images[[first, second]] = images[[second, first]]
    place("cifar100", publish("cifar100", {**data, "train": (images, labels)}), tmp_path / "reordered")
    other = load("cifar100", "train", tmp_path / "reordered", tmp_path / "cache")
    np.testing.assert_array_equal(other.labels, result.labels)
    assert other.claim == "labels are the official ones; pixels not compared: no official digest is known here"
    assert other.fingerprint != result.fingerprint


@pytest.mark.ci
@pytest.mark.slow
def test_real_cifar10_has_the_same_fingerprints_from_tfds_and_from_both_archives(shared_data, tmp_path):
    """The archives are built again from TFDS's records, in the official order and form."""
    plan = functools.partial(run_data.DataPlan, "cifar10", cache_dir=tmp_path / "cache")
    from_tfds = {split: plan(dir=shared_data / "tfds").open(split) for split in sources.SPLITS}
    data = {split: (result.images, result.labels) for split, result in from_tfds.items()}
    names = python2.dumps({"label_names": list(from_tfds["train"].class_names)})
    pack_python_form("cifar10", {**python_form("cifar10", data), "batches.meta": names}, tmp_path / "python")
    names = "\n".join(from_tfds["train"].class_names).encode()
    place("cifar10", {**publish("cifar10", data), "batches.meta.txt": names}, tmp_path / "binary", packed=False)
    chosen = run_data.load(plan(dir=shared_data / "tfds")).fingerprints
    for form in ("python", "binary"):
        folder = tmp_path / form
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not the published file.*: official pixels and labels")
            for split in sources.SPLITS:
                result = plan(dir=folder).open(split)
                assert result.fingerprint == from_tfds[split].fingerprint == identity.PIXELS["cifar10", split]
                assert (result.claim, result.notes) == (identity.OFFICIAL, ())
                assert result.class_names == from_tfds[split].class_names
            assert run_data.load(plan(dir=folder)).fingerprints == chosen


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.filterwarnings("ignore:.*partial copy:UserWarning")
def test_a_run_starts_from_archives_alone(tmp_path):
    """The documented route: the downloaded files in `data.dir`, nothing else; the card says what they are."""
    place("mnist", publish("mnist", invent("mnist")), tmp_path / "data")
    config = digits_recipe.get_config()
    config.update_from_flattened_dict(
        {
            "data.name": "mnist",
            "data.dir": str(tmp_path / "data"),
            "data.cache_dir": str(tmp_path / "cache"),
            "data.imbalance_ratio": 2.0,
            "data.validation_fraction": 0.0,
            "model.width": 4,
            "student.method": "pgd_at",
            "student.initialize": "scratch",
            "student.steps": 1,
            "student.attack.steps": 1,
            "student.batch_size": 8,
            "eval.protocol": "validation",
            "eval.batch_size": 64,
        }
    )
    data = json.loads(runs.train(config.lock(), tmp_path / "run").read_text())["data"]
    assert data["notes"] == [
        "partial copy: 50 of 60,000 train images, 5 to 5 per class (official 5421 to 6742), 10 of 10 classes"
    ]
    assert data["test_notes"][0].startswith("partial copy: 20 of 10,000 test images")
    assert data["claim"] == data["test_claim"] == "not the complete official data"
    assert len(data["fingerprints"]["pixels"]) == len(data["test_images_sha256"]) == 64
