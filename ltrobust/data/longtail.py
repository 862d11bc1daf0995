"""Long-tailed subsets of balanced data sets: class-count profiles, seeded choice, validation, balance.

NumPy only. Every function returns int64 positions; nothing here touches an image. The sampler is the one
that RoBal, AT-BSL and REAT share (NumPy's frozen legacy Mersenne Twister, seed 0), so with `seed=0` the
chosen images are theirs; `docs/concepts/data.md` lists the fingerprints that the tests assert.
"""

import hashlib
import math
from typing import NamedTuple

import numpy as np

from ltrobust.runtime.names import nearest

PROFILES = ("exp", "step")


class Carve(NamedTuple):
    """Two disjoint parts of one training list: positions, int64, class after class."""

    train: np.ndarray
    validation: np.ndarray


def fingerprint(positions: np.ndarray) -> str:
    """SHA-256 of a list of integers: little-endian int64, concatenated, raw bytes."""
    return hashlib.sha256(np.ascontiguousarray(positions, dtype="<i8").tobytes()).hexdigest()


def count_classes(labels: np.ndarray, num_classes: int | None = None) -> np.ndarray:
    """Number of examples per class, int64 [C]; C is `max(labels) + 1` unless given.

    Raises:
      ValueError: labels that are not a vector of non-negative integers below `num_classes`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.size == 0:
        raise ValueError(
            f"labels must be a non-empty vector of integers, got shape {labels.shape}, dtype {labels.dtype}."
        )
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels lie in [{labels.min()}, {labels.max()}], but {num_classes} classes allow 0 to {num_classes - 1}."
        )
    return np.bincount(labels.astype(np.int64), minlength=num_classes)


def ranks(class_order: str, classes: int) -> np.ndarray:
    """Each class's rank in frequency, int64 [C], 0 for the most frequent.

    Args:
      class_order: the classes from the most frequent to the rarest: "" for 0 to C-1, `reversed` for C-1 to 0,
        `random:S` for the permutation of seed S, or numbers, such as "2,0,1".
      classes: C.

    Raises:
      ValueError: anything else, or numbers that are not each of 0 to C-1 once.
    """
    numbers = [str(c) for c in range(classes)]
    text = class_order if isinstance(class_order, str) else "not a text"
    kind, _, seed = text.partition(":")
    words = [word.strip() for word in text.split(",")]
    if text in ("", "reversed"):
        order = np.arange(classes)[:: -1 if text else 1]
    elif kind == "random" and seed.isascii() and seed.isdecimal() and len(seed) <= 10 and int(seed) < 2**32:
        order = np.random.RandomState(int(seed)).permutation(classes)
    elif sorted(words) == sorted(numbers):
        order = np.array([int(word) for word in words])
    else:
        raise ValueError(
            f"data.class_order is {class_order!r}; give '', 'reversed', 'random:SEED' with a seed from 0 to "
            f"{2**32 - 1}, or a text with each of 0 to {classes - 1} once and commas between, the most frequent class "
            "first."
        )
    return np.argsort(order).astype(np.int64)


def class_counts(
    available: np.ndarray, *, imbalance_ratio: float, profile: str = "exp", class_order: str = ""
) -> np.ndarray:
    """How many examples of each class a long-tailed subset keeps, int64 [C].

    `n_c = trunc(n_max * share_c)`, with `share_c = (1/IR)^(c/(C-1))` (`exp`; Cui et al. 2019) or 1 for the
    first `C - C//2` classes and `1/IR` for the others (`step`; Buda et al. 2018), and n_max the largest number
    for which no class is asked for more than it has: 5000 for CIFAR-10, 500 for CIFAR-100 and Tiny-ImageNet.

    Args:
      available: [C] examples that each class has.
      imbalance_ratio: n_max / n_min, at least 1; or 0 for everything that there is, whatever its ratio and profile.
      profile: `exp` or `step`.
      class_order: which classes are rare (`ranks`); above, c is a class's rank.

    Raises:
      ValueError: ratio below 1, unknown profile or order, fewer than two classes, or a class left without examples.
    """
    available = np.asarray(available, dtype=np.int64)
    classes = len(available)
    if not (math.isfinite(imbalance_ratio) and (imbalance_ratio >= 1 or imbalance_ratio == 0)):
        raise ValueError(
            f"imbalance ratio is {imbalance_ratio}; it is n_max / n_min and must be at least 1, or 0 for all images."
        )
    if profile not in PROFILES:
        raise ValueError(
            f"long-tail profile is {profile!r}; {nearest(profile, PROFILES)}known profiles: {', '.join(PROFILES)}."
        )
    if classes < 2:
        raise ValueError(f"a long-tailed subset needs at least 2 classes, got {classes}.")
    rank = ranks(class_order, classes).tolist()
    if imbalance_ratio == 0:
        if class_order:
            raise ValueError(
                f"class order {class_order!r} needs an imbalance ratio of at least 1, not 0 for all images."
            )
        return available.copy()
    if profile == "exp":
        shares = [(1 / imbalance_ratio) ** (c / (classes - 1)) for c in rank]
    else:
        shares = [1.0 if c < classes - classes // 2 else 1 / imbalance_ratio for c in rank]
    n_max = min(int(n) / share for n, share in zip(available, shares, strict=True))
    # Rounded first: n / share * share may fall just below the whole number that it stands for.
    counts = np.array([min(int(round(n_max * share, 9)), int(n)) for n, share in zip(available, shares, strict=True)])
    if counts.min() < 1:
        raise ValueError(
            f"imbalance ratio {imbalance_ratio} leaves class {int(counts.argmin())} without examples "
            f"(the fullest class has {counts.max()}); lower the ratio to at most {counts.max()}."
        )
    return counts


def choose(
    labels: np.ndarray, *, imbalance_ratio: float, profile: str = "exp", seed: int = 0, class_order: str = ""
) -> np.ndarray:
    """Positions of a long-tailed subset, int64 [N'], class after class, in the sampler's own order.

    One legacy generator `RandomState(seed)` runs through the classes in ascending order; each class's positions are
    shuffled and the first `n_c` kept (LDAM's generator, Cao et al. 2019). Hence the subset for a larger ratio is a
    per-class prefix of the one for a smaller ratio.

    Args:
      labels: [N] integers in the data set's official order.
      imbalance_ratio, profile, class_order: see `class_counts`.
      seed: 0 gives the images that RoBal, AT-BSL and REAT trained on.

    Raises:
      ValueError: see `class_counts` and `count_classes`.
    """
    labels = np.asarray(labels)
    counts = class_counts(
        count_classes(labels), imbalance_ratio=imbalance_ratio, profile=profile, class_order=class_order
    )
    # One generator for all classes, in ascending order, and `shuffle` in place: any other order of draws, or NumPy's
    # newer generators, would choose other images than the published splits.
    generator = np.random.RandomState(seed)
    kept = []
    for label, count in enumerate(counts):
        positions = np.flatnonzero(labels == label).astype(np.int64)
        generator.shuffle(positions)
        kept.append(positions[:count])
    return np.concatenate(kept)


def describe_choice(*, imbalance_ratio: float, profile: str, seed: int, class_order: str = "") -> str:
    """The arguments of `choose` in words, for messages."""
    order = f", class order {class_order}" if class_order else ""
    return f"imbalance ratio {imbalance_ratio:g}, profile {profile}, split seed {seed}{order}"


def long_tailed_test(labels: np.ndarray, *, imbalance_ratio: float, profile: str = "exp") -> np.ndarray:
    """Positions of a long-tailed part of a balanced test set, int64 [N'], ascending: the first `n_c` of each class.

    TAET evaluates on test sets with the profile of its training sets. Its selection was drawn without a seed and is
    published as arrays only; the counts are the same, the choice of images is ours. Overall and balanced accuracy
    differ on such a set, and neither may stand beside numbers from the full test set. An evaluation takes the
    positions as `ids`, so that every image has the random draws that it has in the whole test set:

        rows = longtail.long_tailed_test(test.labels, imbalance_ratio=100)
        images, labels = test.images[rows], test.labels[rows]
        ltrobust.evaluate(logits_fn, images, labels, ids=rows, protocol="legacy_taet/b1")

    Args:
      labels: [N] integers in the test set's official order.
      imbalance_ratio, profile: see `class_counts`.

    Raises:
      ValueError: see `class_counts` and `count_classes`.
    """
    labels = np.asarray(labels)
    counts = class_counts(count_classes(labels), imbalance_ratio=imbalance_ratio, profile=profile)
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label, count in enumerate(counts)]))


def carve_validation(labels: np.ndarray, *, fraction: float = 0.05, floor: int = 10, cap: float = 0.2) -> Carve:
    """Splits a training list into training and validation parts, class by class, without random draws.

    `v_c = min(max(ceil(fraction * n_c), floor), trunc(cap * n_c))`; the last `v_c` entries of each class, in list
    order, are validation. `fraction=0` carves nothing.

    Args:
      labels: [N] labels of the training list (grouped or not).

    Returns:
      Positions into that list, both parts class after class.

    Raises:
      ValueError: a fraction or cap outside [0, 1), or a negative floor.
    """
    if not (0 <= fraction < 1 and 0 <= cap < 1 and floor >= 0):
        raise ValueError(
            f"validation carve is validation_fraction={fraction}, validation_floor={floor}, validation_cap={cap}; "
            "fraction and cap must lie in [0, 1) and floor must be at least 0."
        )
    labels = np.asarray(labels)
    train, validation = [], []
    for label, count in enumerate(count_classes(labels)):
        # Rounded first: 0.05 * 140 is 7.000000000000001 in binary, and its ceiling would be 8.
        wanted = max(math.ceil(round(fraction * count, 9)), floor) if fraction > 0 else 0
        held_out = min(wanted, math.floor(round(cap * count, 9)))
        positions = np.flatnonzero(labels == label)
        train.append(positions[: count - held_out])
        # The end of the list, which `choose` has shuffled: random without further draws, and the same for every method
        # and seed of training.
        validation.append(positions[count - held_out :])
    return Carve(np.concatenate(train), np.concatenate(validation))


def balanced_count(counts: np.ndarray, *, gamma: float = 0.0, count: int = 0) -> int:
    """The common per-class count m of the balanced subset.

    `m = count` where given, else `round(gamma * n_min)`, and for `gamma=0` the geometric mean
    `m = round(sqrt(n_min * n_max))`, that is `gamma = sqrt(IR)` (our reading; the paper's rule is unknown).

    Raises:
      ValueError: negative arguments, both given, m below 1, or above the number of all images.
    """
    counts = np.asarray(counts)
    if not gamma >= 0 or count < 0 or (gamma > 0 and count > 0):
        raise ValueError(f"balanced subset: gamma={gamma} and count={count}; give one of them, positive, or neither.")
    n_min, n_max = int(counts.min()), int(counts.max())
    m = count or (gamma * n_min if gamma > 0 else math.sqrt(n_min * n_max))
    if m > counts.sum():
        raise ValueError(
            f"balanced subset: gamma={gamma} and count={count} ask for {m} images per class, but all classes together "
            f"have {counts.sum()}; lower them."
        )
    m = round(m)
    if m < 1:
        raise ValueError(
            f"balanced subset: gamma={gamma} times the rarest class's {n_min} gives no image; raise gamma."
        )
    return m


def balanced_subset(labels: np.ndarray, *, count: int, seed: int, up_sample: bool = True) -> np.ndarray:
    """Positions of the class-balanced subset D_B, int64 [C * count], class after class, with repeats.

    A class with `n_c >= count` gives `count` positions drawn without replacement; a smaller one gives every position
    `floor(count / n_c)` times and `count mod n_c` more drawn without replacement (Cho, Lee and Kim, ICLR 2025, as
    described; the drawing rule is ours).

    Args:
      labels: [N] labels of the training part.
      count: m, images per class.
      seed: of the legacy generator, one for all classes in ascending order.
      up_sample: whether a class may be repeated.

    Raises:
      ValueError: `count` below 1, an empty class, or a class smaller than `count` without `up_sample`.
    """
    labels = np.asarray(labels)
    counts = count_classes(labels)
    if count < 1:
        raise ValueError(f"balanced subset: {count} images per class; it must be at least 1.")
    if counts.min() == 0:
        raise ValueError(f"balanced subset: class {int(counts.argmin())} has no training image to draw from.")
    if not up_sample and counts.min() < count:
        raise ValueError(
            f"balanced subset: {count} images per class asked for, but class {int(counts.argmin())} has {counts.min()};"
            f" allow up-sampling (up_sample) or ask for at most {counts.min()}."
        )
    generator = np.random.RandomState(seed)
    chosen = []
    for label, available in enumerate(counts):
        positions = np.flatnonzero(labels == label).astype(np.int64)
        whole, rest = divmod(count, int(available))
        # The permutation is drawn even where `rest` is 0: whether a class needs it must not change the draws of the
        # next.
        drawn = generator.permutation(positions)[:rest]
        chosen.append(np.concatenate([np.tile(positions, whole), drawn]))
    return np.concatenate(chosen)
