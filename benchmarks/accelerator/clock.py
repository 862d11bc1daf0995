"""Seconds of a part by what they were spent on."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import jax

Intervals = list[tuple[float, float]]

# What is reported through `jax.monitoring`, by prefix; of an instant that several cover the first one counts.
_EVENTS = {"/jax/core/compile": "compiling", "/ltrobust/steps": "training", "/ltrobust/evaluation": "evaluating"}


class Clock:
    """Divides the seconds since it was made.

    `compiling` is what JAX reports as tracing, lowering and compiling, `training` the steps that the loop waited for,
    `evaluating` whole evaluations, validation included, and `measuring` a `span`. Each instant counts once. The rest
    is `idle`: starting, reading data, writing checkpoints.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._intervals: dict[str, Intervals] = {name: [] for name in (*_EVENTS.values(), "measuring")}
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **_: object) -> None:
        for prefix, name in _EVENTS.items():
            if event.startswith(prefix):
                now = time.monotonic()
                self._intervals[name].append((now - duration_secs, now))

    @contextlib.contextmanager
    def span(self) -> Iterator[None]:
        """The body is measuring, where it is nothing else."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._intervals["measuring"].append((began, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Seconds by name, those of at least 0.05 s, with `idle` and `total`."""
        now = time.monotonic()
        result = divide([[(max(begin, self._began), end) for begin, end in each] for each in self._intervals.values()])
        named = dict(zip(self._intervals, result, strict=True))
        total = now - self._began
        kept = {name: value for name, value in named.items() if value >= 0.05}
        return {name: round(value, 1) for name, value in (kept | {"idle": total - sum(result), "total": total}).items()}


def divide(groups: Sequence[Intervals]) -> list[float]:
    """Lengths of the groups' unions, where an instant counts for the first group that covers it."""
    lengths, covered = [], []
    for intervals in groups:
        before = length(covered)
        covered = union([*covered, *intervals])
        lengths.append(length(covered) - before)
    return lengths


def union(intervals: Intervals) -> Intervals:
    """The union of intervals, as disjoint ones in order."""
    merged: Intervals = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def length(intervals: Intervals) -> float:
    """Sum of the lengths of disjoint intervals."""
    return sum(end - begin for begin, end in intervals)
