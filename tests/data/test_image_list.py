"""Image lists: what is read of them, what is refused, and what tells two of them apart."""

import errno
import json
import os
import pathlib
import re
import shutil
import sys
import types

import listed
import numpy as np
import pytest
from PIL import Image

import ltrobust as lt
from ltrobust.analysis import cards, results
from ltrobust.data import cache, image_list, run_data, sources
from ltrobust.data.image_list import Lists
from ltrobust.data.images import FileImages
from ltrobust.data.run_data import DataPlan

COUNTS = {"train": [30, 12, 6], "test": [4, 4, 4]}


@pytest.fixture
def place(tmp_path):
    """A folder with lists `train.txt` and `test.txt`."""
    listed.write(tmp_path, **COUNTS)
    return tmp_path


def plan(place, **changes) -> DataPlan:
    settings = {"imbalance_ratio": 0.0, "image_size": 8, "dir": place, "cache_dir": ""}
    names = {"train": "train.txt", "test": "test.txt"} | changes.pop("lists", {})
    return DataPlan("image_list", **settings | changes, lists=Lists(**names))


def lines(file) -> list[str]:
    return file.read_text().splitlines()


def test_images_and_labels_are_those_of_the_list_in_its_order(place):
    split = plan(place).open("train")
    assert isinstance(split.images, FileImages)
    assert [f"{name} {label}" for name, label in zip(split.names, split.labels, strict=True)] == lines(
        place / "train.txt"
    )
    assert split.class_names == ("0", "1", "2")
    assert split.files["used"] == [30, 12, 6]
    assert split.images[:3].shape == (3, 8, 8, 3)
    assert split.images.resize == 9  # 256/224 of 8, rounded


def test_the_validation_part_is_carved_from_the_training_list_without_decoding(place, monkeypatch):
    monkeypatch.setattr(FileImages, "__getitem__", None)
    data = run_data.load(plan(place))
    assert data.validation_counts.tolist() == [6, 2, 1]
    assert data.class_counts.tolist() == [24, 10, 5]
    labels = {name: int(label) for name, label in map(str.split, lines(place / "train.txt"))}
    for part in (data.training, data.validation):
        assert [labels[name] for name in part.images.names] == part.labels.tolist()
    assert not set(data.training.images.names) & set(data.validation.images.names)


def test_a_validation_list_takes_its_place(place):
    listed.write(place, validation=[2, 3, 2], prefix="more/")
    data = run_data.load(plan(place, lists={"validation": "validation.txt"}))
    assert data.class_counts.tolist() == COUNTS["train"]
    assert data.validation_counts.tolist() == [2, 3, 2]
    assert all(name.startswith("more/validation/n") for name in data.validation.images.names)
    carved = run_data.load(plan(place))
    assert data.fingerprints["chosen"] == carved.fingerprints["chosen"]
    assert data.fingerprints["pixels"] != carved.fingerprints["pixels"]


def test_other_ratios_take_a_subset(place):
    data = run_data.load(plan(place, imbalance_ratio=2.0, validation_fraction=0.0))
    assert data.class_counts.tolist() == [12, 8, 6]


def test_python_loads_it_with_a_file_of_class_names_and_lists_from_anywhere(place, tmp_path):
    (place / "names.txt").write_text("tench\r\ngreat white shark\nbook\n", newline="")
    lists = {"train": str(place / "train.txt"), "test": "test.txt", "classes": "names.txt"}
    train, validation, test = lt.data.load("image_list", data_dir=place, lists=lists, imbalance_ratio=0, image_size=8)
    assert train.class_names == test.class_names == ("tench", "great white shark", "book")
    assert (len(train), len(validation), len(test)) == (39, 9, 12)
    assert test.images[[0, 5]].shape == (2, 8, 8, 3)
    assert (
        test.fingerprint
        == sources.load(
            "image_list", "test", data_dir=place, cache_dir="", image_size=8, lists=Lists(**lists)
        ).fingerprint
    )


def test_fingerprints_know_names_of_classes(place):
    first = run_data.load(plan(place)).fingerprints
    (place / "names.txt").write_text("0\n1\n2\n")
    named = plan(place, lists={"classes": "names.txt"})
    assert run_data.load(named).fingerprints == first
    (place / "names.txt").write_text("cat\ndog\neel\n")
    assert run_data.other_images(first, run_data.load(named).fingerprints) == ["classes"]


def test_fingerprints_know_files_and_not_times_or_places(place, tmp_path_factory):
    first = run_data.load(plan(place)).fingerprints
    copy = shutil.copytree(place, tmp_path_factory.mktemp("copy") / "images")
    os.utime(copy / "train/n0/000.jpg", (1, 1))
    assert run_data.load(plan(copy)).fingerprints == first
    listed.truncate(copy / "train/n0/001.png")
    other = run_data.load(plan(copy)).fingerprints
    assert other["images"] != first["images"]
    assert run_data.other_images(first, other)
    assert run_data.load(plan(place, image_size=9)).fingerprints["images"] != first["images"]


def test_whole_contents_tell_files_of_one_size_apart(place):
    """64 files are looked into by default, which leaves others that are only seen by `full`."""
    listed.write(place, train=[200, 80, 30])
    first = {check: run_data.load(plan(place, cache_check=check)).fingerprints for check in ("sample", "full")}
    assert first["full"].keys() - first["sample"].keys() == {"contents"}
    assert not run_data.other_images(first["full"], first["sample"])  # a run may change the check
    data, seen = run_data.load(plan(place)), set()
    for files in (data.training.images, data.validation.images, plan(place).open("train").images):
        seen |= {files.names[row] for row in cache.sample(len(files))}
    unseen = next(name for name in data.training.images.names if name not in seen and name.endswith("png"))
    content = bytearray((place / unseen).read_bytes())
    content[60] ^= 1
    (place / unseen).write_bytes(content)
    then = {check: run_data.load(plan(place, cache_check=check)).fingerprints for check in ("sample", "full")}
    assert then["sample"] == first["sample"]
    assert run_data.other_images(first["full"], then["full"]) == ["contents"]
    assert "contents of all files (SHA-256" in plan(place, cache_check="full").open("test").claim


def test_files_that_cannot_be_read_are_left_out_and_counted_if_asked_for(place):
    bad = ["train/n0/000.jpg", "train/n1/001.png"]
    for name in bad:
        listed.truncate(place / name)
    assert len(plan(place).open("train").images) == 48  # they are found when they are read
    with pytest.warns(UserWarning, match=r"train of .*: 2 files skipped, unreadable: train/n") as caught:
        split = plan(place, skip_unreadable=True).open("train")
    assert len(caught) == 1
    assert split.files["used"] == [29, 11, 6]
    assert split.files["passed_over"]["unreadable"]["classes"] == {"0": 1, "1": 1}
    assert not set(bad) & set(split.names)
    assert len(split.images[:]) == len(split.labels) == 46
    for number in range(6):
        (place / f"train/n2/{number:03d}.{'png' if number % 2 else 'jpg'}").write_bytes(b"")
    with pytest.raises(ValueError, match=r"class 2 has no image in .*train.txt that can be read"):
        plan(place, skip_unreadable=True).open("train")


def change(place, file: str, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, (place / file).read_text(), count=1)
    assert count
    (place / file).write_text(text)


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "message"),
    [
        ("train.txt", r"\A", "one.jpg\n", r"train.txt, line 1 is 'one.jpg'; expected is a path, a space and a label"),
        ("train.txt", r"\n", "\n\none.jpg -1\n", r"train.txt, line 3 is 'one.jpg -1'; expected"),
        ("train.txt", r"\n", "\none.jpg 1.5\n", r"line 2 is 'one.jpg 1.5'"),
        ("train.txt", r"\A(.*)\n", r"\1\n\1\n", r"train.txt, line 2 names train/n.*, as line 1 does"),
        ("train.txt", r"n2(.*) 2", r"n2\1 700", r"line \d+ has label 700, but its 48 images .*0 to 47"),
        ("train.txt", r"(?s)\A.*\Z", "", r"data.lists.train .*train.txt has no line"),
        ("test.txt", r"n2(.*) 2", r"n2\1 3", r"data.lists.test .* has label 3, but the 3 classes of data.lists.train"),
        ("test.txt", r"\A", "train/n0/000.jpg 0\n", r"1 images are in both data.lists.train .*test .*000.jpg \(lines"),
    ],
)  # fmt: skip
def test_lists_that_are_refused(place, file, pattern, replacement, message):
    change(place, file, pattern, replacement)
    for part in ("train", "test"):
        with pytest.raises(ValueError, match=message):
            plan(place).open(part)


def test_a_class_without_training_images_is_refused(place):
    kept = [line for line in lines(place / "train.txt") if not line.endswith(" 1")]
    (place / "train.txt").write_text("\n".join(kept))
    with pytest.raises(ValueError, match=r"train.txt has no image of 1 of 3 classes: 1\. Every class needs"):
        plan(place).open("train")
    (place / "names.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(ValueError, match=r"has no image of 2 of 4 classes: 1, 3\."):
        plan(place, lists={"classes": "names.txt"}).open("train")
    (place / "names.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"data.lists.train .* has label 2, but the 2 classes of data.lists.classes"):
        plan(place, lists={"classes": "names.txt"}).open("train")
    (place / "names.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match=r"names a twice"):
        plan(place, lists={"classes": "names.txt"}).open("train")


def test_a_command_on_a_card_has_names_of_lists_only(monkeypatch):
    words = [
        "--config.data.lists.train=/home/alice/lists/train.txt",
        "--config.data.lists.test",
        "/home/alice/test.txt",
    ]
    monkeypatch.setattr(sys, "argv", ["main.py", *words])
    assert cards.command() == "main.py --config.data.lists.train=train.txt --config.data.lists.test test.txt"


def test_evaluated_images_are_found_by_the_lists_that_a_run_recorded(place, tmp_path_factory):
    """A card has the names of lists outside of the data's folder, without their folder."""
    workdir, outside = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("lists")
    lists = {part: str((place / f"{part}.txt").rename(outside / f"{part}.txt")) for part in ("train", "test")}
    test = plan(place, lists=lists).open("test").images
    form = {"image_size": 8, "lists": {part: f"{part}.txt" for part in lists}}
    card = types.SimpleNamespace(config={"data": form}, data=types.SimpleNamespace(name="image_list"))
    written = {"data": form | {"lists": lists}, "seed": 0, "student": {}}
    (workdir / "config.json").write_text(json.dumps(written))
    ids, provenance = np.arange(len(test)), {"images": {"sha256": test.digest()}}
    where = {"data_dir": str(place), "cache_dir": ""}
    assert len(results.evaluated_images(card, provenance, ids, **where, workdir=workdir)) == 12
    with pytest.raises(FileNotFoundError, match=r"data.lists.train is train.txt"):
        results.evaluated_images(card, provenance, ids, **where)


def test_missing_files_lists_and_settings_are_named(place):
    (place / "test/n1/001.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of the 12 images of .*test.txt are not in data.dir .*: test/n1/001"
    ):
        plan(place).open("test")
    with pytest.raises(FileNotFoundError, match=r"48 of the 48 .* and 43 more\. Give the folder"):
        plan(place / "train", lists={"train": str(place / "train.txt"), "test": str(place / "test.txt")}).open("train")
    with pytest.raises(ValueError, match=r"data.lists.test is empty; give --config.data.lists.test=FILE: a text file"):
        plan(place, lists={"test": ""}).open("train")
    with pytest.raises(FileNotFoundError, match=r"data.lists.train is nowhere.txt, but there is no such file"):
        plan(place, lists={"train": "nowhere.txt"}).open("train")
    with pytest.raises(ValueError, match=r"data.resize is 7; give .* at least data.image_size \(8\)"):
        plan(place, resize=7).open("train")
    with pytest.raises(ValueError, match=r"split is 'validation'; .*known splits: train, test"):
        plan(place).open("validation")


def test_a_file_that_a_failing_disk_does_not_find_is_not_called_missing(place, monkeypatch):
    look = pathlib.Path.stat

    def fail(path, **options):
        if path.name == "001.png":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return look(path, **options)

    monkeypatch.setattr(pathlib.Path, "stat", fail)
    with pytest.raises(OSError, match=r"Stale file handle: .*001\.png"):
        plan(place).open("test")
    assert image_list.unreadable("test.txt", place) == [], "it can be read after all"


def test_contents_of_files_that_cannot_be_read_are_named(place):
    listed.fail(place / "test/n1/001.png")
    with pytest.raises(OSError, match=r"Input/output error: .*test/n1/001\.png"):
        plan(place, cache_check="full").open("test")


def test_paths_may_hold_spaces_and_bytes_that_are_no_text(tmp_path):
    listed.write(tmp_path, train=[2, 2], test=[2, 2])
    odd = os.fsdecode(b"two  words \xe9.jpg")
    (tmp_path / "train/n0/000.jpg").rename(tmp_path / odd)
    text = (tmp_path / "train.txt").read_text().replace("train/n0/000.jpg", odd)
    (tmp_path / "train.txt").write_text(text.replace(" 1", "\t1"), errors="surrogateescape")
    split = plan(tmp_path, imbalance_ratio=0.0).open("train")
    assert odd in split.names
    assert len(split.fingerprint) == 64
    assert np.array_equal(split.images[[split.names.index(odd)]].shape, (1, 8, 8, 3))


@pytest.mark.parametrize(
    "spelling", ["{place}/{name}", "./{name}", "test/../{name}", "{place}/train/../{name}", "linked/{file}"]
)
def test_an_image_is_one_image_however_its_path_is_spelt(place, spelling):
    (place / "linked").symlink_to(place / "train")
    name, label = lines(place / "train.txt")[0].split()
    again = spelling.format(place=place, name=name, file=name.removeprefix("train/"))
    for part, match in (
        ("train", r"line 49 names .*, as line 1 does"),
        ("test", r"1 images are in both data.lists.train"),
    ):
        text = (place / f"{part}.txt").read_text()
        (place / f"{part}.txt").write_text(f"{text}{again} {label}\n")
        with pytest.raises(ValueError, match=match):
            plan(place).open("train")
        (place / f"{part}.txt").write_text(text)


def test_a_path_that_goes_up_from_a_linked_folder_names_the_file_that_the_system_opens(place):
    (place / "far" / "sub").mkdir(parents=True)
    (place / "link").symlink_to(place / "far" / "sub")
    for folder, grey in ((place / "far", 7), (place, 200)):
        Image.new("RGB", (8, 8), (grey, grey, grey)).save(folder / "a.png")
    (place / "test.txt").write_text("link/../a.png 0\n")
    assert plan(place).open("test").images[:].max() == 7
