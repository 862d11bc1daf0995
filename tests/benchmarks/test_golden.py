"""Choice of images for comparisons with the public attacks."""

import golden
import numpy as np
import pytest


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
