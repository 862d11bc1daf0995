"""How many lanes an attack has, and how many guesses each of them makes at a time. Decides speed, and no verdict."""

from collections.abc import Callable, Iterable

from ltrobust.evaluation import padding

# Rows per device come in multiples of this on the CPU, where the batch size chooses the kernel (`padding`).
_CPU_STEP = 8
# Share of Square's proposals that are kept, about; a kept one makes the guesses after it useless.
_KEPT = 0.05
# A program that exists is used if it computes at most so many times the rows of the best one; compiling takes seconds.
_SPARE = 1.25
# Rounds of an attack of several runs on the CPU, where half of the lanes take half of the time.
ROUNDS = 4


def even(rows: int, devices: int, least: int, *, cpu: bool) -> int:
    """The next larger number of rows that divides over the devices, and that keeps bits on the CPU.

    Args:
      rows: at least 1.
      devices: that rows are divided over.
      least: fewest rows per device on the CPU.
      cpu: whether the devices are CPUs.
    """
    share = -(-rows // devices)
    if cpu:
        share = least if share <= least else -(-max(share, padding.ROWS) // _CPU_STEP) * _CPU_STEP
    return share * devices


def lanes(searches: int, largest: int, known: Iterable[int], even: Callable[[int], int], *, rounds: int = 1) -> int:
    """Lanes for so many searches: a whole number of rounds, with a program that exists where that costs little.

    Args:
      searches: images times runs, at least 1.
      largest: most lanes.
      known: numbers of lanes of the programs that exist.
      even: number of rows -> the next possible one.
      rounds: fewest rounds, if the lanes are not too few for them. In the last round lanes wait for the longest search.
    """
    rounds = max(-(-searches // largest), min(rounds, -(-searches // even(1))))
    best = even(-(-searches // rounds))

    def row_passes(width: int) -> int:
        return -(-searches // width) * width

    spare = _SPARE * row_passes(best)
    fitting = [width for width in known if best <= 2 * width and width <= largest and row_passes(width) <= spare]
    return min(fitting, key=row_passes, default=best)


def guesses(
    images: int, largest: int, devices: int, known: Iterable[tuple[int, int]], even: Callable[[int], int]
) -> tuple[int, int]:
    """Lanes for so many images, and guesses in each of them, for the most queries by the number of rows.

    Args:
      images: at least 1.
      largest: most rows.
      devices: that lanes are divided over.
      known: lanes and guesses of the programs that exist.
      even: number of rows -> the next possible one.
    """
    best = (even(images), 1)
    for number in range(2, largest // images + 1):
        width = -(-images // devices) * devices
        while width * number <= largest and even(width * number) != width * number:
            width += devices
        # A tenth more, because guesses cost something beside the network.
        if width * number <= largest and _speed(width, number) > 1.1 * _speed(*best):
            best = (width, number)
    threshold = _speed(*best) / _SPARE
    fitting = [one for one in known if images <= one[0] and one[0] * one[1] <= largest and _speed(*one) >= threshold]
    return max(fitting, key=lambda one: _speed(*one), default=best)


def _speed(lanes: int, guesses: int) -> float:
    """Queries of each image in a pass, by the rows of the pass."""
    return (1 - (1 - _KEPT) ** guesses) / _KEPT / (lanes * guesses)
