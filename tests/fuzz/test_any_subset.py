"""Subsets, validation parts and balanced draws of whatever class counts: disjoint parts, counts by the formula."""

import math

import numpy as np
import pytest
from budget import says, tries
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.data import batches, longtail, run_data, sources

COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=12)
SEEDS = st.integers(0, 2**32 - 1)
RATIOS = st.floats(1, 60)
FRACTIONS = st.floats(0, 0.99)


def labels_of(counts, seed: int) -> np.ndarray:
    """Labels with those counts, in an arbitrary order."""
    return np.random.RandomState(seed).permutation(np.repeat(np.arange(len(counts)), counts))


@tries(150)
@given(COUNTS, RATIOS, st.sampled_from(longtail.PROFILES), SEEDS)
def test_a_long_tailed_subset(counts, ratio, profile, seed):
    labels = labels_of(counts, seed % 7)
    try:
        wanted = longtail.class_counts(np.array(counts), imbalance_ratio=ratio, profile=profile)
    except ValueError as error:
        says(error, "leaves class")
        return
    chosen = longtail.choose(labels, imbalance_ratio=ratio, profile=profile, seed=seed)
    assert len(set(chosen.tolist())) == len(chosen)
    result = np.bincount(labels[chosen], minlength=len(counts))
    np.testing.assert_array_equal(result, wanted)
    assert np.all(np.diff(result) <= 0)
    assert np.all(result <= counts)
    # n_max is the largest number that asks no class for more than it has, so some class gives all, but for rounding.
    assert result[0] <= ratio * (result[-1] + 1)
    assert np.any(result >= np.array(counts) - 1)
    np.testing.assert_array_equal(chosen, longtail.choose(labels, imbalance_ratio=ratio, profile=profile, seed=seed))
    milder = longtail.choose(labels, imbalance_ratio=1 + (ratio - 1) / 2, profile=profile, seed=seed)
    if longtail.class_counts(np.array(counts), imbalance_ratio=1 + (ratio - 1) / 2, profile=profile)[-1] == result[-1]:
        assert set(chosen[labels[chosen] == len(counts) - 1]) == set(milder[labels[milder] == len(counts) - 1])


@tries(150)
@given(COUNTS, FRACTIONS, st.integers(0, 15), FRACTIONS, SEEDS)
def test_a_validation_part(counts, fraction, floor, cap, seed):
    labels = labels_of(counts, seed)
    train, validation = longtail.carve_validation(labels, fraction=fraction, floor=floor, cap=cap)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        held_out = int(np.sum(labels[validation] == label))
        bound = max(math.ceil(round(fraction * count, 9)), floor) if fraction else 0
        assert held_out == min(bound, math.floor(round(cap * count, 9)))
        assert held_out < count
    again = longtail.carve_validation(labels, fraction=fraction, floor=floor, cap=cap)
    np.testing.assert_array_equal(validation, again.validation)


@tries(150)
@given(COUNTS, st.integers(-2, 60), SEEDS, st.booleans())
def test_a_balanced_draw(counts, count, seed, up_sample):
    labels = labels_of(counts, 3)
    if count < 1 or (not up_sample and count > min(counts)):
        with pytest.raises(ValueError, match="balanced subset"):
            longtail.balanced_subset(labels, count=count, seed=seed, up_sample=up_sample)
        return
    chosen = longtail.balanced_subset(labels, count=count, seed=seed, up_sample=up_sample)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), np.full(len(counts), count))
    times = np.bincount(chosen, minlength=len(labels))
    for label, available in enumerate(counts):
        assert set(times[labels == label]) <= {count // available, -(-count // available)}
    np.testing.assert_array_equal(chosen, longtail.balanced_subset(labels, count=count, seed=seed, up_sample=up_sample))


@tries(100)
@given(COUNTS, st.floats(), st.integers(-3, 500))
def test_the_size_of_a_balanced_draw(counts, gamma, count):
    try:
        size = longtail.balanced_count(np.array(counts), gamma=gamma, count=count)
    except ValueError as error:
        says(error, "gamma=")
        return
    assert 1 <= size <= sum(counts)
    assert size == (count or round(gamma * min(counts)) or round(math.sqrt(min(counts) * max(counts))))


@tries(100)
@given(COUNTS, RATIOS, st.sampled_from(longtail.PROFILES), SEEDS, FRACTIONS, st.integers(0, 15), FRACTIONS)
def test_what_a_run_sees(counts, ratio, profile, seed, fraction, floor, cap):
    labels = labels_of(counts, 5)
    images = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1) if len(labels) < 256 else None
    if images is None:
        return
    names = tuple(str(number) for number in range(len(counts)))
    source = sources.Split("digits", "train", images, labels, names)
    settings = {"imbalance_ratio": ratio, "profile": profile, "seed": seed, "validation_fraction": fraction}
    settings |= {"validation_floor": floor, "validation_cap": cap}
    try:
        made = run_data.make_run_data(source, **settings)
    except ValueError as error:
        says(error, "leaves class", "validation_fraction")
        return
    train, validation = set(made.training.images.ravel().tolist()), set(made.validation.images.ravel().tolist())
    assert not train & validation
    assert made.class_counts.min() >= 1
    np.testing.assert_array_equal(labels[made.training.images.ravel()], made.training.labels)
    held_out = np.bincount(made.validation.labels, minlength=len(counts))
    empty = held_out == 0
    assert len(made.notes) == bool(len(validation)) * (int(empty.any()) + bool((held_out[~empty] < 10).any()))
    assert fraction == 0 or len(validation)
    assert made.fingerprints == run_data.make_run_data(source, **settings).fingerprints


@tries(100)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(batches.REMAINDERS), st.integers(0, 2**40))
def test_the_epoch_of_a_step(examples, size, remainder, step):
    if size > examples:
        with pytest.raises(ValueError, match="choose a size"):
            batches.make_schedule(examples, size, remainder)
        return
    schedule = batches.make_schedule(examples, size, remainder)
    epoch = schedule.epoch_of(step)
    assert schedule.first_step(epoch) <= step < schedule.first_step(epoch + 1)
