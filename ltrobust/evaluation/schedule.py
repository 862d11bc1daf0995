"""Which image, and which of an attack's runs, each lane works on: lanes stay full to the end.

An attack may make several runs on an image, such as one for each target; they are independent, and the first run that
breaks the image decides. While images wait, a lane makes all runs of its image in turn. After that, the runs that have
not begun are spread over the free lanes, those with the lowest numbers first. The outcome is that of the runs in turn:
the lowest run that breaks the image counts, and what later runs did is dropped.
"""

import bisect
import collections
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """Outcome of the runs `first` to `until - 1` of one image; `broken` if the last of them that was made broke it."""

    first: int
    until: int
    broken: bool
    result: Any


class Schedule:
    """Lanes of one attack on the images at `rows`, with `runs` runs for each.

    Attributes:
      owners: int64 [lanes], row of each lane's image, -1 for a free lane.
      first: int64 [lanes], the run that the lane began with.
      until: int64 [lanes], the run before which the lane ends.
    """

    def __init__(self, rows: np.ndarray, runs: int, lanes: int) -> None:
        self._waiting, self._runs = collections.deque(rows), runs
        self.owners, self.first, self.until = np.full(lanes, -1), np.zeros(lanes, int), np.full(lanes, runs)
        # (run, row) of runs that wait for a lane, in ascending order.
        self._queue: list[tuple[int, int]] = []
        self._parts: dict[int, list[Part]] = {}

    @property
    def unfinished(self) -> bool:
        """Whether there are images without an outcome."""
        return bool(self._waiting or self._parts or np.any(self.owners >= 0))

    def more(self, current: np.ndarray) -> bool:
        """Whether a lane that becomes free would get work; `current` [lanes] is the run that each lane is in."""
        return bool(self._waiting or self._queue or np.any(self._divisible(current)))

    def fill(self, current: np.ndarray) -> np.ndarray:
        """Gives work to free lanes, and returns which lanes begin a new run, bool [lanes].

        Args:
          current: [lanes], the run that each lane is in.
        """
        free, fresh, current = np.flatnonzero(self.owners < 0), np.zeros(len(self.owners), bool), current.copy()
        for lane in free[: len(self._waiting)]:
            self._begin(lane, self._waiting.popleft(), 0, self._runs)
            current[lane], fresh[lane] = 0, True
        free = np.flatnonzero(self.owners < 0)
        if self._waiting:
            return fresh
        for lane in np.flatnonzero(self._divisible(current)):
            row, begun = int(self.owners[lane]), int(current[lane])
            self._queue += [(run, row) for run in range(begun + 1, self.until[lane])]
            self.until[lane] = begun + 1
        self._queue.sort()
        for lane in free[: len(self._queue)]:
            run, row = self._queue.pop(0)
            self._begin(lane, row, run, run + 1)
            fresh[lane] = True
        return fresh

    def last(self, lane: int) -> bool:
        """Whether a lane ends with the last run of its image."""
        return bool(self.until[lane] == self._runs)

    def leave(self, lane: int, broken: bool, result: Any) -> list[Part]:
        """Frees a lane whose part is over, with its result.

        Returns:
          The parts that decide about the image, in the order of runs, the last of them the one that decides; none while
          it is undecided.
        """
        row, first, until = int(self.owners[lane]), int(self.first[lane]), int(self.until[lane])
        if row < 0:  # dropped, because an earlier run of the image has just broken it
            return []
        self.owners[lane] = -1
        parts = self._parts.setdefault(row, [])
        bisect.insort(parts, Part(first, until, broken, result), key=lambda part: part.first)
        if broken:
            self._drop(row, first)
        reached = 0
        for number, part in enumerate(parts, 1):
            if part.first != reached:
                break
            if part.broken or part.until == self._runs:
                del self._parts[row]
                return parts[:number]
            reached = part.until
        return []

    def _drop(self, row: int, run: int) -> None:
        """Drops the runs of an image after the one that broke it, begun or not."""
        self._queue = [(later, other) for later, other in self._queue if other != row or later < run]
        self.owners[(self.owners == row) & (self.first > run)] = -1

    def _divisible(self, current: np.ndarray) -> np.ndarray:
        """Which lanes have runs that have not begun, bool [lanes]."""
        return (self.owners >= 0) & (self.until > current + 1)

    def _begin(self, lane: int, row: int, first: int, until: int) -> None:
        self.owners[lane], self.first[lane], self.until[lane] = row, first, until


def decide(schedule: Schedule, leave: np.ndarray, results: Any, broken: np.ndarray, forgets: bool) -> list[Any]:
    """Verdicts of the images that are decided now that lanes `leave` end with `results`; `broken` [lanes]."""
    decided = []
    for place, lane in enumerate(leave):
        result = type(results)(*(leaf[place] for leaf in results))
        # A part waits for those before it. Its image is kept only where the verdict may need it.
        needed = broken[lane] or result.verdicts["rejected_claims"] or schedule.last(lane)
        result = result._replace(images=result.images.copy() if needed else None)
        parts = schedule.leave(lane, bool(broken[lane]), result)
        if parts:
            decided.append(_merge(parts, forgets))
    return decided


def _merge(parts: list[Part], forgets: bool) -> Any:
    """The verdict on an image from its parts, as one search through all of the runs would have it."""
    results = [part.result for part in parts]
    chosen = results[-1]
    if not (forgets or parts[-1].broken):
        # The last candidate that was rejected remains the candidate, if no later one takes its place.
        chosen = next((result for result in reversed(results) if result.verdicts["rejected_claims"]), chosen)
    verdict = chosen.verdicts.copy()
    verdict["evaluations"] = sum(result.verdicts["evaluations"] for result in results)
    verdict["non_finite"] = any(result.verdicts["non_finite"] for result in results)
    verdict["rejected_claims"] = sum(result.verdicts["rejected_claims"] for result in results)
    return chosen._replace(verdicts=verdict)
