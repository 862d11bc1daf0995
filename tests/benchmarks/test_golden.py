"""Choice of images for comparisons with the public attacks."""

import pathlib
from typing import Any

import golden
import numpy as np
import pytest

from ltrobust.data import sources


def record(robust):
    """Two classes; the margin grows with the position, and the last image is wrong when clean."""
    number = len(robust)
    logits = np.stack([np.arange(1, number + 1), np.zeros(number)], axis=1)
    labels = np.zeros(number, int)
    labels[-1] = 1
    return {"logits": logits, "labels": labels, "robust_fab_t": np.array(robust)}


def test_the_closest_images_are_robust_and_broken_ones_in_equal_numbers():
    robust = np.arange(9) % 2 == 0
    assert golden.closest(record(robust), "fab_t", 4).tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize(
    ("robust", "number", "message"),
    [
        ([True] * 9, 2, "1 broken images are needed, but fab_t leaves 0"),
        ([False] * 9, 2, "1 robust images are needed, but fab_t leaves 0"),
        ([True, False] * 4, 8, "4 broken images are needed, but fab_t leaves 3"),
        ([True, False] * 4, 3, "3 images have no halves; give an even number"),
    ],
)
def test_fewer_images_than_asked_for_are_refused(robust, number, message):
    with pytest.raises(ValueError, match=message):
        golden.closest(record(robust), "fab_t", number)


# A record with the first 4 of 10 test images.
IMAGES, LABELS = np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3), np.arange(10)
RECORD = {"images": IMAGES[:4], "labels": LABELS[:4].astype(np.int8)}


@pytest.fixture
def stored(monkeypatch):
    """Puts test images in the place of the folder's, or none; what they were loaded with."""
    loaded: list[Any] = []

    def put(images: np.ndarray | None) -> list[Any]:
        def load(name: str, split: str, **settings: Any) -> sources.Split:
            loaded.append((name, split, settings["data_dir"]))
            if images is None:
                raise FileNotFoundError("tfds/cifar10 is not there")
            return sources.Split(name, split, images, LABELS, tuple("0123456789"))

        monkeypatch.setattr(sources, "load", load)
        return loaded

    return put


@pytest.mark.parametrize("number", [1, 4, 5, 10])
def test_as_many_images_are_given_as_are_asked_for(stored, number):
    loaded = stored(IMAGES)
    images, labels = golden.first_images(pathlib.Path("data"), RECORD, number)
    np.testing.assert_array_equal(images, IMAGES[:number] / np.float32(255))
    np.testing.assert_array_equal(labels, LABELS[:number])
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert loaded == [("cifar10", "test", pathlib.Path("data/tfds"))] * (number > 4)


@pytest.mark.parametrize(
    ("images", "number", "message"),
    [
        (None, 5, "5 images are asked for; give at most 4, or more data: tfds/cifar10 is not there"),
        (IMAGES, 11, "11 images are asked for, but data/tfds has 10; give at most that"),
        (IMAGES[::-1], 5, "data/tfds begins with other test images than golden/; give at most 4"),
    ],
)
def test_more_images_than_there_are_is_an_error_that_names_how_many_there_are(stored, images, number, message):
    stored(images)
    with pytest.raises(ValueError, match=message):
        golden.first_images(pathlib.Path("data"), RECORD, number)
