"""Images in two parts at once: copies and near-duplicates are found, pictures that only look alike are not."""

import functools
import io

import listed
import numpy as np
import pytest
from PIL import Image

from ltrobust.data import overlap, sources
from ltrobust.data.image_list import Lists


@pytest.fixture(scope="module")
def cifar10(shared_data, decoded):
    return {
        split: sources.load("cifar10", split, data_dir=shared_data / "tfds", cache_dir=decoded)
        for split in sources.SPLITS
    }


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))


def scaled(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((28, 28)).resize((32, 32)))


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray) -> np.ndarray:
    return np.clip(image + np.random.RandomState(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("change", [jpeg, scaled, brighter, noisy])
def test_changed_copies_are_found(cifar10, change):
    images = cifar10["test"].images[:500]
    pairs = overlap.find(images, np.stack([change(image) for image in images]))
    assert len(pairs.second) > 0.9 * 500
    np.testing.assert_array_equal(pairs.first, pairs.second)
    assert pairs.exact.mean() < 0.1


@pytest.mark.slow
def test_real_cifar10_has_no_copies_and_a_dozen_near_duplicates(cifar10):
    train, test = cifar10["train"], cifar10["test"]
    pairs = overlap.find(train.images, test.images)
    assert not pairs.exact.any()
    assert len(pairs.second) == 12
    np.testing.assert_array_equal(train.labels[pairs.first], test.labels[pairs.second])


def test_different_digits_are_not_near_duplicates():
    train, test = (sources.load("digits", split) for split in sources.SPLITS)
    pairs = overlap.find(train.images, test.images)
    assert len(pairs.second) == 1
    assert train.labels[pairs.first] == test.labels[pairs.second]


def test_images_with_little_in_them_count_only_as_exact_copies():
    images = np.full((20, 16, 16, 3), 200, np.uint8)
    images[:, 0, 0, 0] = np.arange(20)
    pairs = overlap.find(images[:10], images[5:])
    assert pairs.second.tolist() == [0, 1, 2, 3, 4]
    assert pairs.first.tolist() == [5, 6, 7, 8, 9]
    assert pairs.exact.all()


def test_one_scene_over_and_over_is_found_without_comparing_every_pair(monkeypatch):
    random = np.random.RandomState(0)
    scene = random.randint(0, 256, (1, 32, 32, 3))
    images = np.clip(scene + random.randint(-3, 4, (400, 32, 32, 3)), 0, 255).astype(np.uint8)
    compared = []
    centred = overlap.centred
    monkeypatch.setattr(overlap, "centred", lambda found: compared.append(len(found)) or centred(found))
    pairs = overlap.find(images[:300], images[300:])
    assert len(pairs.second) == 100
    assert sum(compared) <= 2 * 100 * overlap.CANDIDATES


@pytest.mark.parametrize("shape", [(6, 5, 1), (8, 8, 1), (28, 28, 1), (96, 96, 3)])
def test_images_of_any_size(shape):
    images = np.random.RandomState(0).randint(0, 256, (30, *shape)).astype(np.uint8)
    pairs = overlap.find(images[:20], images[15:])
    assert (pairs.first - pairs.second).tolist() == [15] * 5
    assert not len(overlap.find(images[:0], images).first)
    assert not len(overlap.find(images, images[:0]).first)


def describe(**settings):
    """Three parts of digits with an exact copy from training in each other part, one of them under another label."""
    found = sources.load("digits", "train")
    images = {"training": found.images[:300], "validation": found.images[299:350], "test": found.images[348:400]}
    labels = {"training": found.labels[:300], "validation": found.labels[299:350], "test": found.labels[348:400].copy()}
    labels["test"][0] += 1
    return overlap.describe(images, labels, lambda part, rows: [f"{part} {row}" for row in rows], **settings)


def test_the_card_has_counts_names_and_sentences():
    result = describe(official=True)
    assert result.images == {"training": 300, "validation": 51, "test": 52}
    counts = {(entry.part, entry.other): (entry.exact, entry.other_label) for entry in result.pairs}
    assert counts == {
        ("validation", "training"): (1, 0),
        ("test", "training"): (0, 0),
        ("test", "validation"): (2, 1),
    }
    assert result.pairs[0].named[0] == ("validation 0", "training 299", "exact")
    assert result.warnings[1].startswith(
        "the 52 test images hold 2 copies of the 51 validation images, 1 of them with another label, such as test 0 of "
    )
    assert result.repeated == 0


def test_near_duplicates_of_official_data_are_recorded_and_others_warned_of():
    images = np.random.RandomState(0).randint(0, 256, (10, 8, 8, 1)).astype(np.uint8)
    near = images.copy()
    near[:, 0, 0] ^= 1
    parts, labels = {"training": images, "test": near}, {"training": np.zeros(10), "test": np.zeros(10)}
    for official, place in ((True, "remarks"), (False, "warnings")):
        result = overlap.describe(parts, labels, lambda part, rows: list(map(str, rows)), official=official)
        assert len(getattr(result, place)) == 1
        assert getattr(result, place)[0].startswith(
            "the 10 test images hold 10 near-duplicates of the 10 training images"
        )
        assert len(result.warnings) + len(result.remarks) == 1
    doubled = {"training": images, "test": np.concatenate([near, near[:3]])}
    labels["test"] = np.zeros(13)
    result = overlap.describe(doubled, labels, lambda part, rows: list(map(str, rows)), official=True)
    assert result.repeated == 3
    assert result.warnings == ["3 test images are copies of other test images and count again"]


def compare_lists(place, check: str) -> overlap.Overlap:
    lists = Lists(train="train.txt", test="test.txt")
    load = functools.partial(sources.load, "image_list", data_dir=place, image_size=8, lists=lists, cache_check=check)
    splits = {"training": load("train"), "test": load("test")}
    return overlap.describe(
        {part: split.images for part, split in splits.items()},
        {part: split.labels for part, split in splits.items()},
        lambda part, rows: [splits[part].names[row] for row in rows],
        official=False,
    )


@pytest.mark.parametrize(("copied", "exact", "repeated"), [("train/n1/002.jpg", 1, 0), ("test/n0/000.jpg", 0, 1)])
def test_files_are_compared_by_their_whole_contents_where_these_were_read(tmp_path, copied, exact, repeated):
    listed.write(tmp_path, train=[4, 4], test=[3, 3])
    (tmp_path / "test/n0/002.jpg").write_bytes((tmp_path / copied).read_bytes())
    unread = compare_lists(tmp_path, "sample")
    assert unread.remarks == ["files were compared by path, not by contents (data.cache_check=full compares them)"]
    assert not unread.pairs
    result = compare_lists(tmp_path, "full")
    assert result.remarks == ["files were compared by their whole contents; near-duplicates were not looked for"]
    (pair,) = result.pairs
    assert (pair.exact, pair.near, pair.other_label, result.repeated) == (exact, 0, exact, repeated)
    assert pair.named == [("test/n0/002.jpg", copied, "exact")] * exact
