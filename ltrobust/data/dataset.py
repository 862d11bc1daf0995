"""Data sets in Python: `load` returns training, validation and test images."""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from ltrobust.data import identity, run_data
from ltrobust.data.image_list import Lists
from ltrobust.data.images import Images
from ltrobust.data.run_data import DataPlan


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images with labels.

    Attributes:
      images: uint8 [N,H,W,C], 0 to 255: an array, or files that are decoded when they are indexed
        (`data/images.py`). Attacks take `to_unit(images[rows])`; `ltrobust.evaluate` takes all of these forms.
      labels: int64 [N], 0 to K - 1.
      class_names: K names, in label order.
      fingerprint: SHA-256 of the bytes of all images, then of all labels; equal for equal images in equal order. For
        images in files, of paths, sizes and both ends of up to 64 (`FileImages.digest`) in place of bytes.
      positions: int64 [N], positions of these images in the official training or test split.
      chosen_fingerprint: SHA-256 of the positions of the long-tailed list, which training and validation data share
        (docs/concepts/data.md lists those of the published splits);
        empty for test data.
      notes: remarks on this copy of the data set that affect results; usually empty.
    """

    images: Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str
    positions: np.ndarray
    chosen_fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes K, including classes without images."""
        return len(self.class_names)

    @property
    def class_counts(self) -> np.ndarray:
        """Images per class, int64 [K]."""
        return np.bincount(self.labels, minlength=self.num_classes)


def load(
    name: str,
    *,
    imbalance_ratio: float = 50.0,
    profile: str = "exp",
    split_seed: int = 0,
    class_order: str = "",
    validation_fraction: float = 0.05,
    validation_floor: int = 10,
    validation_cap: float = 0.2,
    data_dir: str | os.PathLike[str] = "",
    cache_dir: str | os.PathLike[str] = "~/.cache/ltrobust",
    image_size: int = 32,
    channels: int = 3,
    skip_unreadable: bool = False,
    cache_check: str = "sample",
    lists: Mapping[str, str] | None = None,
    resize: int = 0,
) -> tuple[Dataset, Dataset, Dataset]:
    """Loads training, validation and test data: exactly the images that a run with these settings uses.

    The training split is reduced to a long tail, and a validation part of it is held out. With `split_seed=0` the
    images are those of RoBal, AT-BSL and REAT. The test data are complete. Defaults are those of `configs/default.py`.

    Args:
      name: data set, one of `sources.NAMES`, such as `cifar10` or `digits`.
      imbalance_ratio: size of the largest class over that of the smallest, at least 1; 0 keeps every image.
      profile: decrease of class sizes, `exp` or `step` (`longtail.class_counts`).
      split_seed: seed for the choice of images, independent of the seed of training.
      class_order: which classes are rare (`longtail.ranks`).
      validation_fraction: fraction of each class held out for validation; 0 for no validation data.
      validation_floor: smallest number of validation images per class ...
      validation_cap: ... up to this fraction of the class.
      data_dir: folder of the archive, of the images or of a pack; empty for the default place.
      cache_dir: folder for decoded copies; empty for none.
      image_size: side in pixels to which images of a folder or of ImageNet are resized.
      channels: 1 or 3, of the images of a folder.
      skip_unreadable: skip and count unreadable files of a folder instead of raising.
      cache_check: how many files of a folder are compared with its decoded copy, `sample` or `full`.
      lists: of an `image_list`: the files `train`, `test`, and perhaps `validation` and `classes` (`image_list.Lists`).
      resize: of an `image_list`: pixels of the shorter side before the centre is cut out; 0 for 256/224 of the size.

    Returns:
      train, validation, test. Training and validation images are ordered by class.

    Raises:
      ValueError: an unknown name, a setting out of range, or data that differ from the official ones.
      FileNotFoundError: missing data; the message names the expected files and folder.

    Warns:
      UserWarning: a partial or altered copy of the data set.

    Example:
      >>> import ltrobust as lt
      >>> train, validation, test = lt.data.load("digits", imbalance_ratio=10, cache_dir="")
      >>> train.images.shape[1:], test.num_classes
      ((8, 8, 1), 10)
      >>> train.class_counts[:3] > train.class_counts[-3:]
      array([ True,  True,  True])
    """
    plan = DataPlan(
        name,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        split_seed=split_seed,
        class_order=class_order,
        validation_fraction=validation_fraction,
        validation_floor=validation_floor,
        validation_cap=validation_cap,
        dir=data_dir,
        cache_dir=cache_dir,
        image_size=image_size,
        channels=channels,
        skip_unreadable=skip_unreadable,
        cache_check=cache_check,
        lists=Lists(**(lists or {})),
        resize=resize,
    )
    result, test = run_data.load(plan), plan.open("test")
    train, validation = (
        Dataset(
            part.images,
            part.labels,
            result.class_names,
            identity.digest([part.images], [part.labels]),
            part.positions,
            result.fingerprints["chosen"],
            result.notes,
        )
        for part in (result.training, result.validation)
    )
    whole = np.arange(len(test.labels))
    return (
        train,
        validation,
        Dataset(test.images, test.labels, test.class_names, test.fingerprint, whole, notes=test.notes),
    )
