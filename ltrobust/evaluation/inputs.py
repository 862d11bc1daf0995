"""Checks of an evaluation's inputs: images, labels, ids and numbers."""

import os
from typing import Any

import numpy as np

from ltrobust.attacks import ball
from ltrobust.attacks.inputs import check_labels, ids_of
from ltrobust.data.images import Images, as_images
from ltrobust.threat import Threat


def check_inputs(images: Any, labels: Any, num_classes: int, threat: Threat) -> tuple[Images, np.ndarray]:
    """Host arrays of the right kind; images in files stay there.

    Raises:
      ValueError: images or labels of a wrong type, shape or range, or fewer than two classes.
    """
    images, labels = as_images(images), np.asarray(labels)
    ball.check_shape(images.shape)
    if not isinstance(images, np.ndarray):
        pass  # what is decoded from files is in range
    elif images.dtype != np.uint8:
        ball.check_images(images, threat)
    elif images.size and images.max() == 1:
        raise ValueError("images are uint8, but none is above 1 of 255. Give pixels in [0,1] as float32.")
    check_labels(labels, len(images), num_classes)
    return images, labels.astype(np.int64)


def check_numbers(batch_size: Any, seed: Any) -> None:
    """Refuses an invalid batch size or seed.

    Raises:
      ValueError: not an integer (booleans are none), a batch below 1, or a seed outside of [0, 2^31).
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; it must be an integer of at least 1.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 31:
        raise ValueError(f"seed is {seed!r}; it must be an integer from 0 to 2^31 - 1.")


def check_store(store: Any, **switches: Any) -> None:
    """Refuses a store that is not a path, and switches that are no booleans: any text would mean True.

    Raises:
      ValueError: names the argument.
    """
    if store is not None and not isinstance(store, str | os.PathLike):
        raise ValueError(f"store is {store!r}; give the path of a folder, or None to keep no verdicts.")
    for name, value in switches.items():
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} is {value!r}; give True or False.")


def check_ids(ids: Any, number: int) -> np.ndarray:
    """Host array of the images' ids, int64 [number]: the keys of draws and of a store's verdicts.

    Raises:
      ValueError: not one integer in [0, 2^32) for each image, or one that occurs twice.
    """
    ids = np.asarray(ids_of(np.asarray(ids), number))
    values, counts = np.unique(ids, return_counts=True)
    if len(values) < number:
        raise ValueError(f"id {values[counts > 1][0]} occurs twice; every image needs a unique id.")
    return ids.astype(np.int64)
