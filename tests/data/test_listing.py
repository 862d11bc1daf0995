"""Which files count as images of which class, and what is said of the others."""

import os
import pathlib

import pytest

from ltrobust.data import listing


@pytest.fixture
def train(tmp_path: pathlib.Path) -> pathlib.Path:
    """Classes a (0.png, 1.png, sub/2.png) and b (0.png)."""
    for name in ("a/0.png", "a/1.png", "a/sub/2.png", "b/0.png"):
        touch(tmp_path / "train" / name)
    return tmp_path / "train"


def touch(path: pathlib.Path) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def used(train: pathlib.Path) -> dict[str, list[str]]:
    """Class -> its images, by their paths in it."""
    return {
        name: [path.relative_to(train / name).as_posix() for path in images]
        for name, images in listing.read(train).images.items()
    }


def passed(train: pathlib.Path) -> dict[str, dict[str, int]]:
    """Reason -> class -> files."""
    return {reason: tally.classes for reason, tally in listing.read(train).passed_over.items()}


def test_ordinary_images_come_in_the_order_of_their_paths(train):
    for name in ("a/sub.png", "a/sub-1/3.PNG", "a/Z.jpeg", "a/ä.TIF"):
        touch(train / name)
    expected = sorted(path for path in (train / "a").rglob("*") if path.is_file())
    assert list(listing.read(train).images["a"]) == expected
    assert listing.read(train).passed_over == {}


def test_hidden_and_system_files_are_counted_and_not_used(train):
    for name in (".ipynb_checkpoints/0.png", "@eaDir/0.png", "@eaDir/deep/0.png", "__MACOSX/._0.png", "._1.png"):
        touch(train / "a" / name)
    for name in ("b/.DS_Store", "b/Thumbs.db", "b/desktop.ini", ".DS_Store", "@eaDir/x.png"):
        touch(train / name)
    assert used(train) == {"a": ["0.png", "1.png", "sub/2.png"], "b": ["0.png"]}
    result = listing.read(train).passed_over
    assert result[listing.HIDDEN].classes == {"": 1, "a": 2, "b": 1}
    assert result[listing.SYSTEM].classes == {"": 1, "a": 3, "b": 2}
    assert "train/a/.ipynb_checkpoints/0.png" in result[listing.HIDDEN].names


def test_linked_folders_are_followed_once(train, tmp_path):
    for number in range(10):
        touch(tmp_path / "store" / "x" / f"{number}.png")
    (train / "b" / "more").symlink_to(tmp_path / "store")
    assert used(train)["b"] == ["0.png", *(f"more/x/{number}.png" for number in range(10))]
    assert passed(train) == {}
    (train / "b" / "again").symlink_to(tmp_path / "store" / "x")
    assert used(train)["b"] == ["0.png", *(f"again/{number}.png" for number in range(10))]
    assert passed(train) == {listing.REPEATED: {"b": 1}}
    assert listing.read(train).passed_over[listing.REPEATED].names == ("train/b/more/x",)


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "sub/up"], ids=str)
def test_links_in_a_circle_end_and_are_named(train, target):
    (train / "a" / "sub" / "up").symlink_to(train / "a", target_is_directory=True)
    (train / "a" / "z").symlink_to(train / "a" / target, target_is_directory=True)
    assert used(train) == {"a": ["0.png", "1.png", "sub/2.png"], "b": ["0.png"]}
    result = listing.read(train).passed_over
    assert sum(tally.count for tally in result.values()) == 2
    assert "train/a/sub/up" in result[listing.LOOP].names


def test_links_to_nowhere_are_counted_and_named(train):
    for name in ("a/2.png", "a/sub/3.png", "b/1.png", "c"):
        (train / name).symlink_to(train / "nowhere")
    (train / "b" / "self.png").symlink_to("self.png")
    assert passed(train) == {listing.DANGLING: {"": 1, "a": 2, "b": 2}}
    assert "train/a/sub/3.png" in listing.read(train).passed_over[listing.DANGLING].names


def test_a_file_counts_once_in_a_class_and_is_named_if_it_is_in_two(train):
    (train / "a" / "copy.png").symlink_to("0.png")
    (train / "b" / "1.png").symlink_to("../a/1.png")
    assert used(train) == {"a": ["0.png", "1.png", "sub/2.png"], "b": ["0.png", "1.png"]}
    assert passed(train) == {listing.REPEATED: {"a": 1}}
    assert listing.read(train).shared == listing.Tally({"a": 1, "b": 1}, ("train/a/1.png", "train/b/1.png"))


def test_what_is_no_image_is_counted_by_reason(train):
    for name in ("a/notes.txt", "a/noend", "b/x.gif", "b/y.HEIC", "stray.png", "labels.csv"):
        touch(train / name)
    os.mkfifo(train / "b" / "pipe.png")
    assert passed(train) == {
        listing.NO_IMAGE: {"a": 2},
        listing.OTHER_FORMAT: {"b": 2},
        listing.OUTSIDE: {"": 2},
        listing.SPECIAL: {"b": 1},
    }


def test_a_folder_that_cannot_be_opened_is_named(train, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if os.fspath(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert passed(train) == {listing.CLOSED: {"a": 1}}


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        (b"caf\xe9", r"caf\xe9"),
        (b"\x1b[31mred", r"\x1b[31mred"),
        (b"two\nlines\t", r"two\nlines\t"),
        ("\u202eabc".encode(), r"\u202eabc"),
        ("\x85\u2028".encode(), r"\x85\u2028"),
        ("Käse 猫 👩‍🔬".encode(), "Käse 猫 👩‍🔬"),
        (rb"back\slash", r"back\slash"),
    ],
    ids=repr,
)
def test_class_names_are_printable_text(train, name, printed):
    touch(train / os.fsdecode(name) / "0.png")
    assert printed in listing.read(train).images
    printed.encode()


def test_classes_that_are_printed_alike_are_refused(train):
    touch(train / os.fsdecode(b"caf\xe9") / "0.png")
    touch(train / r"caf\xe9" / "0.png")
    with pytest.raises(ValueError, match=r"two class directories in .* are both printed as caf\\xe9; rename one"):
        listing.read(train)
