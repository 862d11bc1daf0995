"""Progress of an evaluation: attack, images left, and the bounds of its final accuracy."""

from tqdm import tqdm

from ltrobust.runtime import terminal
from ltrobust.runtime.terminal import Lines


class Progress:
    """A bar in a terminal, otherwise a plain line at the end of each attack; silent if the description is empty."""

    def __init__(self, description: str, images: int) -> None:
        self._description, self._images = description, images
        self._bar: tqdm | Lines | None = None
        self._survivors, self._done, self._broken = 0, 0, 0

    def begin(self, attack: str, images: int, waiting: int) -> None:
        """A new attack on `waiting` images; its accuracy is of `images`, the others of which are wrong already."""
        self.close()
        self._images, self._survivors = images, waiting
        self._done, self._broken = 0, 0
        if not self._description:
            return
        title = f"{self._description}: {attack}"
        if terminal.live():
            self._bar = tqdm(
                total=waiting, desc=title, unit="img", leave=False, mininterval=0.5, postfix=self._bounds()
            )
        else:
            self._bar = Lines(title, waiting, "images")

    def advance(self, images: int, broken: int) -> None:
        """Adds `images` that are done, `broken` of them wrong."""
        self._done, self._broken = self._done + images, self._broken + broken
        if self._bar is None:
            return
        self._bar.set_postfix_str(self._bounds(), refresh=False)
        self._bar.update(images)

    def _bounds(self) -> str:
        """The bounds within which the accuracy of this attack's column can still end."""
        low = (self._done - self._broken) / self._images
        high = (self._survivors - self._broken) / self._images
        if self._done == self._survivors:
            return f"right {100 * low:.1f} %"
        return f"right {100 * low:.1f} to {100 * high:.1f} %"

    def say(self, message: str) -> None:
        """A line above the progress, even where there is none."""
        tqdm.write(message)

    def close(self) -> None:
        """Ends the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
