"""Named data sets without their images: programs depend on shapes and class counts alone, and these are known."""

import pathlib
from typing import Literal

import numpy as np

from ltrobust.data import identity, images, longtail, run_data
from ltrobust.data.image_list import locate
from ltrobust.data.run_data import DataPlan, Examples, RunData

# EMNIST's parts whose class counts are known.
EMNIST = ("emnist_balanced", "emnist_digits", "emnist_letters", "emnist_mnist")
# Height, width and channels.
SHAPES = {
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
    **dict.fromkeys(("mnist", "fashion_mnist", *EMNIST), (28, 28, 1)),
    "svhn_cropped": (32, 32, 3),
    "stl10": (96, 96, 3),
    "tiny_imagenet": (64, 64, 3),
}
# Published lists of ImageNet-LT, 1,000 classes: images of the most frequent and of the rarest class, and of all.
LISTS = {
    "ImageNet_LT_train.txt": (1280, 5, 115_846),
    "ImageNet_LT_val.txt": (20, 20, 20_000),
    "ImageNet_LT_test.txt": (50, 50, 50_000),
}


def make_run_data(plan: DataPlan) -> RunData:
    """The training and validation parts with black images in place of the data set's, which is not read.

    Their numbers and class counts are those of a run. Other data sets are read: `digits`, which is bundled, and those
    whose counts or sizes are not known before.

    Raises:
      ValueError, FileNotFoundError: as `run_data.load`.
    """
    counts = _known_counts(plan, "train")
    if counts is None:
        return run_data.load(plan)
    labels, held_out = np.repeat(np.arange(len(counts)), counts), _known_counts(plan, "validation")
    chosen, carve = run_data.divide(
        labels,
        imbalance_ratio=plan.imbalance_ratio,
        profile=plan.profile,
        seed=plan.split_seed,
        class_order=plan.class_order,
        validation_fraction=plan.validation_fraction if held_out is None else 0.0,
        validation_floor=plan.validation_floor,
        validation_cap=plan.validation_cap,
    )
    names = tuple(str(number) for number in range(len(counts)))
    parts = [labels[chosen[part]] for part in carve]
    if held_out is not None:
        parts[1] = np.repeat(np.arange(len(held_out)), held_out)
    training, validation = (Examples(_black(len(part), plan), part) for part in parts)
    return RunData(training, validation, names)


def count_test_images(plan: DataPlan, limit: int) -> int:
    """Images that an evaluation sees: the test set's, or at most `limit` of each class where that is above 0.

    Raises:
      ValueError, FileNotFoundError: as `sources.load`, for data sets that are read.
    """
    counts = _known_counts(plan, "test")
    if counts is None:
        test = plan.open("test")
        counts = longtail.count_classes(test.labels, test.num_classes)
    return int(np.minimum(counts, limit or counts.max()).sum())


def _known_counts(plan: DataPlan, split: Literal["train", "validation", "test"]) -> np.ndarray | None:
    """Images of each class of a split whose images need not be there; None for others."""
    if plan.name in SHAPES:
        return None if split == "validation" else np.array(identity.COUNTS[plan.name, split])
    path = getattr(plan.lists, split)
    name = pathlib.PurePath(path).name
    if plan.name != "image_list" or name not in LISTS or locate(path, pathlib.Path(plan.dir).expanduser()):
        return None
    # Only the ends and the sum are published here. Programs depend on them alone: on the length of an epoch, and of a
    # balanced subset.
    most, least, total = LISTS[name]
    counts = np.full(1000, (total - most - least) // 998)
    counts[[0, -1]] = most, least
    counts[1 : 1 + total - counts.sum()] += 1
    return counts


def _black(number: int, plan: DataPlan) -> images.Images:
    """Black images, one byte for all of their pixels; of a list, files without names."""
    if plan.name in SHAPES:
        return np.broadcast_to(np.uint8(0), (number, *SHAPES[plan.name]))
    sizes = np.zeros(number, np.int64)
    return images.FileImages("", ("",) * number, sizes, plan.image_size, plan.image_size, plan.channels)
