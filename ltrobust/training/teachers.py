"""External teachers: the networks of `config.teachers`, from checkpoints of this package or from PyTorch files."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltrobust import models
from ltrobust.methods import Teacher
from ltrobust.models import torch_parity, torch_weights
from ltrobust.plan import TeacherPlan
from ltrobust.training import saved
from ltrobust.training.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class Known:
    """A teacher, and its origin as recorded in checkpoints and on cards."""

    teacher: Teacher
    about: dict[str, Any]


def load(
    plans: Mapping[str, TeacherPlan],
    *,
    dtype: str,
    num_classes: int,
    image_shape: tuple[int, ...],
    platform: str | None = None,
) -> dict[str, Known]:
    """Loads the external teachers, and checks them against the student's classes and images.

    They are for programs that are compiled for `platform` (`models.create`); those of PyTorch files compute in `dtype`.

    Raises:
      ValueError: a path that does not exist, weights that are not there, another number of classes, another image
        shape, or a PyTorch file that does not fit its architecture; each names the configuration's key.
    """
    result = {}
    for name, plan in plans.items():
        key = f"teachers.{name}"
        if torch_weights.file_and_choice(plan.path)[0].is_file():
            result[name] = _from_file(key, plan, dtype, num_classes, image_shape, platform)
        else:
            result[name] = from_checkpoints(
                plan.path,
                plan.weights,
                label=f"{key}.path",
                weights_label=f"{key}.weights",
                or_file=True,
                num_classes=num_classes,
                image_shape=image_shape,
                platform=platform,
            )
    return result


def from_checkpoints(
    path: str,
    weights: str,
    *,
    label: str = "path",
    weights_label: str = "weights",
    or_file: bool = False,
    num_classes: int,
    image_shape: tuple[int, ...],
    exact: bool = False,
    platform: str | None = None,
) -> Known:
    """The network of a workdir (its student) or of a phase's folder of checkpoints, as it was configured there.

    Args:
      path: of the folder.
      weights: `last`, `selected` or `averaged`.
      label, weights_label: what the errors call these two, such as the flags or the keys that hold them.
      or_file: whether the path could have been a PyTorch file's, which errors then say.
      num_classes: of the data it is meant for.
      image_shape: height, width and channels of those data.
      exact: whether it computes in float32, whatever its configuration says.
      platform: for which its programs are compiled (`models.create`).

    Raises:
      ValueError: as for `load`.
    """
    folder = saved.find(path, label, or_file=or_file)
    with Checkpoints(folder, read_only=True) as checkpoints:
        there = saved.read(checkpoints)
        if there.num_classes != num_classes:
            raise ValueError(f"{label} ({folder}) has {there.num_classes} classes; the data here have {num_classes}.")
        shape = there.metadata.image_shape
        if shape != tuple(image_shape):
            raise ValueError(
                f"{label} ({folder}) was trained on images of shape {list(shape)}; here they are {list(image_shape)}."
            )
        module = there.create(exact=exact, platform=platform)
        restored = saved.restore(checkpoints, module, image_shape)
    if weights not in restored:
        raise ValueError(f"{weights_label} is {weights!r}, but {folder} has {', '.join(restored)} only.")
    chosen = restored[weights]
    described = {
        "from": "checkpoint",
        "path": Path(path).name,
        "phase": there.phase,
        "step": there.step,
        "weights": weights,
        "method": there.method.name,
        "model": there.model.name,
    }
    return Known(Teacher(module, chosen.params, chosen.batch_stats, there.rule), described)


def _from_file(
    key: str, plan: TeacherPlan, dtype: str, num_classes: int, image_shape: tuple[int, ...], platform: str | None
) -> Known:
    """The network of a PyTorch file, whose architecture the configuration names."""
    if not plan.architecture:
        raise ValueError(f"{key}.architecture is empty; name the network that {Path(plan.path).name} holds.")
    module = models.create(
        plan.architecture, num_classes=num_classes, dtype=dtype, activation=plan.activation, platform=platform
    )
    tensors, result = torch_weights.split_normalisation(torch_weights.read(plan.path))
    try:
        params, batch_stats = torch_weights.from_torch(tensors, plan.architecture, num_classes=num_classes)
    except ValueError as error:
        raise ValueError(f"{key}: {Path(plan.path).name} does not fit {plan.architecture}: {error}") from error
    channels = params["stem"]["kernel"].shape[2]
    if channels != image_shape[-1]:
        raise ValueError(f"{key} takes images of {channels} channels; here they have {image_shape[-1]}.")
    mean, std = _normalisation(key, plan, result, channels)
    torchvision = any(".downsample." in name for name in tensors)
    known = {"torchvision": torchvision, "normalised": bool(mean)}
    for doubt in torch_parity.doubts(plan.architecture, image_shape, **known):
        warnings.warn(f"{key}: {doubt}. Compare the clean accuracy with the published one.", stacklevel=2)
    described = {
        "from": "file",
        "path": Path(plan.path).name,
        "model": plan.architecture,
        "activation": plan.activation,
        "mean": list(mean),
        "std": list(std),
    }
    return Known(Teacher(module, params, batch_stats, mean=mean, std=std), described)


def _normalisation(
    key: str, plan: TeacherPlan, found: Any, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, from the file or else from the configuration; empty for none."""
    given = (tuple(plan.mean), tuple(plan.std))
    for mean, std in (given, found or given):
        if len(mean) != len(std) or len(mean) not in (0, channels) or any(not value > 0 for value in std):
            raise ValueError(
                f"{key} normalises by mean {mean} and std {std}; needed are {channels} numbers each, std above 0."
            )
    if found and given[0] and not np.allclose(np.array(given), np.array(found), rtol=1e-3):
        raise ValueError(f"{key}.mean and std are {given}, but the file says {found}; leave them empty.")
    return found or given
