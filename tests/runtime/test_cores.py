"""How many CPU devices a run takes, and what it says where cores are idle."""

import pytest

from ltrobust.runtime import cores


@pytest.mark.parametrize(
    ("given", "batch_sizes", "count", "expected"),
    [
        ("3", (128, 128), 2, 3),
        ("auto", (128, 128), 1, 1),
        ("auto", (128, 128), 2, 2),
        ("auto", (128, 128), 3, 2),
        ("auto", (128, 128), 64, 4),  # 32 images each
        ("auto", (96, 128), 8, 1),
        ("auto", (192, 384), 8, 6),
        ("auto", (40, 40), 8, 1),
    ],
)
def test_every_batch_divides_over_the_devices(given, batch_sizes, count, expected):
    assert cores.count_devices(given, batch_sizes, count) == expected


def test_numbers_below_one_and_other_words_are_refused():
    for given in ("0", "-1", "two", "1.5"):
        with pytest.raises(ValueError, match=rf"--cpu_devices is '{given}'; give a number of at least 1, or auto"):
            cores.count_devices(given, (128,), 2)


def test_advice_names_the_flag_where_it_would_change_something():
    assert "--cpu_devices=2 divides batches over 2" in cores.advice((128, 128), 2)
    assert cores.advice((128, 128), 1) == ""
    assert cores.advice((33, 33), 2) == ""


def test_a_process_has_a_core():
    assert cores.usable() >= 1
