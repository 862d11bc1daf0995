"""How many lanes and guesses: every number keeps bits and divides over the devices, and none wastes rows."""

import functools

import pytest

from ltrobust.evaluation import width


def even(devices=1, cpu=True):
    return functools.partial(width.even, devices=devices, least=64, cpu=cpu)


def test_rows_divide_over_devices_and_keep_bits_on_the_cpu():
    assert [even()(rows) for rows in (1, 64, 65, 100)] == [64, 64, 72, 104]
    assert [even(2)(rows) for rows in (1, 128, 129)] == [128, 128, 144]
    assert [even(4, cpu=False)(rows) for rows in (1, 4, 6)] == [4, 4, 8]
    # As few rows as a network's bits need, or 64; nothing between was measured.
    assert [width.even(rows, 1, 2, cpu=True) for rows in (1, 2, 3, 70)] == [2, 2, 64, 72]


def test_lanes_are_even_rounds_and_use_programs_that_exist():
    assert width.lanes(130, 128, [], even()) == 72
    assert width.lanes(26 * 9, 128, [], even(), rounds=4) == 64
    assert width.lanes(7 * 9, 128, [], even(), rounds=4) == 64
    assert width.lanes(1000 * 9, 128, [], even(), rounds=4) == 128
    assert width.lanes(130, 128, [80], even()) == 80
    # Too wide for few images, too narrow for many, or wider than what the memory holds.
    assert width.lanes(64, 128, [128], even()) == 64
    assert width.lanes(900, 1024, [200], even(cpu=False)) == 900
    assert width.lanes(130, 80, [128], even()) == 72


@pytest.mark.parametrize("devices", [1, 2])
def test_guesses_fill_the_rows_that_bits_need(devices):
    rows = even(devices)
    for images in range(1, 128):
        lanes, guesses = width.guesses(images, rows(128), devices, [], rows)
        assert lanes >= images
        assert lanes % devices == 0
        assert lanes * guesses == rows(lanes * guesses) <= rows(128)


def test_guesses_replace_idle_lanes_and_no_others():
    assert width.guesses(8, 128, 1, [], even()) == (8, 8)
    assert width.guesses(1, 128, 1, [], even()) == (1, 64)
    assert width.guesses(64, 128, 1, [], even()) == (64, 1)
    assert width.guesses(100, 128, 1, [], even()) == (104, 1)
    # Devices that need no padding have no idle lanes.
    assert width.guesses(26, 1024, 1, [], even(cpu=False)) == (26, 1)
    # A program that exists is used if it is nearly as fast, and has lanes enough.
    assert width.guesses(24, 128, 1, [(26, 4)], even()) == (26, 4)
    assert width.guesses(24, 128, 1, [(23, 4)], even()) == (24, 3)
    assert width.guesses(8, 128, 1, [(26, 4)], even()) == (8, 8)
