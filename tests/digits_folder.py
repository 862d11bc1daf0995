"""scikit-learn's digits as a folder of PNG files, the way somebody's own images lie on disk."""

import pathlib

import numpy as np
from PIL import Image

from ltrobust.data import sources


def write(folder: pathlib.Path, train: list[int], test: int) -> pathlib.Path:
    """`train[c]` training images and `test` test images of each digit c, named so that sorting keeps their order."""
    for split, counts in (("train", train), ("test", [test] * len(train))):
        result = sources.load("digits", split)
        for label, count in enumerate(counts):
            directory = folder / split / f"digit {label}"
            directory.mkdir(parents=True)
            for number, image in enumerate(result.images[result.labels == label][:count]):
                Image.fromarray(np.asarray(image)[..., 0]).save(directory / f"{number:04d}.png")
    return folder
