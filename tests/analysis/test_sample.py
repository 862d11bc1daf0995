"""The adversarial images that a run keeps for its pictures: few, fixed, and of head, middle and tail."""

import numpy as np

from ltrobust.analysis import metrics, sample


def test_of_few_classes_each_has_its_lowest_ids_whatever_the_order():
    labels = np.repeat(np.arange(10), 30)
    ids, counts = np.arange(300) * 3, np.arange(100, 0, -10)
    expected = np.concatenate([ids[labels == label][:8] for label in range(10)])
    shuffled = np.random.RandomState(0).permutation(300)
    for order in (np.arange(300), shuffled):
        np.testing.assert_array_equal(sample.choose(labels[order], ids[order], counts, (32, 32, 3)), np.sort(expected))


def test_of_many_classes_or_large_images_a_few_are_kept_and_every_third_has_some():
    counts = np.random.RandomState(0).permutation(200) + 1  # rare classes are anywhere
    labels = np.repeat(np.arange(200), 10)
    for shape, each in (((64, 64, 3), 7), ((224, 224, 3), 1), ((8, 8, 1), 8)):
        ids = sample.choose(labels, np.arange(2000), counts, shape)
        chosen = np.unique(labels[ids])
        assert len(ids) == 12 * each
        thirds = metrics.groups(counts)
        assert [np.isin(chosen, thirds[f"{name}_third"]).sum() for name in ("head", "medium", "tail")] == [4, 4, 4]
        middle = np.argsort(np.argsort(-counts))[chosen]
        assert set(np.minimum(abs(middle - 31), np.minimum(abs(middle - 98), abs(middle - 165)))) <= {0, 1, 2, 3}


def test_classes_without_test_images_and_no_images_at_all_are_no_fault():
    assert sample.choose(np.array([2, 2]), np.array([5, 1]), np.array([9, 4, 1]), (8, 8, 1)).tolist() == [1, 5]
    assert sample.choose(np.zeros(0, int), np.zeros(0, int), np.array([9, 4]), (8, 8, 1)).tolist() == []
