"""Progress of an evaluation: attack, images left, and the bounds of its final accuracy."""

from ltrobust.runtime.terminal import Progress


class AttackProgress:
    """Progress of one attack after the other; silent if the description is empty."""

    def __init__(self, description: str, images: int) -> None:
        self._description, self._images = description, images
        self._progress: Progress | None = None
        self._survivors, self._done, self._broken = 0, 0, 0

    def begin(self, attack: str, images: int, waiting: int) -> None:
        """A new attack on `waiting` images; its accuracy is of `images`, the others of which are wrong already."""
        self.close()
        self._images, self._survivors = images, waiting
        self._done, self._broken = 0, 0
        if self._description:
            self._progress = Progress(f"{self._description}: {attack}", waiting, "images", transient=True)

    def advance(self, images: int, broken: int) -> None:
        """Adds `images` that are done, `broken` of them wrong."""
        self._done, self._broken = self._done + images, self._broken + broken
        if self._progress is not None:
            self._progress.update(images, self._bounds())

    def _bounds(self) -> str:
        """The bounds within which the accuracy of this attack's column can still end."""
        low = (self._done - self._broken) / self._images
        high = (self._survivors - self._broken) / self._images
        if self._done == self._survivors:
            return f"right {100 * low:.1f} %"
        return f"right {100 * low:.1f} to {100 * high:.1f} %"

    def say(self, message: str) -> None:
        """A line above the progress, even if there is none."""
        print(message) if self._progress is None else self._progress.say(message)

    def close(self) -> None:
        """Ends the attack's progress."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None
