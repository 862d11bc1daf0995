"""Which runs lanes work on: full lanes to the end, and the outcome of the runs one after another."""

import numpy as np
import pytest

from ltrobust.evaluation.schedule import Schedule


def in_turn(durations, breaks):
    """Passes of one image's runs in turn, and the run that breaks it (-1 for none)."""
    total = 0
    for run, (passes, broken) in enumerate(zip(durations, breaks, strict=True)):
        total += passes
        if broken:
            return total, run
    return total, -1


def simulate(durations, breaks, lanes, rows, generator):
    """As the driver does it, with lanes that make a drawn number of passes between two looks at them.

    Returns row -> (passes, breaking run), and how many lanes were free while a run had not begun.
    """
    runs = durations.shape[1]
    schedule, result, idle = Schedule(rows, runs, lanes), {}, 0
    current, spent, left = np.zeros(lanes, int), np.zeros(lanes, int), np.zeros(lanes, int)
    while schedule.unfinished:
        for lane in np.flatnonzero(schedule.fill(current)):
            current[lane], spent[lane] = schedule.first[lane], 0
            left[lane] = durations[schedule.owners[lane], current[lane]]
        idle += int(np.sum(schedule.owners < 0)) if schedule.more(current) else 0
        broken, over = np.zeros(lanes, bool), np.zeros(lanes, bool)
        for lane in np.flatnonzero(schedule.owners >= 0):
            row = schedule.owners[lane]
            for _ in range(generator.randint(1, 8)):
                left[lane] -= 1
                spent[lane] += 1
                if not left[lane]:
                    if breaks[row, current[lane]]:
                        broken[lane] = over[lane] = True
                        break
                    current[lane] += 1
                    if current[lane] == schedule.until[lane]:
                        over[lane] = True
                        break
                    left[lane] = durations[row, current[lane]]
        for lane in generator.permutation(np.flatnonzero(over)):
            row, run = int(schedule.owners[lane]), int(current[lane])
            parts = schedule.leave(lane, bool(broken[lane]), (int(spent[lane]), run if broken[lane] else -1))
            if parts:
                assert row not in result, "an image was decided twice"
                result[row] = sum(part.result[0] for part in parts), parts[-1].result[1]
    return result, idle


@pytest.mark.parametrize("seed", range(60))
def test_outcomes_are_those_of_the_runs_in_turn_and_no_lane_waits_while_there_is_work(seed):
    generator = np.random.RandomState(seed)
    images, runs, lanes = generator.randint(1, 14), generator.randint(1, 10), generator.randint(1, 30)
    durations = generator.randint(1, 6, (images, runs))
    breaks = generator.rand(images, runs) < generator.choice([0, 0.05, 0.3, 1])
    rows = generator.permutation(images)[: generator.randint(1, images + 1)]
    result, idle = simulate(durations, breaks, lanes, rows, generator)
    assert result == {row: in_turn(durations[row], breaks[row]) for row in rows}
    assert idle == 0


def test_runs_of_few_images_fill_many_lanes_lowest_numbers_first():
    schedule = Schedule(np.array([4, 7]), runs=9, lanes=8)
    current = np.zeros(8, int)
    assert schedule.fill(current).all()
    assert schedule.owners.tolist() == [4, 7] * 4
    assert schedule.first.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert schedule.until.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    # Run 1 of image 4 breaks it: its later runs end, those that have not begun included; run 0 decides.
    assert schedule.leave(2, True, "broken") == []
    assert schedule.owners.tolist() == [4, 7, -1, 7, -1, 7, -1, 7]
    assert [part.result for part in schedule.leave(0, False, "robust")] == ["robust", "broken"]
    assert schedule.fill(current).tolist() == [True, False, True, False, True, False, True, False]
    assert schedule.owners.tolist() == [7] * 8


def test_a_lane_makes_all_runs_of_its_image_while_others_wait():
    schedule = Schedule(np.arange(5), runs=3, lanes=4)
    current = np.zeros(4, int)
    assert schedule.fill(current).all()
    assert schedule.until.tolist() == [3, 3, 3, 3]
    assert schedule.more(current)
    # Two lanes become free: one takes the image that waits, the other a run that nobody has begun.
    current = np.array([1, 2, 2, 1])
    assert len(schedule.leave(1, True, None)) == len(schedule.leave(2, True, None)) == 1
    assert schedule.fill(current).tolist() == [False, True, True, False]
    assert schedule.owners.tolist() == [0, 4, 4, 3]
    assert schedule.first.tolist() == [0, 0, 1, 0]
    assert schedule.until.tolist() == [2, 1, 2, 2]
