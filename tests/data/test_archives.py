"""Official archives: read as they are, in their own order, without a package or a folder of prepared data."""

import dataclasses
import gzip
import hashlib
import io
import json
import pathlib
import struct
import tarfile
import warnings

import numpy as np
import pytest
from absl import logging
from scipy import io as scipy_io

from configs import digits as digits_recipe
from ltrobust import run as runs
from ltrobust.data import archives, identity, longtail, sources

TAR = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary", "stl10": "stl10_binary"}
SIZES = {"cifar10": 32, "cifar100": 32, "mnist": 28, "svhn_cropped": 32, "stl10": 96}
# Images per class that tests invent.
NUMBERS = {"train": 5, "test": 2}


def invent(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of both splits."""
    random, classes = np.random.RandomState(0), 100 if name == "cifar100" else 10
    shape = (SIZES[name], SIZES[name], 1 if name == "mnist" else 3)
    found = {}
    for split, number in NUMBERS.items():
        labels = random.permutation(np.repeat(np.arange(classes), number))
        found[split] = random.randint(0, 256, (len(labels), *shape)).astype(np.uint8), labels
    return found


def publish(name: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """The files as they are published, byte by byte; for the data sets in `TAR` what is in the archive's folder."""
    files: dict[str, bytes] = {}
    for split, (images, labels) in data.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        numbers = labels.astype(np.uint8)[:, None]
        if name == "cifar10":
            rows = np.concatenate([numbers, planes], axis=1)
            parts = np.array_split(rows, 5) if split == "train" else [rows]
            names = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
            files |= {name: part.tobytes() for name, part in zip(names, parts, strict=True)}
        elif name == "cifar100":
            files[f"{split}.bin"] = np.concatenate([numbers // 5, numbers, planes], axis=1).tobytes()
        elif name == "stl10":
            files[f"{split}_X.bin"] = images.transpose(0, 3, 2, 1).tobytes()
            files[f"{split}_y.bin"] = (numbers + 1).tobytes()
        elif name == "svhn_cropped":
            file = io.BytesIO()
            scipy_io.savemat(file, {"X": np.moveaxis(images, 0, -1), "y": np.where(numbers == 0, 10, numbers)})
            files[f"{split}_32x32.mat"] = file.getvalue()
        else:
            prefix = "train" if split == "train" else "t10k"
            header = struct.pack(">4I", 0x0803, len(images), 28, 28)
            files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(header + images.tobytes())
            header = struct.pack(">2I", 0x0801, len(labels))
            files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(header + numbers.tobytes())
    if name in TAR:
        list_of_names = {"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt", "stl10": "class_names.txt"}
        classes = 100 if name == "cifar100" else 10
        files[list_of_names[name]] = "".join(f"name {number}\n" for number in range(classes)).encode() + b"\n"
    return files


def place(name: str, files: dict[str, bytes], folder: pathlib.Path, packed: bool = True) -> pathlib.Path:
    """Puts the published files, or what they unpack to, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in TAR and packed:
        archive_file = folder / archives.LAYOUTS[name].files[0].name
        with tarfile.open(archive_file, "w:gz") as archive:
            for member, content in {"readme.html": b"text", **files}.items():
                entry = tarfile.TarInfo(f"{TAR[name]}/{member}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return archive_file
    target = folder / TAR.get(name, "")
    target.mkdir(exist_ok=True)
    for member, content in files.items():
        (target / member).write_bytes(content)
    return target


@pytest.fixture
def official(monkeypatch):
    """Lets invented labels of CIFAR pass for the official sequence."""

    def accept(name: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        for split, (_, labels) in data.items():
            if (name, split) in identity.LABELS:
                monkeypatch.setitem(identity.LABELS, (name, split), longtail.fingerprint(labels))

    return accept


def load(name: str, split, folder: pathlib.Path, cache_dir: pathlib.Path | str = "") -> sources.Split:
    """Without the warning about a partial copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(partial copy|not the official)", category=UserWarning)
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
        found = load(name, split, tmp_path / "data")
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, labels)
        assert found.images.flags.c_contiguous
        assert found.class_names[1] == ("name 1" if name in TAR else "1")
        assert len(found.class_names) == (100 if name == "cifar100" else 10)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_second_load_is_from_the_cache_and_another_archive_is_read_again(tmp_path, monkeypatch):
    data = invent("mnist")
    place("mnist", publish("mnist", data), tmp_path / "data")
    first = load("mnist", "train", tmp_path / "data", tmp_path / "cache")
    with monkeypatch.context() as patch:
        unread = dataclasses.replace(archives.LAYOUTS["mnist"], read=None)
        patch.setitem(archives.LAYOUTS, "mnist", unread)
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


def test_a_missing_part_and_another_form_are_named(tmp_path):
    files = publish("mnist", invent("mnist"))
    files.pop("t10k-labels-idx1-ubyte.gz")
    place("mnist", files, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has only train-images.*gz of mnist\. Get .*t10k-labels"):
        load("mnist", "train", tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(FileNotFoundError, match=r"cifar-10-python.tar.gz is another form of it, which is not read\."):
        load("cifar10", "train", tmp_path)


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
    layout = archives.LAYOUTS["cifar100"]
    checksum = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    published = dataclasses.replace(layout.files[0], size=file.stat().st_size, checksum=checksum)
    monkeypatch.setitem(archives.LAYOUTS, "cifar100", dataclasses.replace(layout, files=(published,)))
    for _ in range(2):  # also from the cache
        found = load("cifar100", "train", tmp_path / "published", tmp_path / "cache")
        assert found.claim == "read from the published archive, whose checksum was compared"
    images, labels = data["train"]
    images = images.copy()
    first, second = np.flatnonzero(labels == 7)[:2]
    images[[first, second]] = images[[second, first]]
    place("cifar100", publish("cifar100", {**data, "train": (images, labels)}), tmp_path / "reordered")
    other = load("cifar100", "train", tmp_path / "reordered", tmp_path / "cache")
    np.testing.assert_array_equal(other.labels, found.labels)
    assert other.claim == "labels are the official ones; pixels not compared: no official digest is known here"
    assert other.fingerprint != found.fingerprint


@pytest.mark.slow
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
