"""The data of a run from Python: training, validation and test images, as `load` gives them."""

import dataclasses
import os

import numpy as np

from ltrobust.data import identity, run_data
from ltrobust.data.run_data import DataPlan


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels.

    Attributes:
      images: uint8 [N,H,W,C], 0 to 255. Attacks take `to_unit(images)`; `ltrobust.evaluate` takes either.
      labels: int64 [N], 0 to C - 1.
      class_names: C names, in label order.
      fingerprint: SHA-256 of the bytes of all images, then of all labels. Equal for equal images in equal order.
      positions: int64 [N], of these images in the official training or test split.
      chosen_fingerprint: of training and validation data, SHA-256 of the positions of the long-tailed list that both
        are parts of. `docs/protocols.md` lists those of the published splits. Empty for test data.
      notes: what a reader of results must know about this copy of the data set; usually empty.
    """

    images: np.ndarray
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
        """C, whether or not there are images of each."""
        return len(self.class_names)

    @property
    def class_counts(self) -> np.ndarray:
        """Images per class, int64 [C]."""
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
) -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test data: the images that a run with these settings trains and is evaluated on.

    The training split is cut to a long tail, of which the validation part is held out (`longtail`). With
    `split_seed=0` the chosen images are those of RoBal, AT-BSL and REAT; the seed of training is another matter. The
    test data are whole. Defaults are those of `configs/default.py`.

    Args:
      name: one of `sources.NAMES`, such as `cifar10` or `digits`.
      imbalance_ratio: images of the most frequent class over those of the rarest, at least 1; 0 for every image.
      profile: `exp` or `step` (`longtail.class_counts`).
      split_seed: of the choice of images.
      class_order: which classes are rare (`longtail.ranks`).
      validation_fraction: of each class's images, 0 for no validation data ...
      validation_floor: ... but at least so many images ...
      validation_cap: ... and at most this fraction of them.
      data_dir, cache_dir, image_size, channels, skip_unreadable, cache_check: see `sources.load`.

    Returns:
      train, validation, test; training and validation data class after class.

    Raises:
      ValueError: an unknown name, a setting out of range, or data that are not the official ones.
      FileNotFoundError: data that are not there; the message names what is expected, and where.

    Warns:
      UserWarning: a partial or altered copy.
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
    )
    found, test = run_data.load(plan), plan.open("test")
    train, validation = (
        Dataset(
            part.images,
            part.labels,
            found.class_names,
            identity.digest([part.images], [part.labels]),
            part.positions,
            found.fingerprints["chosen"],
            found.notes,
        )
        for part in (found.training, found.validation)
    )
    whole = np.arange(len(test.labels))
    return (
        train,
        validation,
        Dataset(test.images, test.labels, test.class_names, test.fingerprint, whole, notes=test.notes),
    )
