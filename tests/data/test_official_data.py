"""What may be claimed about images and labels: only what was compared."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from ltrobust.data import identity, longtail, run_data, sources
from ltrobust.training import compatibility


def identify(name, images, labels, **settings):
    classes = len(identity.COUNTS.get((name, "test"), range(10)))
    return identity.identify(
        name, "test", images, labels, **({"official_labels": labels, "num_classes": classes} | settings)
    )


def complete(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images of one pixel, with the official number of each class."""
    labels = np.repeat(np.arange(len(identity.COUNTS[name, "test"])), identity.COUNTS[name, "test"])
    return np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2, 1), labels


@pytest.mark.parametrize("name", ["mnist", "svhn_cropped", "stl10", "tiny_imagenet"])
def test_incomplete_copies_are_noted_and_complete_ones_are_not_called_official(name):
    images, labels = complete(name)
    whole = identify(name, images, labels)
    assert whole.notes == ()
    assert "not compared" in whole.claim
    part = identify(name, images[1:], labels[1:])
    assert part.notes[0].startswith(f"partial copy: {len(labels) - 1:,} of {len(labels):,} test images")
    assert part.claim == "not the complete official data"
    labels[0] = 1
    assert identify(name, images, labels).notes[0].startswith("not the official images: ")


def test_cifar100_in_another_order_has_no_official_claim(monkeypatch):
    images, labels = complete("cifar100")
    monkeypatch.setitem(identity.LABELS, ("cifar100", "test"), longtail.fingerprint(labels))
    first = identify("cifar100", images, labels)
    second = identify("cifar100", np.concatenate([images[99::-1], images[100:]]), labels)
    assert (
        first.claim
        == second.claim
        == ("labels are the official ones; pixels not compared: no official digest is known here")
    )
    assert first.fingerprint != second.fingerprint


@pytest.mark.slow
def test_real_cifar10_is_official_and_one_changed_pixel_is_noticed(shared_data, decoded):
    data = {"data_dir": shared_data / "tfds", "cache_dir": decoded}
    for split in sources.SPLITS:
        result = sources.load("cifar10", split, **data)
        assert result.claim == identity.OFFICIAL
        assert result.fingerprint == identity.PIXELS["cifar10", split]
        assert result.notes == ()
    images = result.images.copy()
    images[5, 0, 0, 0] ^= 1
    other = identify("cifar10", images, result.labels)
    assert other.claim == "labels are the official ones, pixels are not"
    assert other.notes[0].startswith("other pixels than the official ones (SHA-256 ")


def test_digits_are_those_of_scikit_learn():
    assert {sources.load("digits", split).claim for split in sources.SPLITS} == {identity.OFFICIAL}


def test_a_part_of_the_images_carries_no_claim_about_pixels():
    """A pack holds all labels and some images."""
    result = sources.load("digits", "train")
    half = identity.identify(
        "digits", "train", result.images[:500], result.labels[:500], official_labels=result.labels, num_classes=10
    )
    assert half.claim == "not compared with the official data: 500 of 1,000 images are here"
    assert half.notes == ()


def test_own_images_have_a_digest_and_no_claim():
    images, labels = complete("mnist")
    result = identify("folder", images, labels)
    assert (result.claim, result.notes) == ("the user's own images", ())
    assert result.fingerprint == identity.digest([images], [labels])


def test_checkpoints_of_other_pixels_or_positions_are_refused():
    made = run_data.make_run_data(
        sources.load("digits", "train"),
        imbalance_ratio=10.0,
        profile="exp",
        seed=0,
        validation_fraction=0.05,
        validation_floor=10,
        validation_cap=0.2,
    )
    compatibility.same_images(made, made, epath.Path("checkpoints"))
    for key in ("pixels", "train"):
        other = made.fingerprints | {key: "0" * 64}
        with pytest.raises(ValueError, match="trained on other images than those found now"):
            compatibility.same_images(dataclasses.replace(made, fingerprints=other), made, epath.Path("checkpoints"))
