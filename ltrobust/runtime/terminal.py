"""Progress of long work: a bar in a terminal, otherwise plain lines; works in any encoding."""

import sys
import time

from tqdm import tqdm

# Seconds between two plain lines: few at first, so that one sees that it works; more later, so that logs stay short.
_FIRST, _LAST = 5.0, 60.0
# Between lines with a note, such as one an epoch.
_SHORTEST = 1.0


class Progress:
    """Progress of one piece of work on standard error.

    In a terminal it is a bar. Elsewhere, such as in a log file, it is plain lines: each begins with date and time, ends
    in a newline, and has the time left once that is known. A line is written every few seconds, later every minute, and
    at the end, so work that is done in an instant writes one line.
    """

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, *, silent: bool = False, transient: bool = False
    ) -> None:
        """Shows nothing yet, or a bar.

        Args:
          title: what is done.
          total: how many things there are.
          unit: their plural, such as `images`.
          done: how many of them were done before.
          silent: whether nothing is shown at all.
          transient: whether the bar of a terminal disappears at the end.
        """
        self._title, self._total, self._unit, self._done, self._silent = title, total, unit, done, silent
        self._note, self._started, self._changed, self._bar = "", False, False, None
        self._written = time.monotonic()
        self._began, self._before = self._written, done
        if live() and not silent:
            scale = total >= 10_000
            self._bar = tqdm(
                total=total, initial=done, desc=title, unit=f" {unit}", unit_scale=scale, leave=not transient
            )

    def update(self, number: int, note: str | None = None) -> None:
        """Adds to the number that is done; `note` is put behind it from now on."""
        self._done = self._done + number
        if not self._started:
            # Before the first of them are done there is compiling, which is no part of speed and time left.
            self._restart_clock()
        self._started = self._changed = True
        self._note = self._note if note is None else note
        if self._bar is not None:
            if note is not None:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(number)
            return
        now = time.monotonic()
        if now - self._written >= min(max((now - self._began) / 10, _FIRST), _LAST):
            self._write_line()

    def show(self, note: str) -> None:
        """A plain line with a note, at most one a second; a bar gets the note."""
        self._note, self._changed = note, True
        if self._bar is not None:
            self._bar.set_postfix_str(note)
        elif time.monotonic() - self._written >= _SHORTEST:
            self._write_line()

    def say(self, text: str) -> None:
        """A line with any text, above a bar."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.write(text)
        else:
            self._written = time.monotonic()
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def _restart_clock(self) -> None:
        """Lets speed and time left count from now on."""
        self._began, self._before = time.monotonic(), self._done
        if self._bar is not None:
            # A bar that was last shown before its start is not shown at the end.
            self._bar.start_t = self._bar.last_print_t = time.time()
            self._bar.initial = self._done

    def close(self) -> None:
        """Ends the bar, or writes the last line if that is not written yet."""
        if self._bar is not None:
            self._bar.close()
        elif self._changed:
            self._write_line()

    def _write_line(self) -> None:
        """How far the work is, how fast it goes, and how long it takes from here."""
        parts = [f"{self._title}: {self._done:,} of {self._total:,} {self._unit}"]
        seconds, done = time.monotonic() - self._began, self._done - self._before
        if seconds >= 1 and done and self._done < self._total:
            speed = done / seconds
            parts.append(f"{speed:,.3g} {self._unit}/s, {duration((self._total - self._done) / speed)} left")
        self._changed = False
        self.say(", ".join([*parts, *([self._note] if self._note else [])]))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Seconds in words: `42 s`, `7 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def live() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def accept_all_characters() -> None:
    """Lets standard output and standard error escape what their encoding lacks (`±` as `\\xb1`), instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a caller has put in its place
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
