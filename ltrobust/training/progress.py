"""Progress of a phase, and how many steps go into one dispatch."""

import contextlib
import time
from collections.abc import Iterator

import jax

from ltrobust.runtime.terminal import Progress

# Reported through `jax.monitoring`: seconds of each dispatch of training steps.
STEPS_EVENT = "/ltrobust/steps"
# A dispatch lasts about this long, seconds: long against its overhead, short against a person's patience.
_DISPATCH_SECONDS = 2.0


class Dispatches:
    """Dispatches of steps: reports images done and compilation, and sizes the next one.

    `longest` is the number of steps that the next dispatch should hold at most. Nothing is shown if `silent`.
    """

    def __init__(self, phase: str, total_steps: int, done: int, batch_size: int, *, silent: bool = False):
        self.longest = 1
        self._phase, self._batch_size, self._compiled = phase, batch_size, False
        self._progress = Progress(phase, total_steps * batch_size, "images", done * batch_size, silent=silent)

    @contextlib.contextmanager
    def dispatch(self, count: int) -> Iterator[None]:
        """Around one dispatch of `count` steps that is waited for."""
        if not self._compiled:
            self._progress.say(f"{self._phase}: compiling the training step ...")
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        jax.monitoring.record_event_duration_secs(STEPS_EVENT, seconds)
        self._progress.update(count * self._batch_size)
        if self._compiled:
            self.longest = max(1, int(_DISPATCH_SECONDS * count / max(seconds, 1e-6)))
        else:
            self._progress.say(f"{self._phase}: compiled; the first step was done after {seconds:.1f} s")
            self._compiled = True

    def end_epoch(self, text: str) -> None:
        """Shows the results of an epoch."""
        self._progress.show(text)

    def __enter__(self) -> "Dispatches":
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.close()
