"""An image list as users have them: files of several sizes and formats, and text files with a line for each."""

import dataclasses
import os
import pathlib
import signal

import numpy as np
from PIL import Image

from ltrobust.data.images import FileImages


def write(folder: pathlib.Path, *, prefix: str = "", side: int = 12, **counts: list[int]) -> dict[str, str]:
    """Writes `counts[c]` images of class c for each list that is named, and the lists; returns `data.lists`.

    A class is a colour with noise. Every second file is a JPEG, the others are PNGs; no two have the same size.
    """
    generator, lists = np.random.RandomState(0), {}
    for part, numbers in counts.items():
        lines = []
        for label, number in enumerate(numbers):
            for position in range(number):
                height, width = generator.randint(side, 2 * side, 2)
                pixels = 60 * label + generator.randint(0, 60, (height, width, 3))
                name = f"{prefix}{part}/n{label}/{position:03d}.{'png' if position % 2 else 'jpg'}"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
                lines.append(f"{name} {label}")
        # Published lists are in no order.
        (folder / f"{part}.txt").write_text("".join(f"{line}\n" for line in generator.permutation(lines)))
        lists[part] = f"{part}.txt"
    return lists


def truncate(file: pathlib.Path) -> None:
    """Cuts an image file off in the middle."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def fail(file: pathlib.Path) -> None:
    """Makes reading a file fail as on a damaged disk: it opens, then comes EIO, which names no file (Linux)."""
    file.unlink()
    file.symlink_to("/proc/self/mem")


def as_files(folder: pathlib.Path, pixels: np.ndarray) -> FileImages:
    """Images [N, side, side, C] as PNG files, which keep their pixels."""
    names = tuple(f"{number}.png" for number in range(len(pixels)))
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / name)
    sizes = np.array([(folder / name).stat().st_size for name in names], np.int64)
    side, channels = pixels.shape[2:]
    return FileImages(str(folder), names, sizes, side, side, channels)


class Deadly(FileImages):
    """Kills the process that decodes its last image, as the kernel does where memory is short."""

    def __getitem__(self, rows):
        if rows == len(self) - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Failing(FileImages):
    """Raises an error where one image is decoded."""

    row: int = 0
    error: Exception = dataclasses.field(default_factory=Exception)

    def __getitem__(self, rows):
        if rows == self.row:
            raise self.error
        return super().__getitem__(rows)
