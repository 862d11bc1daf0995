"""Named data sets without their images: programs depend on shapes and class counts alone, and these are known."""

import numpy as np

from ltrobust.data import identity, longtail, run_data
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


def make_run_data(plan: DataPlan) -> RunData:
    """The training and validation parts with black images in place of the data set's, which is not read.

    Their numbers and class counts are those of a run. Other data sets are read: `digits`, which is bundled, and those
    whose counts or sizes are not known before.

    Raises:
      ValueError, FileNotFoundError: as `run_data.load`.
    """
    if plan.name not in SHAPES:
        return run_data.load(plan)
    counts = identity.COUNTS[plan.name, "train"]
    labels = np.repeat(np.arange(len(counts)), counts)
    chosen, carve = run_data.divide(
        labels,
        imbalance_ratio=plan.imbalance_ratio,
        profile=plan.profile,
        seed=plan.split_seed,
        class_order=plan.class_order,
        validation_fraction=plan.validation_fraction,
        validation_floor=plan.validation_floor,
        validation_cap=plan.validation_cap,
    )
    names = tuple(str(number) for number in range(len(counts)))
    training, validation = (
        Examples(_black(len(part), plan.name), part) for part in (labels[chosen[part]] for part in carve)
    )
    return RunData(training, validation, names)


def count_test_images(plan: DataPlan, limit: int) -> int:
    """Images that an evaluation sees: the test set's, or at most `limit` of each class where that is above 0.

    Raises:
      ValueError, FileNotFoundError: as `sources.load`, for data sets that are read.
    """
    if plan.name in SHAPES:
        counts = np.array(identity.COUNTS[plan.name, "test"])
    else:
        test = plan.open("test")
        counts = longtail.count_classes(test.labels, test.num_classes)
    return int(np.minimum(counts, limit or counts.max()).sum())


def _black(number: int, name: str) -> np.ndarray:
    """Black images, one byte for all of their pixels."""
    return np.broadcast_to(np.uint8(0), (number, *SHAPES[name]))
