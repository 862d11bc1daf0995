"""A data set without its images has the numbers of a run on it."""

import dataclasses

import numpy as np
import pytest

from configs import imagenet_lt
from ltrobust.data import blank, identity, run_data, sources
from ltrobust.data.run_data import DataPlan


def test_parts_and_class_counts_are_those_of_a_run(monkeypatch):
    counts = (40, 30, 60)
    monkeypatch.setitem(blank.SHAPES, "mnist", (4, 4, 1))
    monkeypatch.setitem(identity.COUNTS, ("mnist", "train"), counts)
    monkeypatch.setitem(identity.COUNTS, ("mnist", "test"), (5, 7, 9))
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(3), counts))
    source = sources.Split("mnist", "train", np.zeros((130, 4, 4, 1), np.uint8), labels, ("a", "b", "c"))
    monkeypatch.setattr(DataPlan, "open", lambda self, split: source)
    plan = DataPlan("mnist", imbalance_ratio=4.0)
    result, expected = blank.make_run_data(plan), run_data.load(plan)
    for part in ("training", "validation"):
        here, there = getattr(result, part), getattr(expected, part)
        assert here.images.shape == there.images.shape
        assert here.images.dtype == np.uint8
        np.testing.assert_array_equal(here.labels, there.labels)
    assert result.num_classes == 3
    assert blank.count_test_images(plan, 0) == 21
    assert blank.count_test_images(plan, 6) == 17


def test_every_named_data_set_is_known_but_those_that_are_read():
    assert set(sources.NAMES) - set(blank.SHAPES) == {
        *("digits", "folder", "image_list", "imagenet", "imagenet10", "emnist_byclass", "emnist_bymerge")
    }
    for name in blank.SHAPES:
        assert (name, "train") in identity.COUNTS
        assert (name, "test") in identity.COUNTS


def test_no_memory_is_taken_for_images():
    result = blank.make_run_data(dataclasses.replace(DataPlan("stl10"), imbalance_ratio=0))
    assert result.training.images.shape[1:] == (96, 96, 3)
    assert set(result.training.images.strides) == {0}


def test_published_lists_have_their_numbers_of_images_unless_they_are_there(tmp_path):
    plan = imagenet_lt.get_config().data.to_dict()
    plan = dataclasses.replace(DataPlan(**plan), dir=str(tmp_path))
    result = blank.make_run_data(plan)
    assert (len(result.training), len(result.validation), result.num_classes) == (115_846, 20_000, 1000)
    assert (result.class_counts.max(), result.class_counts.min()) == (1280, 5)
    assert set(result.validation_counts) == {20}
    assert result.training.images.shape == (115_846, 224, 224, 3)
    assert blank.count_test_images(plan, 0) == 50_000
    (tmp_path / "ImageNet_LT_train.txt").write_text("a.jpg 0\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_data, "load", lambda given: ("read", given))
        assert blank.make_run_data(plan) == ("read", plan)
        other = dataclasses.replace(plan, dir="", lists=dataclasses.replace(plan.lists, train="mine.txt"))
        assert blank.make_run_data(other) == ("read", other)


def test_digits_are_read():
    plan = DataPlan("digits", imbalance_ratio=10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_data, "load", lambda given: ("read", given))
        assert blank.make_run_data(plan) == ("read", plan)
