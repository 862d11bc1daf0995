"""From a data set's training split to what training may see: the long-tailed part, and its validation part."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from absl import logging

from ltrobust.data import identity, loader, longtail, sources
from ltrobust.data.image_list import Lists
from ltrobust.data.images import Images, contents, take

# Below so many validation images of a class, one image moves its accuracy by more than a tenth, which is noted.
_FEW = 10
_NAMED = 5  # of such classes, the ones with the fewest images


@dataclasses.dataclass(frozen=True)
class DataPlan:
    """Which images a run reads, and which of them it trains on. Defaults are those of `configs/default.py`.

    Attributes:
      name, dir, cache_dir, image_size, channels, skip_unreadable, cache_check, lists, resize: see `sources.load`.
      imbalance_ratio, profile, split_seed, class_order: of the long-tailed list; see `longtail.choose`.
      validation_fraction, validation_floor, validation_cap: see `longtail.carve_validation`.
      residence, workers: where training keeps the images, and what decodes them; see `loader.check_settings`.
    """

    name: str
    imbalance_ratio: float = 50.0
    profile: str = "exp"
    split_seed: int = 0
    class_order: str = ""
    validation_fraction: float = 0.05
    validation_floor: int = 10
    validation_cap: float = 0.2
    dir: str | os.PathLike[str] = ""
    cache_dir: str | os.PathLike[str] = "~/.cache/ltrobust"
    image_size: int = 32
    channels: int = 3
    skip_unreadable: bool = False
    cache_check: str = "sample"
    lists: Lists = dataclasses.field(default_factory=Lists)
    resize: int = 0
    residence: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        """Makes the group of keys that a configuration has a `Lists`, and checks what can be checked without data."""
        if isinstance(self.lists, Mapping):
            object.__setattr__(self, "lists", Lists(**self.lists))
        loader.check_settings(self.residence, self.workers)
        sources.check_form(vars(self))

    def open(self, split: Literal["train", "validation", "test"]) -> sources.Split:
        """One split of the data set; the other one is not opened.

        Raises:
          ValueError, FileNotFoundError: see `sources.load`.
        """
        return sources.load(
            self.name,
            split,
            data_dir=self.dir,
            cache_dir=self.cache_dir,
            image_size=self.image_size,
            channels=self.channels,
            skip_unreadable=self.skip_unreadable,
            cache_check=self.cache_check,
            lists=self.lists,
            resize=self.resize,
        )


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images with their labels.

    Attributes:
      images: uint8 [N,H,W,C], an array or files.
      labels: int64 [N].
      positions: int64 [N], in the official order of the training split or the validation list; empty without one.
    """

    images: Images
    labels: np.ndarray
    positions: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class RunData:
    """The images that one run trains and validates on, class after class.

    Attributes:
      training: what it trains on.
      validation: carved from the same long-tailed list, possibly empty; or what an image list has for it (`listed`).
      class_names: C names.
      fingerprints: SHA-256 of the chosen positions (`chosen`), and of its `train` and `validation` parts, in the data
        set's official order; and `pixels`, of the images and labels of the chosen images, training part first.
        Of the user's own data also `images`, of all of them, and `contents` of files that were all read.
      notes: about the source, for the card.
      claim: of the source (`sources.Split`).
      files: of a folder, what was used and skipped of its training split (`folder.Loaded`); else empty.
      names: of the user's own, the files of the training split in official order (`sources.Split`).
      listed: whether the validation part has a separate list.
    """

    training: Examples
    validation: Examples
    class_names: tuple[str, ...]
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    claim: str = ""
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()
    listed: bool = False

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return self.training.images.shape[1:]

    @property
    def validation_counts(self) -> np.ndarray:
        """Validation images per class, int64 [C]."""
        return np.bincount(self.validation.labels, minlength=self.num_classes)

    @property
    def class_counts(self) -> np.ndarray:
        """Training images per class, int64 [C]."""
        return longtail.count_classes(self.training.labels, self.num_classes)


def load(plan: DataPlan, show: Callable[[sources.Split], object] = lambda source: None) -> RunData:
    """The training and validation parts of a run. `show` is given the training split as soon as it is read.

    Raises:
      ValueError, FileNotFoundError: see `sources.load` and `make_run_data`.
    """
    source = plan.open("train")
    show(source)
    held_out = None
    if plan.name == "image_list" and plan.lists.validation:
        held_out = plan.open("validation")
        show(held_out)
    return make_run_data(
        source,
        held_out=held_out,
        imbalance_ratio=plan.imbalance_ratio,
        profile=plan.profile,
        seed=plan.split_seed,
        class_order=plan.class_order,
        validation_fraction=plan.validation_fraction,
        validation_floor=plan.validation_floor,
        validation_cap=plan.validation_cap,
    )


def make_run_data(
    source: sources.Split,
    *,
    imbalance_ratio: float,
    profile: str,
    seed: int,
    validation_fraction: float,
    validation_floor: int,
    validation_cap: float,
    class_order: str = "",
    held_out: sources.Split | None = None,
) -> RunData:
    """The long-tailed training and validation parts of a training split. With `held_out`, that is the validation part.

    Raises:
      ValueError: see `longtail.choose` and `longtail.carve_validation`; a class of the source without images; a
        validation part that is asked for and empty; the source is a test split, or a pack without some of the images.
    """
    # Training and validation data have no other source, so selection can never see the test set.
    if source.split != "train":
        raise ValueError(f"training data come from the split 'train', not {source.split!r}.")
    labels = source.official_labels
    available = longtail.count_classes(labels, source.num_classes)
    if available.min() == 0:
        empty = int(available.argmin())
        raise ValueError(
            f"{source.name}: class {empty} ({source.class_names[empty]}) has no training image; every class needs some."
        )
    choice = longtail.describe_choice(
        imbalance_ratio=imbalance_ratio, profile=profile, seed=seed, class_order=class_order
    )
    chosen, carve = divide(
        labels,
        imbalance_ratio=imbalance_ratio,
        profile=profile,
        seed=seed,
        class_order=class_order,
        validation_fraction=validation_fraction if held_out is None else 0.0,
        validation_floor=validation_floor,
        validation_cap=validation_cap,
    )
    rows = source.rows_of(chosen, choice)
    train, validation = chosen[carve.train], chosen[carve.validation]
    training = Examples(take(source.images, rows[carve.train]), labels[train], train)
    if held_out is None:
        validating = Examples(take(source.images, rows[carve.validation]), labels[validation], validation)
    else:
        validation = np.argsort(held_out.labels, kind="stable")
        validating = Examples(take(held_out.images, validation), held_out.labels[validation], validation)
    return RunData(
        training=training,
        validation=validating,
        class_names=source.class_names,
        fingerprints={
            "chosen": longtail.fingerprint(chosen),
            "train": longtail.fingerprint(train),
            "validation": longtail.fingerprint(validation),
            # Positions in a list do not say which images they were: a folder's files may change under the same names.
            "pixels": identity.digest([training.images, validating.images], [training.labels, validating.labels]),
            # The whole split, whose order is only the user's.
            **({"images": source.fingerprint} if source.name in sources.OWN else {}),
            **(identity.of_names(source.class_names) if source.name == "image_list" else {}),
            **contents([training.images, validating.images]),
        },
        notes=source.notes
        + (held_out.notes if held_out else ())
        + _notes_on_validation(source.class_names, validating.labels),
        claim=source.claim,
        files=source.files,
        names=source.names,
        listed=held_out is not None,
    )


def divide(
    labels: np.ndarray,
    *,
    imbalance_ratio: float,
    profile: str,
    seed: int,
    validation_fraction: float,
    validation_floor: int,
    validation_cap: float,
    class_order: str = "",
) -> tuple[np.ndarray, longtail.Carve]:
    """Positions of the long-tailed list in a complete training split, and the two parts of that list.

    Raises:
      ValueError: see `longtail.choose` and `longtail.carve_validation`; a validation part that is asked for and empty.
    """
    chosen = longtail.choose(
        labels, imbalance_ratio=imbalance_ratio, profile=profile, seed=seed, class_order=class_order
    )
    carve = longtail.carve_validation(
        labels[chosen], fraction=validation_fraction, floor=validation_floor, cap=validation_cap
    )
    if len(carve.validation) == 0 and validation_fraction > 0:
        raise ValueError(
            f"data.validation_fraction is {validation_fraction}, but with data.validation_cap {validation_cap} no "
            "class has an image to spare; raise the cap, or set the fraction to 0 to train without a validation part."
        )
    return chosen, carve


def _notes_on_validation(names: tuple[str, ...], validation_labels: np.ndarray) -> tuple[str, ...]:
    """A note where a validation part misses classes, and one where it holds few images of some."""
    if len(validation_labels) == 0:
        return ()
    counts, notes = np.bincount(validation_labels, minlength=len(names)), []
    if len(unseen := np.flatnonzero(counts == 0)):
        listed = ", ".join(names[number] for number in unseen)
        notes.append(
            f"no validation image of {len(unseen)} of {len(names)} classes, which selection does not see: {listed}"
        )
        logging.warning("%s; raise data.validation_cap to hold out some.", notes[-1])
    if len(few := np.flatnonzero((counts > 0) & (counts < _FEW))):
        rarest = few[np.argsort(counts[few], kind="stable")]
        listed = ", ".join(f"{names[number]} has {counts[number]}" for number in rarest[:_NAMED])
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        notes.append(f"fewer than {_FEW} validation images of {len(few)} of {len(names)} classes: {listed}{more}")
        logging.warning("%s; their validation accuracy is rough.", notes[-1])
    return tuple(notes)


def first_of_each_class(labels: np.ndarray, limit: int) -> np.ndarray:
    """Positions of the first `limit` images of every class, ascending; all of them for `limit=0`.

    Raises:
      ValueError: negative limit.
    """
    if limit < 0:
        raise ValueError(f"eval.limit is {limit}; give a number of images per class, or 0 for the whole test set.")
    if limit == 0:
        return np.arange(len(labels))
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:limit] for label in np.unique(labels)]))


def other_images(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The parts of `RunData.fingerprints` that both runs' data have and in which they differ, `train` first."""
    return [part for part in ("train", *sorted(there.keys() & here.keys())) if there[part] != here[part]]


def describe(run_data: RunData) -> dict[str, Any]:
    """Description of the split in a checkpoint."""
    return {
        "image_shape": list(run_data.image_shape),
        "class_counts": run_data.class_counts.tolist(),
        "validation_counts": run_data.validation_counts.tolist(),
        "fingerprints": run_data.fingerprints,
        "notes": list(run_data.notes),
        "claim": run_data.claim,
    }
