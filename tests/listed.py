"""An image list as users have them: files of several sizes and formats, and text files with a line for each."""

import pathlib

import numpy as np
from PIL import Image


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
