"""`ltrobust.data.load`: the images of a run with the same settings, with their fingerprints."""

import dataclasses

import numpy as np
import pytest

import ltrobust as lt
from configs import default
from ltrobust.data import dataset, identity, image_list, longtail, sources
from ltrobust.data.run_data import first_of_each_class, make_run_data

SETTINGS = {"imbalance_ratio": 10.0, "validation_floor": 4, "validation_fraction": 0.1, "split_seed": 3}


@pytest.fixture(scope="module")
def parts():
    return lt.data.load("digits", **SETTINGS)


def test_they_are_the_images_that_a_run_trains_and_validates_on(parts):
    settings = {"imbalance_ratio": 10.0, "profile": "exp", "seed": 3}
    settings |= {"validation_fraction": 0.1, "validation_floor": 4, "validation_cap": 0.2}
    official = sources.load("digits", "train")
    result = make_run_data(official, **settings)
    train, validation, test = parts
    np.testing.assert_array_equal(train.images, result.training.images)
    np.testing.assert_array_equal(train.labels, result.training.labels)
    np.testing.assert_array_equal(validation.images, result.validation.images)
    np.testing.assert_array_equal(validation.labels, result.validation.labels)
    for part in (train, validation):
        np.testing.assert_array_equal(part.images, official.images[part.positions])
        assert part.chosen_fingerprint == result.fingerprints["chosen"]
    assert longtail.fingerprint(train.positions) == result.fingerprints["train"]
    whole = sources.load("digits", "test")
    np.testing.assert_array_equal(test.images, whole.images)
    assert (test.fingerprint, test.chosen_fingerprint) == (whole.fingerprint, "")
    np.testing.assert_array_equal(test.positions, np.arange(797))


def test_records_are_typed_and_frozen(parts):
    for part in parts:
        assert (part.images.dtype, part.images.ndim, part.labels.dtype) == (np.uint8, 4, np.int64)
        assert len(part) == len(part.images) == len(part.labels) == len(part.positions) == part.class_counts.sum()
        assert part.class_names == tuple(map(str, range(10)))
        assert part.num_classes == 10
        assert part.fingerprint == identity.digest([part.images], [part.labels])
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.labels = part.labels
    assert len({part.fingerprint for part in parts}) == 3
    assert isinstance(parts[0], lt.Dataset)


def test_defaults_are_those_of_configurations():
    data = default.get_config().data
    names = {"imbalance_ratio", "profile", "validation_fraction", "validation_floor", "validation_cap", "cache_dir"}
    names |= {"image_size", "channels", "skip_unreadable", "cache_check", "split_seed"}
    names |= {"class_order", "resize"}
    given = dataset.load.__kwdefaults__
    assert {name: given[name] for name in names} == {name: data[name] for name in names}
    assert set(given) == names | {"data_dir", "lists"}
    # Training alone asks where images are kept, and by how many processes they are decoded.
    assert set(data) == names | {"name", "dir", "lists", "residence", "workers"}
    assert image_list.Lists(**data.lists.to_dict()) == image_list.Lists()


def test_without_validation_data_there_is_an_empty_part():
    train, validation, _ = lt.data.load("digits", imbalance_ratio=0, validation_fraction=0)
    assert (len(train), len(validation)) == (1000, 0)
    assert validation.images.shape == (0, 8, 8, 1)
    np.testing.assert_array_equal(validation.class_counts, np.zeros(10))
    assert longtail.fingerprint(train.positions) == train.chosen_fingerprint


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("digit", {}, "data set is 'digit'; did you mean"),
        ("digits", {"imbalance_ratio": 0.5}, "imbalance ratio is 0.5"),
        ("digits", {"profile": "linear"}, "long-tail profile is 'linear'"),
        ("digits", {"validation_cap": 0.001}, "no class has an image to spare"),
    ],
)
def test_mistakes_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        lt.data.load(name, **settings)


def test_pixels_become_floats_by_one_function(parts):
    images = lt.data.to_unit(parts[0].images)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)


def test_test_images_become_no_training_images():
    settings = {"validation_fraction": 0.0, "validation_floor": 0, "validation_cap": 0.0}
    with pytest.raises(ValueError, match="training data come from the split 'train', not 'test'"):
        make_run_data(sources.load("digits", "test"), imbalance_ratio=0.0, profile="exp", seed=0, **settings)


def test_a_limit_takes_the_first_images_of_every_class():
    labels = np.array([1, 0, 1, 1, 0, 2])
    limits = {limit: first_of_each_class(labels, limit).tolist() for limit in (0, 1, 2, 9)}
    assert limits == {0: [0, 1, 2, 3, 4, 5], 1: [0, 1, 5], 2: [0, 1, 2, 4, 5], 9: [0, 1, 2, 3, 4, 5]}
    with pytest.raises(ValueError, match=r"eval\.limit is -1; give a number of images per class, or 0"):
        first_of_each_class(labels, -1)
