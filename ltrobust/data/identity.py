"""Compares images and labels with those of the official data set, by digests and class counts."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from ltrobust.data import longtail
from ltrobust.data.images import FileImages, Images, contents

# SHA-256 of the label sequences in official order (docs/concepts/data.md): a reordered or relabelled copy fails.
LABELS = {
    ("cifar10", "train"): "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
    ("cifar10", "test"): "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    ("cifar100", "train"): "8bf4935e7c77a3096270043c6f3b221b6ecb9c63d1a08608e9af66cff17e977a",
    ("cifar100", "test"): "80031c23f8300724c6fbc588e4bccbe41c6392041782148727bb497b0132c4ad",
}
# `digest` of official splits, where their pixels have been seen.
PIXELS = {
    ("cifar10", "train"): "67e12c2a5906880a4fe5595fe6d768185ad7ca587f35d3a7ece3c3b8b85035d2",
    ("cifar10", "test"): "e54a434ec35094516eacbaac0f2f9550358d985e9d1f71b47d41d333c15ba304",
    ("digits", "train"): "5952c29e3681c8ee8b883f7f78210d732fa4ffbffc5d93736ff16c5b870a7681",
    ("digits", "test"): "c50a40a780607c37b90a2fbac47009a281df8816ad2a53f99f0b230fb7f28412",
}
# Images per class of the complete splits.
_MNIST = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
_MNIST_TEST = (980, 1135, 1032, 1010, 982, 892, 1028, 974, 1009, 958)
_SVHN = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
_SVHN_TEST = (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595)
COUNTS = {
    ("cifar10", "train"): (5000,) * 10,
    ("cifar10", "test"): (1000,) * 10,
    ("cifar100", "train"): (500,) * 100,
    ("cifar100", "test"): (100,) * 100,
    ("mnist", "train"): _MNIST,
    ("mnist", "test"): _MNIST_TEST,
    ("fashion_mnist", "train"): (6000,) * 10,
    ("fashion_mnist", "test"): (1000,) * 10,
    ("emnist_balanced", "train"): (2400,) * 47,
    ("emnist_balanced", "test"): (400,) * 47,
    ("emnist_digits", "train"): (24000,) * 10,
    ("emnist_digits", "test"): (4000,) * 10,
    ("emnist_letters", "train"): (4800,) * 26,
    ("emnist_letters", "test"): (800,) * 26,
    ("emnist_mnist", "train"): (6000,) * 10,
    ("emnist_mnist", "test"): (1000,) * 10,
    ("svhn_cropped", "train"): _SVHN,
    ("svhn_cropped", "test"): _SVHN_TEST,
    ("stl10", "train"): (500,) * 10,
    ("stl10", "test"): (800,) * 10,
    ("tiny_imagenet", "train"): (500,) * 200,
    ("tiny_imagenet", "test"): (50,) * 200,
}
OFFICIAL = "official pixels and labels"
PUBLISHED = "read from the published archive, whose checksum was compared"
# Of data that are known to be the official ones.
OFFICIAL_CLAIMS = {OFFICIAL, PUBLISHED}
_LABELS_ONLY = "labels are the official ones; pixels not compared"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What is known of a split.

    Attributes:
      fingerprint: `digest` of its images.
      claim: a phrase for the card: what has been compared with the official data set.
      notes: what a reader of results must know, such as `partial copy: ...`; empty for a complete split.
    """

    fingerprint: str
    claim: str
    notes: tuple[str, ...]


def digest(images: Sequence[Images], labels: Sequence[np.ndarray]) -> str:
    """SHA-256 of the bytes of all images in C order, then of all labels as `longtail.fingerprint` takes them.

    Images in files stand for what is known of the files (`FileImages.digest`).
    """
    # Committed digests and those on cards are of exactly these bytes in this order.
    result = hashlib.sha256()
    for part in images:
        if isinstance(part, FileImages):
            result.update(part.digest().encode())
        else:
            result.update(np.ascontiguousarray(part).data)
    for part in labels:
        result.update(part.astype("<i8").tobytes())
    return result.hexdigest()


def of_names(class_names: Sequence[str]) -> dict[str, str]:
    """`classes`: SHA-256 of names, in label order, which lie in a file that may change."""
    return {"classes": hashlib.sha256("\n".join(class_names).encode()).hexdigest()}


def identify(
    name: str,
    split: str,
    images: Images,
    labels: np.ndarray,
    *,
    official_labels: np.ndarray,
    num_classes: int,
    published: bool = False,
) -> Identity:
    """Compares a split with what is known of the official one. A claim about pixels is only made where they were seen.

    Args:
      name, split: of the data set.
      images, labels: uint8 [M, H, W, C] and int64 [M].
      official_labels: [N], of the complete split: a pack has fewer images than labels.
      num_classes: C.
      published: whether the images were read from an archive with the published checksum.
    """
    fingerprint, key = digest([images], [labels]), (name, split)
    if name == "folder":
        return Identity(fingerprint, "the user's own images", ())
    if name == "image_list":
        read = contents([images]).get("contents", "")
        known = f"and contents of all files (SHA-256 {read[:12]})" if read else "of all files and both ends of up to 64"
        return Identity(fingerprint, f"files of the user's list: compared are paths, sizes {known}", ())
    if partial := _completeness(key, official_labels, num_classes):
        return Identity(fingerprint, "not the complete official data", (partial,))
    # The strongest claim that holds comes first.
    if PIXELS.get(key) == fingerprint:
        return Identity(fingerprint, OFFICIAL, ())
    if published:
        return Identity(fingerprint, PUBLISHED, ())
    official = key in LABELS and longtail.fingerprint(official_labels) == LABELS[key]
    if len(images) < len(official_labels):
        part = f"{len(images):,} of {len(official_labels):,} images are here"
        return Identity(
            fingerprint, f"{_LABELS_ONLY if official else 'not compared with the official data'}: {part}", ()
        )
    if key in PIXELS:
        note = (
            f"other pixels than the official ones (SHA-256 {fingerprint[:12]}, official {PIXELS[key][:12]}); "
            "numbers are not those of the official data"
        )
        return Identity(fingerprint, "labels are the official ones, pixels are not" if official else note, (note,))
    if official:
        return Identity(fingerprint, f"{_LABELS_ONLY}: no official digest is known here", ())
    if key not in COUNTS:
        return Identity(fingerprint, "not compared with the official data: nothing to compare with is known here", ())
    return Identity(fingerprint, "class counts are the official ones; pixels and order not compared", ())


def _completeness(key: tuple[str, str], labels: np.ndarray, num_classes: int) -> str:
    """A note if class counts are not the official ones, else an empty text."""
    if key not in COUNTS:
        return ""
    expected = np.array(COUNTS[key])
    counts = np.bincount(labels, minlength=num_classes)
    if np.array_equal(counts, expected):
        return ""
    official = f"{expected.min()} to {expected.max()}" if expected.min() < expected.max() else f"{expected.min()}"
    kind = "partial copy" if len(labels) < expected.sum() else "not the official images"
    return (
        f"{kind}: {len(labels):,} of {expected.sum():,} {key[1]} images, {counts.min()} to {counts.max()} per class "
        f"(official {official}), {num_classes} of {len(expected)} classes"
    )
