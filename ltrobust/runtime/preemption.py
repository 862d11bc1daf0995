"""Requests to stop: SIGTERM, which clouds send before they take a machine back, and Ctrl-C.

While a phase trains, the request waits until the current chunk of steps is done, about two seconds; then a checkpoint
is written and `Preempted` is raised. At any other time it is raised at once: verdicts are on disk as they come, and
everything else is written whole or not at all. A second Ctrl-C does not wait.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# What BSD's sysexits.h calls a temporary failure: the same command may be given again.
EXIT_STATUS = 75


class Preempted(Exception):
    """The process was asked to stop; the message names what was saved."""


class Preemption:
    """Listens for requests to stop while `listening`; `requested` is the name of the signal, or None."""

    def __init__(self) -> None:
        self.requested: str | None = None
        self._waiting = False

    @contextlib.contextmanager
    def listening(self) -> Iterator["Preemption"]:
        """Handles SIGTERM and SIGINT, and restores the earlier handlers. Has no effect outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        # Python allows handlers in the main thread only; in other threads the caller's handlers apply.
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Requests are remembered instead of raised: the caller looks at `requested`."""
        before, self._waiting = self._waiting, True
        try:
            yield
        finally:
            self._waiting = before

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        del frame
        again, self.requested = self.requested is not None, signal.Signals(number).name
        # A second Ctrl-C means that the user does not want to wait for the checkpoint.
        if number == signal.SIGINT and again:
            raise KeyboardInterrupt
        if not self._waiting:
            raise Preempted(f"stopped by {self.requested}; the same command resumes from what is saved.")
