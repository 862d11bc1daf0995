"""The run from both places: what is refused before anything is written, and what is decoded before."""

import argparse
import zipfile

import host_fed
import listed
import numpy as np
import pytest

from ltrobust.data.images import FileImages
from ltrobust.plan import make_plan


def archive(folder, photographs):
    """An archive with so many empty photographs of each class."""
    path = folder / "tiny.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny/words.txt", "")
        for label, number in enumerate(photographs):
            for position in range(number):
                file.writestr(f"tiny/train/n{label}/images/n{label}_{position}.JPEG", "")
    return path


def test_lists_are_long_tailed_and_share_no_photograph(tmp_path):
    counts = host_fed.write_lists(archive(tmp_path, [30, 60, 40]), tmp_path / "images", classes=3, largest=40)
    assert counts == [40, 18, 8]
    lines = {
        part: (tmp_path / "images" / f"{part}.txt").read_text().split() for part in ("train", "validation", "test")
    }
    labels = {part: np.bincount(np.array(words[1::2], int)).tolist() for part, words in lines.items()}
    assert labels == {"train": counts, "validation": [8, 8, 8], "test": [8, 8, 8]}
    names = [name for words in lines.values() for name in words[::2]]
    assert len(set(names)) == len(names) == len(list((tmp_path / "images").glob("*.JPEG")))


@pytest.mark.parametrize(
    ("photographs", "classes", "largest", "message"),
    [
        ([], 2, 8, r"holds 0 classes with 24 photographs or more, and two are needed; give tiny-imagenet-200\.zip"),
        ([23, 40], 2, 8, r"holds 1 classes"),
        ([30, 60, 40], 4, 8, r"^--classes is 4; give 2 to 3\."),
        ([30, 60, 40], 1, 8, r"^--classes is 1; give 2 to 3\."),
        ([30, 60, 40], 3, 7, r"^--largest is 7; with 3 classes give 8 to 44\."),
        ([30, 60, 40], 3, 45, r"^--largest is 45; with 3 classes give 8 to 44\."),
        ([24, 60, 30], 3, 40, r"^--largest is 40; with 3 classes give 8 to 26\."),
    ],
)
def test_what_an_archive_has_not_is_refused_with_what_is_allowed(tmp_path, photographs, classes, largest, message):
    path = archive(tmp_path, photographs)
    with pytest.raises(SystemExit, match=message):
        host_fed.write_lists(path, tmp_path / "images", classes, largest)
    assert list(tmp_path.iterdir()) == [path]


def test_the_device_gets_arrays_of_all_lists_with_the_pixels_of_the_files(tmp_path):
    listed.write(tmp_path, train=[3, 2], validation=[2, 2], test=[2, 2])
    given = argparse.Namespace(workers=1, epochs=1, batch=2)
    parts = []
    for residence in ("host", "device"):
        config = host_fed.configuration(given, tmp_path, residence)
        data, test = host_fed.load(make_plan(config, tmp_path).data)
        parts.append([part.images for part in (data.training, data.validation, test.split)])
    for files, array in zip(*parts, strict=True):
        assert isinstance(files, FileImages)
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, files[:])
