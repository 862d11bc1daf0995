"""Splits: the peers' images, exactly; validation from training only; balance; errors that name the value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.data import longtail, sources

# Label-free fingerprints of the kept ranks (docs/concepts/data.md): (classes, per class, ratio) -> images, SHA-256.
RANKS = {
    (10, 5000, 10): (20431, "2b3a8656bec514c6c87236694978bc8a90f04fa51b4ed2009d2f8f336a614242"),
    (10, 5000, 20): (17023, "a7d33406202ee724f22f21736a4c717cfc787b6f839e8221809a7f2da6dc5a1f"),
    (10, 5000, 50): (13996, "7bb90363b243a944125b22035862d78afbc280cb2c0f509019ffc6960fd0f523"),
    (10, 5000, 100): (12406, "8a54f5b6fa9722952358bc99897aa969bc20f845d0b15034e5013337df1e4ec7"),
    (10, 5000, 200): (11203, "334c2d61143b39bf3cc8edb0315b5c43f5a5198ef01e8c09f99b1b060d70f545"),
    (100, 500, 10): (19573, "5906ba7310b91b5ee5a4e0b172d27f9370929d8acacd8026f44e160daa1f4834"),
    (100, 500, 20): (15907, "03ac457e9ab1e6bdac3309aaa00275450fbe39ee0c22b12d947c5a8c68fa4a4d"),
    (100, 500, 200): (9502, "36f76462dfbbe6f48cb30b5d4564fc5a84b1c1bfb4f222674a27dd2b2bba875c"),
    (200, 500, 20): (31711, "6702c3cc691074d2330fa12edb4bb3ffca5f9a82e9dbc23f4e43d59a883de8df"),
    (200, 500, 50): (25082, "a42b9238c8d74d50bca68d2b66199df341748fb4edad1198e465a2dae82e5284"),
    (200, 500, 200): (18836, "4ea3b97efc6f1a93589d20d802e950de730063c09b3eb8f67faea42e3d3e83c9"),
    (100, 500, 50): (12608, "1bc82de2629e5cbd51d6ea8f1d70cf7986616bfecb4a8606a427fbcc1dd50c16"),
    (100, 500, 100): (10847, "f123ec136d44ab1b224fe55bb8a73ab03432d25a81975af68f26fb6777d5aca8"),
    (200, 500, 10): (39072, "62968afe3c93df0e2a2a9ff8faa08870d12877870f6561e2cc90b963b1888246"),
    (200, 500, 100): (21549, "9356a21b856b526a6054299421e4ac10b9f1cd2fbc1ef1b69f48219f395a2659"),
}
# Positions in the real data set's official order.
CIFAR10_POSITIONS = {
    10: "a17d69f192b1cf6df09676b6c424e2ad5e7d7863ccc4b9ba70ef128885973218",
    20: "fed8b23a7a778a4094b8c5301522600105c4441811d1ef239ae7fc72c42f7fe5",
    50: "d7edcfaf02772bee1e2310a33be8b6c46232f043641158348b9de3ec731e26ac",
    100: "4bf45bff8878d2786e47dccd702f96ff33b2b11d8c7da3b5015f10937290f866",
    200: "a88004a1d13610934f4f0b642dab5e5df26f0d0ef20408bd092f25ab81103334",
}
# Kept ranks of the (training | validation) parts after the carve.
CARVES = {
    (10, 5000, 50): (
        "46ce326e754eef321f939ba3c50c31a29f16f0755769889301f513ea23c804a9",
        "4acbbd46dea1c74876d5d87775b9825ca33781ad6ba9c30ad2e0ec6333f5465e",
    ),
    (100, 500, 10): (
        "28929b1bd58d5228eeed9042dafe9fdc05c52a9fd869c29088b92bbce349e0dc",
        "33eb35dd1cba95ceef84dabf72dd45a4972ec2b28fdc297ac7d4e6808426e20a",
    ),
    (200, 500, 10): (
        "b695eaab62f34479976929048c3a0189dee64bb005b004a8aaf41f4e3217392f",
        "538ee60484839f698a166a7f189f90864c35b5728dd74fc903c3c52c9a15e965",
    ),
}
VALIDATION_COUNTS = {
    10: [250, 194, 150, 116, 90, 70, 54, 42, 33, 25],
    50: [250, 162, 105, 68, 44, 29, 19, 12, 10, 10],
    100: [250, 150, 90, 54, 33, 20, 12, 10, 10, 10],
    200: [250, 139, 77, 43, 24, 14, 10, 10, 9, 5],
}


def sorted_labels(classes: int, per_class: int) -> np.ndarray:
    return np.repeat(np.arange(classes), per_class)


@pytest.mark.parametrize("setting", RANKS, ids=str)
def test_the_seed_zero_subset_is_the_peers_subset(setting: tuple[int, int, int]):
    classes, per_class, ratio = setting
    ranks = longtail.choose(sorted_labels(classes, per_class), imbalance_ratio=ratio) % per_class
    assert (len(ranks), longtail.fingerprint(ranks)) == RANKS[setting]


@pytest.mark.slow
def test_the_positions_in_real_cifar10_are_the_recorded_ones(shared_data, decoded):
    source = sources.load("cifar10", "train", data_dir=str(shared_data / "tfds"), cache_dir=str(decoded))
    for ratio, expected in CIFAR10_POSITIONS.items():
        chosen = longtail.choose(source.labels, imbalance_ratio=ratio)
        assert chosen[:5].tolist() == [4030, 38518, 48266, 45556, 6312]
        assert longtail.fingerprint(chosen) == expected


def test_first_kept_ranks_are_the_recorded_ones():
    ranks = longtail.choose(sorted_labels(10, 5000), imbalance_ratio=50) % 5000
    assert ranks[:5].tolist() == [398, 3833, 4836, 4572, 636]
    assert ranks[-100:][:5].tolist() == [2204, 3816, 2206, 2507, 1926]


@pytest.mark.parametrize("setting", CARVES, ids=str)
def test_the_validation_carve_has_the_recorded_fingerprints(setting: tuple[int, int, int]):
    classes, per_class, ratio = setting
    labels = sorted_labels(classes, per_class)
    kept = longtail.choose(labels, imbalance_ratio=ratio)
    carve = longtail.carve_validation(labels[kept])
    parts = tuple(longtail.fingerprint(kept[part] % per_class) for part in carve)
    assert parts == CARVES[setting]


@pytest.mark.parametrize("ratio", VALIDATION_COUNTS)
def test_validation_counts_per_class(ratio: int):
    labels = sorted_labels(10, 5000)
    kept = longtail.choose(labels, imbalance_ratio=ratio)
    validation = longtail.carve_validation(labels[kept]).validation
    assert longtail.count_classes(labels[kept][validation]).tolist() == VALIDATION_COUNTS[ratio]


def test_class_counts_truncate_rather_than_round():
    counts = longtail.class_counts(np.full(10, 5000), imbalance_ratio=50)
    assert counts.tolist() == [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]


def test_step_profile_has_two_levels():
    assert longtail.class_counts(np.full(5, 40), imbalance_ratio=10, profile="step").tolist() == [
        40,
        40,
        40,
        4,
        4,
    ]


@pytest.mark.parametrize(
    ("order", "ranks"),
    [("", [0, 1, 2, 3]), ("reversed", [3, 2, 1, 0]), ("2, 0,3,1", [1, 3, 0, 2]), ("random:0", [3, 2, 0, 1])],
)
def test_the_class_order_names_the_rare_classes(order: str, ranks: list[int]):
    assert longtail.ranks(order, 4).tolist() == ranks
    counts = longtail.class_counts(np.full(4, 64), imbalance_ratio=8, class_order=order)
    assert counts.tolist() == [[64, 32, 16, 8][rank] for rank in ranks]


@pytest.mark.parametrize(
    "order",
    [
        *((3, 2, 1, 0), [0, 1, 2, 3], None, 0, b"reversed", np.arange(4)),
        *("0,1,2", "0,1,2,2", "random", "random:-1", "random:4294967296", "random:" + "9" * 5000),
        *("random:\N{ARABIC-INDIC DIGIT ONE}", "0,1,2,\N{FULLWIDTH DIGIT THREE}"),
    ],
)
def test_another_class_order_is_refused_in_one_sentence(order):
    allowed = r"'reversed', 'random:SEED' with a seed from 0 to 4294967295, or a text with each of 0 to 3 once"
    with pytest.raises(ValueError, match=rf"^data\.class_order is .*; give '', {allowed}"):
        longtail.choose(sorted_labels(4, 9), imbalance_ratio=2, class_order=order)


def test_the_largest_seed_of_a_class_order_is_allowed():
    assert sorted(longtail.ranks("random:4294967295", 4)) == [0, 1, 2, 3]


def test_another_class_order_keeps_a_prefix_of_each_class_and_has_another_fingerprint():
    labels = sorted_labels(4, 64)
    plain, other = (longtail.choose(labels, imbalance_ratio=8, class_order=order) for order in ("", "2,0,3,1"))
    for label in range(4):
        first, second = plain[labels[plain] == label].tolist(), other[labels[other] == label].tolist()
        shared = min(len(first), len(second))
        assert first[:shared] == second[:shared]
    assert longtail.fingerprint(plain) != longtail.fingerprint(other)


def test_an_uneven_source_keeps_the_exact_profile():
    available = np.array([70, 99, 98, 80, 103])
    counts = longtail.class_counts(available, imbalance_ratio=1)
    assert counts.tolist() == [70] * 5
    assert np.all(longtail.class_counts(available, imbalance_ratio=8) <= available)


@given(
    st.integers(2, 12),
    st.integers(20, 60),
    st.sampled_from([1.0, 2.5, 10.0]),
    st.integers(0, 5),
    st.randoms(),
)
def test_a_larger_ratio_keeps_a_per_class_prefix(classes, per_class, ratio, seed, random):
    labels = sorted_labels(classes, per_class)
    random.shuffle(labels)
    wide = longtail.choose(labels, imbalance_ratio=ratio, seed=seed)
    narrow = longtail.choose(labels, imbalance_ratio=ratio * 2, seed=seed)
    assert len(set(wide.tolist())) == len(wide)
    for label in range(classes):
        mine, theirs = narrow[labels[narrow] == label], wide[labels[wide] == label]
        assert mine.tolist() == theirs[: len(mine)].tolist()


def test_other_seeds_choose_other_images_in_equal_numbers():
    labels = sorted_labels(10, 100)
    first, second = (longtail.choose(labels, imbalance_ratio=10, seed=seed) for seed in (0, 1))
    assert len(first) == len(second)
    assert longtail.fingerprint(first) != longtail.fingerprint(second)


@given(st.lists(st.integers(1, 200), min_size=2, max_size=8))
def test_carve_is_a_disjoint_cover_within_its_bounds(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    carve = longtail.carve_validation(labels)
    assert sorted([*carve.train, *carve.validation]) == list(range(len(labels)))
    held_out = np.bincount(labels[carve.validation], minlength=len(counts))
    assert np.all(held_out <= 0.2 * np.array(counts) + 1e-9)
    assert len(longtail.carve_validation(labels, fraction=0).validation) == 0


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(1, 80), st.integers(0, 3))
def test_balanced_subset_repeats_whole_copies_then_a_remainder(counts, m, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    chosen = longtail.balanced_subset(labels, count=m, seed=seed)
    assert np.bincount(labels[chosen], minlength=len(counts)).tolist() == [m] * len(counts)
    uses = np.bincount(chosen, minlength=len(labels))
    for label, available in enumerate(counts):
        assert set(uses[labels == label]) <= {m // available, m // available + 1}


# gamma -> m, unique images, classes up-sampled (CIFAR-10-LT, ratio 50).
@pytest.mark.parametrize(
    ("gamma", "m", "unique", "up_sampled"),
    [(1, 100, 1000, 0), (0, 707, 4963, 5), (14, 1400, 7863, 7), (50, 5000, 13996, 9)],
)
def test_balanced_subset_matches_the_arithmetic_of_the_method_catalogue(gamma, m, unique, up_sampled):
    labels = sorted_labels(10, 5000)
    labels = labels[longtail.choose(labels, imbalance_ratio=50)]
    counts = longtail.count_classes(labels)
    assert longtail.balanced_count(counts, gamma=gamma) == m
    assert len(set(longtail.balanced_subset(labels, count=m, seed=0).tolist())) == unique
    assert int((counts < m).sum()) == up_sampled


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: longtail.choose(sorted_labels(3, 9), imbalance_ratio=0.5), "imbalance ratio is 0.5"),
        (lambda: longtail.choose(sorted_labels(3, 9), imbalance_ratio=2, profile="linear"), "exp, step"),
        (lambda: longtail.choose(sorted_labels(3, 9), imbalance_ratio=10), "leaves class 2 without"),
        (lambda: longtail.choose(sorted_labels(3, 9), imbalance_ratio=2, class_order="0,1"), "each of 0 to 2 once"),
        (lambda: longtail.choose(sorted_labels(3, 9), imbalance_ratio=2, class_order="random:x"), "random:SEED"),
        (lambda: longtail.choose(sorted_labels(3, 9), imbalance_ratio=0, class_order="reversed"), "at least 1, not 0"),
        (lambda: longtail.choose(np.zeros((2, 2), int), imbalance_ratio=2), "vector of integers"),
        (lambda: longtail.choose(np.array([0.5, 1.0]), imbalance_ratio=2), "vector of integers"),
        (lambda: longtail.count_classes(np.array([0, 5]), 3), "3 classes allow 0 to 2"),
        (lambda: longtail.carve_validation(sorted_labels(2, 9), cap=1.0), "cap=1.0"),
        (lambda: longtail.balanced_subset(sorted_labels(2, 9), count=0, seed=0), "at least 1"),
        (
            lambda: longtail.balanced_subset(np.array([0, 2]), count=1, seed=0),
            "class 1 has no training image",
        ),
        (
            lambda: longtail.balanced_subset(sorted_labels(2, 9), count=10, seed=0, up_sample=False),
            "class 0 has 9",
        ),
        (lambda: longtail.balanced_count(np.array([5, 9]), gamma=0.01), "raise gamma"),
        (lambda: longtail.balanced_count(np.array([5, 9]), gamma=1, count=3), "give one of them"),
    ],
)
def test_errors_name_the_value_and_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("ratio", [-1, 0.99, np.inf, np.nan])
def test_ratios_that_no_subset_has_are_refused(ratio):
    with pytest.raises(ValueError, match="imbalance ratio is"):
        longtail.class_counts(np.full(3, 9), imbalance_ratio=ratio)


@pytest.mark.parametrize("profile", longtail.PROFILES)
def test_ratio_0_keeps_everything_whatever_the_profile(profile):
    available = np.array([7, 30, 1, 12])
    assert longtail.class_counts(available, imbalance_ratio=0, profile=profile).tolist() == available.tolist()
    labels = np.repeat(np.arange(4), available)
    assert sorted(longtail.choose(labels, imbalance_ratio=0, profile=profile)) == list(range(50))


@pytest.mark.parametrize("available", [[9], []])
def test_a_profile_needs_two_classes(available):
    with pytest.raises(ValueError, match="at least 2 classes"):
        longtail.class_counts(np.array(available), imbalance_ratio=1)


@pytest.mark.parametrize(("labels", "classes"), [([-1, 0], None), ([0, 3], 3), ([0, 4], 3), ([], None), ([], 3)])
def test_labels_that_are_no_classes_are_refused(labels, classes):
    with pytest.raises(ValueError, match="labels"):
        longtail.count_classes(np.array(labels, int), classes)
    assert longtail.count_classes(np.array([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]


def test_bounds_of_the_validation_part():
    """Fraction and cap lie in [0, 1), the floor in [0, inf): just outside is refused, the ends are not."""
    labels = sorted_labels(2, 9)
    for name in ("fraction", "cap"):
        for value in (-0.01, 1.0, 1.01):
            with pytest.raises(ValueError, match=rf"validation_{name}={value}"):
                longtail.carve_validation(labels, **{name: value})
        for value in (0.0, 0.99):
            assert len(longtail.carve_validation(labels, **{name: value}).train) > 0
    with pytest.raises(ValueError, match="validation_floor=-1"):
        longtail.carve_validation(labels, floor=-1)
    # A fraction of exactly 0 carves nothing, however high the floor; anything above it obeys the floor.
    assert len(longtail.carve_validation(labels, fraction=0, floor=3, cap=0.9).validation) == 0
    assert len(longtail.carve_validation(labels, fraction=1e-6, floor=3, cap=0.9).validation) == 6


def test_a_balanced_subset_has_between_one_image_per_class_and_as_many_as_all_classes_together():
    counts = np.array([5, 1, 3])
    assert longtail.balanced_count(counts, count=1) == longtail.balanced_count(counts, gamma=1) == 1
    assert longtail.balanced_count(counts, count=9) == longtail.balanced_count(counts, gamma=9) == 9
    for asked in ({"count": 10}, {"gamma": 9.1}, {"gamma": np.inf}):
        with pytest.raises(ValueError, match="all classes together have 9"):
            longtail.balanced_count(counts, **asked)
    for asked in ({"count": -1}, {"gamma": -0.1}, {"gamma": np.nan}):
        with pytest.raises(ValueError, match="give one of them"):
            longtail.balanced_count(counts, **asked)
    assert len(longtail.balanced_subset(sorted_labels(3, 4), count=4, seed=0, up_sample=False)) == 12


def test_other_numbers_of_the_classes_carve_the_same_images():
    """No draw and no profile is in it, unlike in `choose`: there the counts descend with the class number."""
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(4), [60, 9, 30, 17]))
    renamed = np.array([2, 0, 3, 1])[labels]
    for part, other in zip(longtail.carve_validation(labels), longtail.carve_validation(renamed), strict=True):
        np.testing.assert_array_equal(np.sort(other), np.sort(part))
    counts = [longtail.class_counts(longtail.count_classes(y), imbalance_ratio=3).tolist() for y in (labels, renamed)]
    assert all(one == sorted(one, reverse=True) for one in counts)


@pytest.mark.parametrize(
    ("ratio", "counts"),
    [
        (10, [1000, 774, 599, 464, 359, 278, 215, 166, 129, 100]),
        (20, [1000, 716, 513, 368, 264, 189, 135, 97, 69, 50]),
        (50, [1000, 647, 419, 271, 175, 113, 73, 47, 30, 20]),
        (100, [1000, 599, 359, 215, 129, 77, 46, 27, 16, 10]),
    ],
)
def test_long_tailed_test_sets_hold_the_first_images_of_each_class(ratio, counts):
    labels = np.random.RandomState(1).permutation(sorted_labels(10, 1000))
    rows = longtail.long_tailed_test(labels, imbalance_ratio=ratio)
    assert np.bincount(labels[rows]).tolist() == counts
    assert np.all(np.diff(rows) > 0)
    for label, count in enumerate(counts):
        np.testing.assert_array_equal(rows[labels[rows] == label], np.flatnonzero(labels == label)[:count])
