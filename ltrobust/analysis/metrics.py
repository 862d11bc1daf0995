"""Counts per class, and all accuracies that are derived from them. NumPy and SciPy only.

Accuracies are fractions in [0, 1]; intervals are 95 %, see `intervals`. A class without test images has no accuracy
(NaN), is left out of macro averages, and is listed.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ltrobust.analysis import intervals
from ltrobust.analysis.intervals import Estimate


class ClassCounts(NamedTuple):
    """Correct and all images per class, int64 [C]: the only truth, everything else is derived."""

    correct: np.ndarray
    total: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Per-class accuracy, NaN for a class without images."""
        return np.divide(
            self.correct, self.total, out=np.full(len(self.total), np.nan), where=np.asarray(self.total) > 0
        )


def count(correct: np.ndarray, labels: np.ndarray, num_classes: int) -> ClassCounts:
    """Counts per class from one boolean per image.

    Raises:
      ValueError: lengths differ.
    """
    if len(correct) != len(labels):
        raise ValueError(f"{len(correct)} verdicts for {len(labels)} labels; every image needs exactly one.")
    total = np.bincount(labels, minlength=num_classes)
    return ClassCounts(np.bincount(labels[np.asarray(correct, bool)], minlength=num_classes), total)


def check_classes(name: str, classes: np.ndarray, num_classes: int) -> None:
    """Refuses anything but integers [N] in [0, num_classes); `name` is for the message.

    Raises:
      ValueError: another type, shape or range.
    """
    classes = np.asarray(classes)
    if classes.ndim != 1 or not np.issubdtype(classes.dtype, np.integer):
        raise ValueError(
            f"{name} are {classes.dtype} {list(classes.shape)}: integers [N] are allowed; pass one class per image."
        )
    if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
        wrong = classes[(classes < 0) | (classes >= num_classes)][0]
        raise ValueError(
            f"{name} hold class {wrong}: 0 to {num_classes - 1} are allowed; pass the data set's number of classes."
        )


def check_training_counts(training_counts: np.ndarray, num_classes: int) -> None:
    """Refuses anything but one number of images, at least 0, for each class.

    Raises:
      ValueError: another type, length or a negative number.
    """
    counts = np.asarray(training_counts)
    if counts.shape != (num_classes,) or not np.issubdtype(counts.dtype, np.integer) or np.any(counts < 0):
        raise ValueError(
            f"training counts of {counts.size} classes ({counts.dtype} {list(counts.shape)}), but there are "
            f"{num_classes}; pass one number of images, at least 0, per class."
        )


def confusion(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each true class (row) is predicted as each class (column), int64 [C, C].

    Args:
      predictions: integers [N] in [0, num_classes).
      labels: true classes, the same.
      num_classes: C.

    Raises:
      ValueError: lengths differ, or classes that are not integers in [0, num_classes).
    """
    check_classes("predictions", predictions, num_classes)
    check_classes("labels", labels, num_classes)
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels; every image needs exactly one.")
    cells = np.asarray(labels, np.int64) * num_classes + np.asarray(predictions, np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_frequent_confusion(confusion: np.ndarray) -> list[tuple[int, float] | None]:
    """For each true class the most frequent wrong prediction and its share of the class's images.

    Ties go to the lower class; None for a class that is never wrong or has no images.

    Args:
      confusion: counts [C, C], row = true class.

    Raises:
      ValueError: the matrix is not square.
    """
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"a confusion matrix of shape {list(confusion.shape)}: it must be [C, C], row = true class.")
    wrong = confusion - np.diag(np.diag(confusion))
    return [
        (int(row.argmax()), float(row.max() / total)) if row.any() else None
        for row, total in zip(wrong, confusion.sum(axis=1), strict=True)
    ]


def macro(counts: ClassCounts, classes: np.ndarray) -> Estimate:
    """Mean of the class accuracies over `classes`, with a normal interval.

    `SE = sqrt(sum_c p_c (1 - p_c) / n_c) / G`, with `p_c = (k_c + 1) / (n_c + 2)` in the standard error only.
    """
    classes = np.asarray(classes)[np.asarray(counts.total)[classes] > 0] if len(classes) else np.asarray(classes)
    if len(classes) == 0:
        return Estimate(math.nan, math.nan, math.nan)
    correct, total = counts.correct[classes], counts.total[classes]
    return intervals.normal(float(np.mean(correct / total)), error_of_mean(correct, total), 0.0, 1.0)


def error_of_mean(correct: np.ndarray, total: np.ndarray) -> float:
    """Standard error over test images of the mean accuracy of G classes with images, from counts [G]; never 0."""
    # Smoothed in the error only: a class with all or none of its images right would otherwise have an error of 0.
    smoothed = (correct + 1) / (total + 2)
    return math.sqrt(float(np.sum(smoothed * (1 - smoothed) / total))) / len(total)


def lowest(counts: ClassCounts, number: int) -> Estimate:
    """Mean of the `number` lowest class accuracies (1: the worst class), see `intervals.lowest`.

    The value is biased low, the more so the fewer images a class has.
    """
    present = np.asarray(counts.total) > 0
    return intervals.lowest(counts.correct[present], counts.total[present], number)


def lowest_tenth(classes: int) -> int:
    """How many of `classes` classes with images are the lowest tenth, rounded up: `worst10` is the mean of these."""
    return -(-classes // 10)


def worst10(counts: ClassCounts) -> Estimate:
    """Mean of the lowest tenth of the class accuracies, of classes with images, see `lowest`."""
    return lowest(counts, lowest_tenth(int(np.count_nonzero(counts.total))))


def groups(training_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Named groups of classes, in the definitions that papers use; positions of classes, possibly none.

    `third`: by index from the most frequent class, tail is beyond `2 floor(C/3)` (REAT), or the last of 3 classes.
    `rare80`: the rarest ceil(0.8 C) classes (RobustLT). `count`: many >= 100, medium 20-99, few < 20 training images
    (MCAT). `rarest1`: the rarest class.
    """
    training_counts = np.asarray(training_counts)
    classes = len(training_counts)
    index, third = np.arange(classes), classes // 3
    # Among equally rare classes the later index counts as rarer: the profiles descend, so that their ranks are indices.
    rarest_first = np.lexsort((-index, training_counts))
    rank = np.argsort(rarest_first[::-1])
    # REAT's tail begins behind 2 floor(C/3), which leaves none of 3 classes.
    last_medium = min(2 * third, classes - 2)
    return {
        "head_third": index[rank < third],
        "medium_third": index[(rank >= third) & (rank <= last_medium)],
        "tail_third": index[rank > last_medium],
        "tail_rare80": np.sort(rarest_first[: math.ceil(0.8 * classes - 1e-9)]),
        "many_count": index[training_counts >= 100],
        "medium_count": index[(training_counts >= 20) & (training_counts < 100)],
        "few_count": index[training_counts < 20],
        "rarest1": rarest_first[:1],
    }


def shots(training_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Many-, medium- and few-shot classes as in ImageNet-LT (Liu et al. 2019, arXiv:1904.05160), by positions.

    More than 100, 20 to 100, and fewer than 20 training images.
    """
    training_counts = np.asarray(training_counts)
    many, few = training_counts > 100, training_counts < 20
    groups = {"many-shot": many, "medium-shot": ~many & ~few, "few-shot": few}
    return {name: np.flatnonzero(members) for name, members in groups.items()}


def views(counts: ClassCounts, training_counts: np.ndarray) -> dict[str, Any]:
    """Every view of one column as plain values: `{name: {"value", "low", "high"}}` and the per-class list.

    `overall` pools all images; `balanced` and the groups are means over classes; `worst` is the worst class and
    `worst10` the mean of the lowest ceil(G/10) of G classes with images; `sd` is the population deviation over classes,
    `nsd` is `sd / balanced` (NaN where that is 0), `gap` the best class minus the worst. A group whose classes have
    unequal numbers of images also has `pooled`, the accuracy over its images.

    Raises:
      ValueError: the numbers of classes differ, or training counts that are no counts.
    """
    classes = len(counts.total)
    check_training_counts(training_counts, classes)
    accuracy = counts.accuracy
    balanced, deviation = macro(counts, np.arange(classes)), float(np.nanstd(accuracy))
    result: dict[str, Any] = {
        "overall": intervals.wilson(counts.correct.sum(), counts.total.sum())._asdict(),
        "balanced": balanced._asdict(),
        "worst": lowest(counts, 1)._asdict() | {"class_index": int(np.nanargmin(accuracy))},
        "worst10": worst10(counts)._asdict(),
        "sd": deviation,
        "nsd": deviation / balanced.value if balanced.value else math.nan,
        "gap": float(np.nanmax(accuracy) - np.nanmin(accuracy)),
    }
    for name, members in groups(training_counts).items():
        if len(members):
            result[name] = macro(counts, members)._asdict() | {"classes": len(members)} | _pooled(counts, members)
    result["per_class"] = [intervals.wilson(k, n)._asdict() for k, n in zip(counts.correct, counts.total, strict=True)]
    result["classes_without_images"] = np.flatnonzero(np.asarray(counts.total) == 0).tolist()
    return result


def _pooled(counts: ClassCounts, members: np.ndarray) -> dict[str, Any]:
    """The accuracy over all images of a group, only where it can differ from the mean of its classes."""
    correct, total = counts.correct[members], counts.total[members]
    if len(np.unique(total[total > 0])) < 2:
        return {}
    return {"pooled": intervals.wilson(correct.sum(), total.sum())._asdict()}
