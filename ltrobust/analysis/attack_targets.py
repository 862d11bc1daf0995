"""Classes that attacked images are assigned to: asymmetry of the confusion, top wrong class, agreement of attacks.

NumPy only; intervals of shares are Wilson's. A top wrong class is chosen by the images it is counted on, so its share
is biased up, the more so the fewer images were broken.
"""

from collections.abc import Sequence

import numpy as np

from ltrobust.analysis import intervals, metrics, spread
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.schema.diagnosed_column import TopWrongClass, TopWrongClasses
from ltrobust.analysis.schema.diagnosis import TargetAgreement


def asymmetry(confusion: np.ndarray) -> np.ndarray:
    """`||M - M^T|| / ||M||` (Frobenius) of confusions [..., C, C], row = true class; M has rows that sum to 1.

    0: classes take as many of each other's images as they lose; sqrt(2) is the most.
    """
    confusion = np.asarray(confusion, float)
    totals = confusion.sum(axis=-1, keepdims=True)
    shares = np.divide(confusion, totals, out=np.zeros_like(confusion), where=totals > 0)
    difference = np.linalg.norm(shares - np.swapaxes(shares, -1, -2), axis=(-2, -1))
    length = np.linalg.norm(shares, axis=(-2, -1))
    return np.divide(difference, length, out=np.full(np.shape(length), np.nan), where=length > 0)


def asymmetry_estimate(confusion: np.ndarray) -> Estimate:
    """`asymmetry` of counts [C, C] with a bootstrap interval: each row resampled, as many images as it has."""
    generator = np.random.RandomState(0)
    squares, shares = np.zeros(spread.DRAWS), {}
    for true, row in enumerate(confusion):
        taken = np.flatnonzero(row)
        if len(taken):
            drawn = generator.multinomial(row.sum(), row[taken] / row.sum(), size=spread.DRAWS) / row.sum()
            squares += np.sum(drawn**2, axis=1)
            shares |= {(true, int(other)): drawn[:, place] for place, other in enumerate(taken)}
    # ||M - M^T||^2 = 2 ||M||^2 - 2 <M, M^T>, and most cells of many classes are empty.
    mirrored = [share * shares[other, true] for (true, other), share in shares.items() if (other, true) in shares]
    differences = np.maximum(0.0, 2 * (squares - np.sum(mirrored, axis=0)))
    return intervals.percentile(float(asymmetry(confusion)), np.sqrt(differences / squares))


def top_wrong_classes(labels: np.ndarray, clean: np.ndarray, attacked: np.ndarray, num_classes: int) -> TopWrongClasses:
    """How many of the images that an attack broke are misclassified as their class's top wrong class.

    Broken are images that are right when clean and wrong when attacked; the top wrong class is the most frequent
    prediction of a class's broken images, ties to the lower class.

    Args:
      labels, clean, attacked: true classes and both predictions, integers [N] in [0, num_classes).
      num_classes: C.
    """
    # Images that are wrong when clean say nothing about where an attack sends images.
    broken = (clean == labels) & (attacked != labels)
    moved = metrics.confusion(attacked[broken], labels[broken], num_classes)
    most, totals = moved.max(axis=1), moved.sum(axis=1)
    classes = [
        TopWrongClass(int(total), int(row.argmax()) if total else None, intervals.wilson(number, total))
        for row, number, total in zip(moved, most, totals, strict=True)
    ]
    return TopWrongClasses(classes, intervals.wilson(most.sum(), totals.sum()), even=1 / (num_classes - 1))


def target_agreement(
    attacks: Sequence[str],
    labels: np.ndarray,
    clean: np.ndarray,
    attacked: np.ndarray,
    superclass: np.ndarray | None = None,
) -> TargetAgreement:
    """Images that at least two attacks break, and whether all attacks that break one send it to the same place.

    Args:
      attacks: names of A attacks that saw every image that is right when clean.
      labels, clean: true classes and predictions, integers [N].
      attacked: predictions under each attack, integers [A, N].
      superclass: of each class, integers [C].
    """
    wrong = attacked != labels
    chosen = (clean == labels) & (wrong.sum(axis=0) >= 2)
    wrong, attacked, labels = wrong[:, chosen], attacked[:, chosen], labels[chosen]
    number = len(labels)
    one_superclass = own_superclass = None
    if superclass is not None:
        groups, own = superclass[attacked], superclass[labels]
        inside = np.all((groups == own) | ~wrong, axis=0)
        one_superclass = intervals.wilson(_alike(groups, wrong).sum(), number)
        own_superclass = intervals.wilson(inside.sum(), number)
    one_class = intervals.wilson(_alike(attacked, wrong).sum(), number)
    return TargetAgreement(attacks, number, one_class, one_superclass, own_superclass)


def _alike(places: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Whether all counted entries of a column are equal, [A, N] -> bool [N]."""
    first = np.take_along_axis(places, counted.argmax(axis=0)[None], axis=0)
    return np.all((places == first) | ~counted, axis=0)
