"""The progress line of an evaluation: attack, images left, and between which bounds the robust accuracy lies by now."""

from tqdm import tqdm


class Progress:
    """A tqdm line; shows nothing where the description is empty."""

    def __init__(self, description: str, images: int) -> None:
        self._description, self._images = description, images
        self._bar: tqdm | None = None
        self._attack, self._survivors, self._done, self._broken = "", 0, 0, 0

    def begin(self, attack: str, images: int, waiting: int) -> None:
        """A new attack on `waiting` images out of `images`."""
        self.close()
        self._attack, self._images, self._survivors = attack, images, waiting
        self._done, self._broken = 0, 0
        self._bar = tqdm(
            total=waiting,
            desc=f"{self._description}: {attack}",
            unit="img",
            disable=not self._description,
            leave=False,
            mininterval=0.5,
            postfix=self._bounds(),
        )

    def advance(self, images: int, broken: int) -> None:
        """So many more images are done, so many of them broken."""
        self._done, self._broken = self._done + images, self._broken + broken
        if self._bar is None:
            return
        self._bar.set_postfix_str(self._bounds(), refresh=False)
        self._bar.update(images)

    def _bounds(self) -> str:
        """Between which bounds this attack's column can still end."""
        low = (self._done - self._broken) / self._images
        high = (self._survivors - self._broken) / self._images
        return f"right {100 * low:.1f} to {100 * high:.1f} %"

    def say(self, message: str) -> None:
        """A line above the progress."""
        tqdm.write(message)

    def close(self) -> None:
        """Ends the line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
