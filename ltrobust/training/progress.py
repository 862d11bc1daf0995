"""Progress of a phase: a bar in a terminal, otherwise a plain line for each epoch."""

import contextlib
import time
from collections.abc import Iterator

import jax
from tqdm import tqdm

from ltrobust.runtime import terminal
from ltrobust.runtime.terminal import Lines

# Reported through `jax.monitoring`: seconds of each dispatch of training steps.
STEPS_EVENT = "/ltrobust/steps"
# A dispatch lasts about this long, seconds: long against its overhead, short against a person's patience.
_DISPATCH_SECONDS = 2.0


class Progress:
    """Images done, images/s and time left of one phase; reports compilation; sizes the next dispatch.

    `longest` is the number of steps that the next dispatch should hold at most. Nothing is shown where `silent`.
    """

    def __init__(self, name: str, total_steps: int, done: int, batch_size: int, *, silent: bool = False):
        self.longest = 1
        self._silent = silent
        self._name, self._batch_size, self._compiled = name, batch_size, False
        total, done = total_steps * batch_size, done * batch_size
        self._bar: tqdm | Lines = (
            tqdm(total=total, initial=done, desc=name, unit=" images", unit_scale=True, disable=silent)
            if silent or terminal.live()
            else Lines(name, total, "images", done)
        )

    @contextlib.contextmanager
    def dispatch(self, count: int) -> Iterator[None]:
        """Around one dispatch of `count` steps that is waited for."""
        if not self._compiled:
            self._say(f"{self._name}: compiling the training step ...")
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        jax.monitoring.record_event_duration_secs(STEPS_EVENT, seconds)
        if self._compiled:
            self.longest = max(1, int(_DISPATCH_SECONDS * count / max(seconds, 1e-6)))
        else:
            self._say(f"{self._name}: compiled; the first step was done after {seconds:.1f} s")
            # So that compiling does not count in images/s and time left.
            if isinstance(self._bar, tqdm):
                self._bar.start_t = time.time()
            self._compiled = True
        self._bar.update(count * self._batch_size)

    def show(self, text: str) -> None:
        """Puts what an epoch has come to at the end of the bar, or on a line."""
        self._bar.set_postfix_str(text)
        if isinstance(self._bar, Lines):
            self._bar.show()

    def _say(self, text: str) -> None:
        """A line above the progress."""
        if not self._silent:
            self._bar.write(text)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._bar, tqdm):  # the last epoch has its line already
            self._bar.close()
