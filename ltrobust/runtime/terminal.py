"""Progress output: a bar in a terminal, otherwise plain lines with the time; works in any encoding."""

import sys
import time

from tqdm import tqdm

_MINUTES = 10  # between two plain lines of long work


class Lines:
    """Plain lines on standard error: each is whole, ends in a newline and begins with date and time.

    `update` writes a line every ten minutes; `write` and `close` write one at once. Work that is done in an instant
    writes none before `close`.
    """

    def __init__(self, description: str, total: int, unit: str, done: int = 0) -> None:
        self._description, self._total, self._unit, self._done = description, total, unit, done
        self._postfix, self._shown = "", time.monotonic()

    def update(self, number: int) -> None:
        """Adds to the number that is done."""
        self._done += number
        # Log files get a line every ten minutes, not one per batch.
        if time.monotonic() - self._shown >= 60 * _MINUTES:
            self.show()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Text at the end of the next lines."""
        del refresh
        self._postfix = text

    def show(self) -> None:
        """A line now."""
        text = f"{self._description}: {self._done:,} of {self._total:,} {self._unit}"
        self.write(text + (f", {self._postfix}" if self._postfix else ""))

    def write(self, text: str) -> None:
        """A line with any text."""
        self._shown = time.monotonic()
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """The last line."""
        self.show()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def live() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def bar(description: str, total: int, unit: str) -> tqdm | Lines:
    """A bar, or lines, for `total` things of a unit."""
    return tqdm(total=total, desc=description, unit=unit) if live() else Lines(description, total, unit)


def accept_all_characters() -> None:
    """Lets standard output and standard error escape what their encoding lacks (`±` as `\\xb1`), instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a caller has put in its place
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
