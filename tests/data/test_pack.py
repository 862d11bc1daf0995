"""Packs: the same bytes every time, the same images and training as the full data, and refusals that help."""

import dataclasses
import importlib.metadata
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image, features

from configs import digits as digits_recipe
from ltrobust import run as runs
from ltrobust.data import archives, cache, identity, longtail, mosaic, pack, pack_manifest, prepared, run_data, sources

ROOT = pathlib.Path(__file__).resolve().parents[2]
VALIDATION = {"validation_fraction": 0.05, "validation_floor": 10, "validation_cap": 0.2}
# What a run from a pack may need.
NEEDED = (
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "chex",
    "absl-py",
    "etils",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "tqdm",
    "ml_collections",
    "tensorboardX",
    "ltrobust",
)
REFUSED = {"tensorflow_datasets", "array_record", "importlib_resources", "tensorflow"}


def write_digits(folder: pathlib.Path, imbalance_ratio: float = 10, **settings) -> pathlib.Path:
    return pack.write(folder, name="digits", data_dir="", cache_dir="", imbalance_ratio=imbalance_ratio, **settings)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> pathlib.Path:
    """A pack of the digits at ratio 10, in several files for each split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic, "SIDE", 128)
        return write_digits(tmp_path_factory.mktemp("packs") / "digits")


@pytest.fixture
def copy(digits, tmp_path) -> pathlib.Path:
    """A copy of the pack that a test may damage."""
    return pathlib.Path(shutil.copytree(digits, tmp_path / "copy"))


@pytest.fixture
def invented(monkeypatch) -> dict[str, sources.Split]:
    """Replaces svhn_cropped by 400 and 150 random RGB images of 6x5 pixels, an incomplete copy by its notes."""
    random = np.random.RandomState(0)
    result = {}
    for split, number in (("train", 400), ("test", 150)):
        images = random.randint(0, 256, (number, 6, 5, 3)).astype(np.uint8)
        labels = random.permutation(np.arange(number) % 4).astype(np.int64)
        result[split] = sources.Split("svhn_cropped", split, images, labels, tuple("abcd"))
    entries = {split: cache.Entry(a.images, a.labels, a.class_names, split, "") for split, a in result.items()}
    monkeypatch.setattr(archives, "load", lambda name, split, **settings: (entries[split], ""))
    return result


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def same(first, second) -> None:
    """Checks that two dataclasses have equal fields, also those of dataclasses in them."""
    for field in dataclasses.fields(first):
        values = getattr(first, field.name), getattr(second, field.name)
        (same if dataclasses.is_dataclass(values[0]) else np.testing.assert_equal)(*values)


def make_run_data(source: sources.Split, imbalance_ratio: float, profile="exp", seed=0) -> run_data.RunData:
    return run_data.make_run_data(source, imbalance_ratio=imbalance_ratio, profile=profile, seed=seed, **VALIDATION)


# The format.


@given(
    number=st.integers(1, 30),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.sampled_from([1, 3]),
    levels=st.sampled_from([2, 256]),
    side=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_a_grid_gives_back_every_image_exactly(number, size, channels, levels, side, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaic, "SIDE", side)
        number = min(number, mosaic.capacity(*size))
        images = np.random.RandomState(seed).randint(0, levels, (number, *size, channels)).astype(np.uint8)
        content = mosaic.encode(images)
    decoded = np.full_like(images, 77)
    mosaic.decode(content, decoded)
    np.testing.assert_array_equal(decoded, images)


def test_a_grid_is_filled_row_by_row(monkeypatch):
    monkeypatch.setattr(mosaic, "SIDE", 20)
    images = np.random.RandomState(0).randint(0, 256, (5, 4, 6, 3)).astype(np.uint8)
    grid = np.asarray(Image.open(io.BytesIO(mosaic.encode(images))))
    assert grid.shape == (8, 18, 3)
    np.testing.assert_array_equal(grid[:4], np.concatenate(list(images[:3]), axis=1))
    np.testing.assert_array_equal(grid[4:, :12], np.concatenate(list(images[3:]), axis=1))
    assert not grid[4:, 12:].any()


def test_images_with_other_channels_are_refused():
    with pytest.raises(ValueError, match="images have 4 channels"):
        mosaic.encode(np.zeros((2, 3, 3, 4), np.uint8))


def test_writing_twice_gives_the_same_bytes(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(mosaic, "SIDE", 128)
    again = contents(write_digits(tmp_path / "again"))
    assert again == contents(digits)
    assert {"pack.json", "arrays.npz", "train-00.webp", "train-01.webp", "test-03.webp"} <= set(again)


def test_the_size_of_the_grids_is_no_part_of_the_format(digits, tmp_path):
    one = write_digits(tmp_path / "one")
    assert not (one / "train-01.webp").exists()
    for split in sources.SPLITS:
        result, expected = (sources.load("digits", split, data_dir=folder) for folder in (one, digits))
        np.testing.assert_array_equal(result.images, expected.images)


# The same data.


def test_grey_images_and_labels_are_those_of_the_full_data(digits):
    full = {split: sources.load("digits", split) for split in sources.SPLITS}
    same(sources.load("digits", "test", data_dir=digits), full["test"])
    train = sources.load("digits", "train", data_dir=str(digits))
    chosen = longtail.choose(full["train"].labels, imbalance_ratio=10)
    np.testing.assert_array_equal(train.held.positions, np.sort(chosen))
    np.testing.assert_array_equal(train.images, full["train"].images[np.sort(chosen)])
    np.testing.assert_array_equal(train.labels, full["train"].labels[np.sort(chosen)])
    np.testing.assert_array_equal(train.official_labels, full["train"].labels)
    assert train.images.flags.c_contiguous
    rows = train.rows_of(chosen[::-1], "any")
    np.testing.assert_array_equal(train.images[rows], full["train"].images[chosen[::-1]])


@pytest.mark.filterwarnings("ignore:.*partial copy:UserWarning")
@pytest.mark.parametrize("imbalance_ratio", [0, 1, 25])
def test_colour_images_and_notes_are_those_of_the_full_data(tmp_path, invented, monkeypatch, imbalance_ratio):
    monkeypatch.setattr(mosaic, "SIDE", 64)
    folder = pack.write(
        tmp_path / "pack", name="svhn_cropped", data_dir="", cache_dir="", imbalance_ratio=imbalance_ratio
    )
    given = {split: sources.load("svhn_cropped", split, data_dir="", cache_dir="") for split in sources.SPLITS}
    full = make_run_data(given["train"], imbalance_ratio)
    monkeypatch.delattr(archives, "load")
    with pytest.warns(UserWarning, match=re.escape(f"test of {folder}: partial copy: 150 of 26,032 test images")):
        test = sources.load("svhn_cropped", "test", data_dir=folder, cache_dir=tmp_path / "cache")
    same(test, given["test"])
    np.testing.assert_array_equal(test.images, invented["test"].images)
    with pytest.warns(UserWarning, match="partial copy: 400 of 73,257 train images"):
        train = sources.load("svhn_cropped", "train", data_dir=folder, cache_dir=tmp_path / "cache")
    same(make_run_data(train, imbalance_ratio), full)
    assert not (tmp_path / "cache").exists()


@given(
    imbalance_ratio=st.floats(1, 80),
    profile=st.sampled_from(["exp", "exp", "exp", "step"]),
    seed=st.sampled_from([0, 0, 0, 1]),
)
def test_a_subset_is_that_of_the_full_data_or_refused(digits, imbalance_ratio, profile, seed):
    full = sources.load("digits", "train")
    packed = sources.load("digits", "train", data_dir=digits)
    chosen = longtail.choose(full.labels, imbalance_ratio=imbalance_ratio, profile=profile, seed=seed)
    missing = len(np.setdiff1d(chosen, packed.held.positions))
    expected = make_run_data(full, imbalance_ratio, profile, seed)
    if missing:
        with pytest.raises(ValueError, match=rf"needs {len(chosen):,} images, of which {missing:,} are not in it"):
            make_run_data(packed, imbalance_ratio, profile, seed)
    else:
        same(make_run_data(packed, imbalance_ratio, profile, seed), expected)


def test_the_full_data_need_every_image_that_they_have(digits):
    same(
        make_run_data(sources.load("digits", "train", data_dir=digits), 10),
        make_run_data(sources.load("digits", "train"), 10),
    )


def test_a_larger_subset_than_the_pack_has_is_refused_with_both_settings(digits):
    packed = sources.load("digits", "train", data_dir=digits)
    with pytest.raises(
        ValueError,
        match=r"pack of digits holds the training images of imbalance ratio 10, profile exp, split seed 0; imbalance "
        r"ratio 4, profile step, split seed 3 needs 6\d\d images, of which \d+ are not in it\. Make a pack",
    ):
        make_run_data(packed, 4, "step", 3)


def test_a_pack_can_be_made_from_a_pack(digits, tmp_path):
    small = pack.write(tmp_path / "small", name="digits", data_dir=digits, cache_dir="", imbalance_ratio=40)
    assert contents(small) == contents(write_digits(tmp_path / "direct", 40))
    with pytest.raises(ValueError, match="imbalance ratio 4, profile exp, split seed 0 needs"):
        pack.write(tmp_path / "large", name="digits", data_dir=digits, cache_dir="", imbalance_ratio=4)
    assert not (tmp_path / "large").exists()


@pytest.mark.slow
def test_real_cifar10_has_the_known_fingerprints(shared_data, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(mosaic, "WEBP", {"lossless": True, "quality": 0, "method": 0})
    data = {"data_dir": shared_data / "tfds", "cache_dir": decoded}
    folder = pack.write(tmp_path / "pack", name="cifar10", imbalance_ratio=50, **data)
    full = sources.load("cifar10", "train", **data)
    monkeypatch.delattr(prepared, "load")
    assert full.claim == sources.load("cifar10", "test", data_dir=folder).claim == identity.OFFICIAL
    packed = sources.load("cifar10", "train", data_dir=folder)
    assert packed.images.shape == (13996, 32, 32, 3)
    result = make_run_data(packed, 50)
    assert result.fingerprints["chosen"] == "d7edcfaf02772bee1e2310a33be8b6c46232f043641158348b9de3ec731e26ac"
    same(result, make_run_data(full, 50))
    hundred = make_run_data(packed, 100)
    assert hundred.fingerprints["chosen"] == "4bf45bff8878d2786e47dccd702f96ff33b2b11d8c7da3b5015f10937290f866"
    same(hundred, make_run_data(full, 100))
    with pytest.raises(ValueError, match=r"imbalance ratio 10, .* needs 20,431 images, of which 6,435 are not in it"):
        make_run_data(packed, 10)


# Training.


def settings_of_three_steps(folder: pathlib.Path | str) -> dict:
    return {
        "data.imbalance_ratio": 10.0,
        "data.dir": str(folder),
        "model.width": 4,
        "student.method": "pgd_at",
        "student.initialize": "scratch",
        "student.steps": 3,
        "student.attack.steps": 2,
        "eval.protocol": "validation",
        "eval.limit": 2,
        "eval.batch_size": 64,
    }


@pytest.mark.ci
@pytest.mark.slow
def test_three_training_steps_equal_those_from_the_full_data(digits, tmp_path):
    cards = []
    for name, folder in (("full", ""), ("pack", digits)):
        config = digits_recipe.get_config()
        config.update_from_flattened_dict(settings_of_three_steps(folder))
        cards.append(json.loads(runs.train(config.lock(), tmp_path / name).read_text()))
    full, packed = cards
    assert full["training"]["student"]["steps"] == 3
    assert full["networks"] == packed["networks"]
    assert full["data"] == packed["data"]
    assert full["config"] == packed["config"]


def installed_with(names: tuple[str, ...]) -> set[str]:
    """These distributions and what they require, without extras."""
    result, waiting = set(), [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in result:
            continue
        result.add(name)
        requirements = [Requirement(text) for text in importlib.metadata.requires(name) or []]
        if name != "ltrobust":  # it requires TFDS
            needed = [entry for entry in requirements if not entry.marker or entry.marker.evaluate({"extra": ""})]
            waiting += [canonicalize_name(entry.name) for entry in needed]
    return result


# Makes packages look as if they were not installed, also to code that looks for them without an import.
SCRIPT = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in REFUSED else find(name, *rest)
from ltrobust.commands import main
main.run()
"""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("pack_is_there", [True, False])
def test_a_run_from_a_pack_needs_few_packages(digits, tmp_path, pack_is_there):
    """Without the pack the same run asks for TFDS, which shows that imports are refused."""
    allowed = installed_with(NEEDED)
    owners = importlib.metadata.packages_distributions()
    refused = {name for name, result in owners.items() if not allowed & set(map(canonicalize_name, result))} | REFUSED
    if not pack_is_there:
        digits = tmp_path
        (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
        (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").touch()
    flags = [f"--config.{key}={value}" for key, value in settings_of_three_steps(digits).items()]
    name = "digits" if pack_is_there else "mnist"
    finished = subprocess.run(
        [
            *(sys.executable, "-c", f"REFUSED = {refused!r}\n{SCRIPT}", f"--workdir={tmp_path / 'run'}"),
            *("--config=configs/digits.py", f"--config.data.name={name}", *flags),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if pack_is_there:
        assert finished.returncode == 0, finished.stderr
        assert (tmp_path / "run" / "results" / "validation.json").exists()
    else:
        assert "records that TFDS has prepared, and tensorflow_datasets, which reads them, is not" in finished.stderr


# What is refused.


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(folder: pathlib.Path, signed: bool, **changes) -> None:
    """Changes entries of `pack.json`, with a checksum that fits if `signed`."""
    path = folder / "pack.json"
    content = {**json.loads(path.read_text()), **changes}
    checksum = content.pop("checksum")
    path.write_text(json.dumps({**content, "checksum": pack_manifest.checksum(content) if signed else checksum}))


REFUSALS = {
    "truncated": (
        lambda folder: (folder / "train-01.webp").write_bytes((folder / "train-01.webp").read_bytes()[:-9]),
        r"train-01\.webp \([\d,]+ bytes\) is damaged: its SHA-256 differs\. Make the pack again or copy it again\.$",
    ),
    "empty": (lambda folder: (folder / "train-00.webp").write_bytes(b""), r"train-00\.webp \(0 bytes\) is damaged"),
    "flipped byte": (lambda folder: flip(folder / "train-00.webp"), r"train-00\.webp .* is damaged"),
    "flipped byte of the other split": (lambda folder: flip(folder / "test-02.webp"), r"test-02\.webp .* is damaged"),
    "flipped byte of the arrays": (lambda folder: flip(folder / "arrays.npz"), r"arrays\.npz .* is damaged"),
    "edited": (lambda folder: edit(folder, False, seed=1), r"pack\.json is damaged or was edited\. Make"),
    "no checksum": (lambda folder: edit(folder, False, checksum=None), r"pack\.json is damaged or was edited"),
    "no JSON": (lambda folder: (folder / "pack.json").write_bytes(b"\xff{"), r"pack\.json is damaged or was edited"),
    "a list": (lambda folder: (folder / "pack.json").write_text("[1]"), r"pack\.json is damaged or was edited"),
    "other format": (
        lambda folder: edit(folder, True, format=2),
        r"pack\.json has format 2, but format 1 is expected\. Make the pack again",
    ),
    "a field too few": (lambda folder: edit(folder, True, arrays={"name": "arrays.npz"}), r"pack\.json lacks a field"),
    "a field too many": (
        lambda folder: edit(folder, True, weather="fine"),
        r"pack\.json lacks a field or has one too many",
    ),
    "other seed": (lambda folder: edit(folder, True, seed=1), "positions and images do not fit together"),
    "other counts": (lambda folder: edit(folder, True, class_counts=[1] * 10), "do not fit together"),
    "labels of another data set": (
        lambda folder: edit(folder, True, name="cifar10"),
        r"not of the official cifar10: its train labels have SHA-256 .*, the official ones f5cfe00b",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_damaged_packs_are_refused(copy, kind):
    damage, message = REFUSALS[kind]
    damage(copy)
    name = "cifar10" if kind == "labels of another data set" else "digits"
    with pytest.raises(ValueError, match=message):
        sources.load(name, "train", data_dir=copy)


def test_a_check_says_what_a_pack_is_and_refuses_damaged_files(copy):
    manifest = pack.check(copy)
    assert (manifest.name, manifest.choice) == ("digits", {"imbalance_ratio": 10, "profile": "exp", "seed": 0})
    assert sum(manifest.class_counts) == len(sources.load("digits", "train", data_dir=copy).images)
    flip(copy / "test-00.webp")
    with pytest.raises(ValueError, match=r"test-00\.webp .* is damaged"):
        pack.check(copy)


def test_pixels_that_are_decoded_differently_are_refused(copy, monkeypatch):
    decode = mosaic.decode

    def other(content, images):
        decode(content, images)
        images[-1, 0, 0, 0] ^= 1

    monkeypatch.setattr(mosaic, "decode", other)
    message = r"the test images in .*copy were packed by Pillow .*: Pillow .* decodes other pixels\. Install"
    with pytest.raises(ValueError, match=message):
        sources.load("digits", "test", data_dir=copy)


def test_a_file_that_is_no_grid_is_refused(copy):
    manifest = json.loads((copy / "pack.json").read_text())
    (copy / "test-00.webp").write_bytes(b"no image")
    files = [
        {**file, "sha256": pack_manifest.sha256((copy / file["name"]).read_bytes())}
        for file in manifest["test"]["files"]
    ]
    edit(copy, True, test={**manifest["test"], "files": files})
    with pytest.raises(ValueError, match="cannot decode it"):
        sources.load("digits", "test", data_dir=copy)


@pytest.mark.parametrize("file", ["train-00.webp", "test-00.webp", "arrays.npz"])
def test_a_missing_file_is_named(copy, file):
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file} is missing\. Make the pack again or copy it again\."):
        sources.load("digits", "test", data_dir=copy)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "folder"])
def test_a_pack_of_another_data_set_is_refused(digits, name):
    with pytest.raises(ValueError, match=f"is a pack of digits, not of {name}"):
        sources.load(name, "train", data_dir=digits)


def test_pillow_without_webp_is_refused(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "webp")
    with pytest.raises(ValueError, match=r"Pillow [\d.]+ was built without WebP"):
        sources.load("digits", "test", data_dir=digits)
    with pytest.raises(ValueError, match=r"Pillow [\d.]+ was built without WebP"):
        write_digits(tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_own_images_cannot_be_packed(tmp_path):
    with pytest.raises(ValueError, match="data set is 'folder', which cannot be packed"):
        pack.write(tmp_path / "pack", name="folder", data_dir=tmp_path, cache_dir="", imbalance_ratio=1)


# Nothing is overwritten, and no half pack is left.


def test_a_folder_that_is_not_empty_is_left_untouched(copy, monkeypatch):
    """The refusal comes before the data set is read."""
    monkeypatch.delattr(sources, "load")
    (copy / "test-00.webp").unlink()
    before = contents(copy)
    with pytest.raises(ValueError, match=r"copy is not an empty folder, and nothing is overwritten\. Give another"):
        write_digits(copy)
    assert contents(copy) == before
    with pytest.raises(ValueError, match=r"pack\.json is not an empty folder"):
        write_digits(copy / "pack.json")
    assert contents(copy) == before
    assert list(copy.parent.iterdir()) == [copy]


def test_an_empty_folder_is_used_and_missing_ones_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    assert pack.is_pack(write_digits(tmp_path / "empty"))
    assert pack.is_pack(write_digits(tmp_path / "a" / "b"))


@pytest.mark.parametrize("function", ["encode", "decode"])
def test_a_writer_that_is_stopped_leaves_nothing(tmp_path, monkeypatch, function):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(mosaic, function, stop)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "pack")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_killed_leaves_no_pack(tmp_path, monkeypatch):
    """Nothing is cleaned up: what is there before the manifest is written is not taken for a pack."""
    monkeypatch.setattr(shutil, "rmtree", lambda *arguments, **settings: None)
    monkeypatch.setattr(pack_manifest, "write", lambda *arguments: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        write_digits(tmp_path / "pack")
    (rest,) = tmp_path.iterdir()
    assert (rest / "test-00.webp").exists()
    assert rest.name.startswith(".pack.partial-")
    assert not pack.is_pack(rest)


def test_a_folder_that_is_filled_meanwhile_is_left_untouched(tmp_path, monkeypatch):
    read = pack.read

    def fill(*arguments, **settings):
        (tmp_path / "pack").mkdir(exist_ok=True)
        (tmp_path / "pack" / "mine").write_text("mine")
        return read(*arguments, **settings)

    monkeypatch.setattr(pack, "read", fill)
    with pytest.raises(ValueError, match="is not an empty folder"):
        write_digits(tmp_path / "pack")
    assert contents(tmp_path / "pack") == {"mine": b"mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


@pytest.mark.parametrize("folder", ["", "~nobody/nowhere", "a" * 5000, "\0"])
def test_what_is_no_folder_is_no_pack(folder):
    assert not pack.is_pack(folder)
    with warnings.catch_warnings(action="error"):
        assert sources.load("digits", "test", data_dir=folder).held is None
