"""Teachers from elsewhere: the networks of `config.teachers`, from checkpoints of ours or from PyTorch files."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ltrobust import models
from ltrobust.methods import Teacher, decision_rule
from ltrobust.models import torch_parity, torch_weights
from ltrobust.runtime.names import nearest
from ltrobust.training import phases
from ltrobust.training.checkpoints import Checkpoints, check_phase, folder_in
from ltrobust.training.state import Weights

WEIGHTS = ("last", "selected", "averaged")


@dataclasses.dataclass(frozen=True)
class Known:
    """A teacher, and what checkpoints and cards say of where it comes from."""

    teacher: Teacher
    about: dict[str, Any]


def outside(config: Any) -> list[str]:
    """Names of the teachers that come from elsewhere."""
    return [name for name, entry in config.teachers.items() if entry.path]


def load(
    config: Any,
    names: Sequence[str],
    *,
    num_classes: int,
    image_shape: tuple[int, ...],
    platform: str | None = None,
) -> dict[str, Known]:
    """The named teachers, checked against the classes and the images that they are to teach.

    They are for programs that are compiled for `platform` (`models.create`).

    Raises:
      ValueError: a path that does not exist, weights that are unknown or not there, another number of classes, another
        image shape, or a PyTorch file that does not fit its architecture; each names the configuration's key.
    """
    found = {}
    for name in names:
        entry, key = config.teachers[name], f"teachers.{name}"
        if entry.weights not in WEIGHTS:
            raise ValueError(
                f"{key}.weights is {entry.weights!r}; {nearest(entry.weights, WEIGHTS)}known: {', '.join(WEIGHTS)}."
            )
        if torch_weights.file_and_choice(entry.path)[0].is_file():
            found[name] = _from_file(key, entry, config.model.dtype, num_classes, image_shape, platform)
        else:
            found[name] = from_checkpoints(
                entry.path,
                entry.weights,
                key=key,
                num_classes=num_classes,
                image_shape=image_shape,
                platform=platform,
            )
    return found


def about_of(path: str, *, key: str) -> tuple[epath.Path, dict[str, Any]]:
    """The folder of checkpoints that a path means, and what its newest one says of itself.

    Raises:
      ValueError: there is none, or it is of another phase than its folder; `key` is what the error calls it.
    """
    folder = folder_in(path)
    if folder is None:
        raise ValueError(
            f"{key}.path is {path!r}, which does not exist; give a workdir, a phase's folder of checkpoints, or a "
            "PyTorch file."
        )
    with Checkpoints(folder, read_only=True) as checkpoints:
        about = checkpoints.about()
    check_phase(about, folder)
    return folder, about


def from_checkpoints(
    path: str,
    weights: str,
    *,
    key: str,
    num_classes: int,
    image_shape: tuple[int, ...],
    exact: bool = False,
    platform: str | None = None,
) -> Known:
    """The network of a workdir (its student) or of a phase's folder of checkpoints, as it was configured there.

    Args:
      path: of the folder.
      weights: `last`, `selected` or `averaged`.
      key: what the errors call it.
      num_classes: of the data it is meant for.
      image_shape: height, width and channels of those data.
      exact: whether it computes in float32, whatever its configuration says.
      platform: for which its programs are compiled (`models.create`).

    Raises:
      ValueError: as for `load`.
    """
    folder, about = about_of(path, key=key)
    counts = np.array(about["examples"]["class_counts"])
    if len(counts) != num_classes:
        raise ValueError(f"{key} ({folder}) has {len(counts)} classes; the data here have {num_classes}.")
    there, here = about["data"].get("image_shape", list(image_shape)), list(image_shape)
    if there != here:
        raise ValueError(f"{key} ({folder}) was trained on images of shape {there}; here they are {here}.")
    config: Any = ConfigDict(about["config"])
    method = phases.make_method(config, about["phase"])
    module = phases.make_module(config, len(counts), head=method.head, exact=exact, platform=platform)
    with Checkpoints(folder, read_only=True) as checkpoints:
        restored = checkpoints.restore_weights(template(module, image_shape))
        step = checkpoints.latest()
    if weights not in restored:
        raise ValueError(f"{key}.weights is {weights!r}, but {folder} has {', '.join(restored)} only.")
    chosen = restored[weights]
    described = {
        "from": "checkpoint",
        "path": Path(path).name,
        "phase": about["phase"],
        "step": step,
        "weights": weights,
        "method": method.name,
        "model": config.model.name,
    }
    teacher = Teacher(module, chosen.params, chosen.batch_stats, decision_rule(method, counts))
    return Known(teacher, described)


def template(module: Any, image_shape: tuple[int, ...]) -> Weights:
    """Weights of the module's shapes, for a restoration; no draw is compiled."""
    shapes = jax.eval_shape(lambda key: models.initialise(module, key, image_shape), jax.random.key(0))  # pyright: ignore
    return Weights(*jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))


def _from_file(
    key: str, entry: Any, dtype: str, num_classes: int, image_shape: tuple[int, ...], platform: str | None
) -> Known:
    """The network of a PyTorch file, whose architecture the configuration names."""
    if not entry.architecture:
        raise ValueError(f"{key}.architecture is empty; name the network that {Path(entry.path).name} holds.")
    module = models.create(
        entry.architecture, num_classes=num_classes, dtype=dtype, activation=entry.activation, platform=platform
    )
    tensors, found = torch_weights.split_normalisation(torch_weights.read(entry.path))
    try:
        params, batch_stats = torch_weights.from_torch(tensors, entry.architecture, num_classes=num_classes)
    except ValueError as error:
        raise ValueError(f"{key}: {Path(entry.path).name} does not fit {entry.architecture}: {error}") from error
    channels = params["stem"]["kernel"].shape[2]
    if channels != image_shape[-1]:
        raise ValueError(f"{key} takes images of {channels} channels; here they have {image_shape[-1]}.")
    mean, std = _normalisation(key, entry, found, channels)
    torchvision = any(".downsample." in name for name in tensors)
    for doubt in torch_parity.doubts(entry.architecture, image_shape, torchvision=torchvision):
        warnings.warn(f"{key}: {doubt}. Compare the clean accuracy with the published one.", stacklevel=2)
    described = {
        "from": "file",
        "path": Path(entry.path).name,
        "model": entry.architecture,
        "activation": entry.activation,
        "mean": list(mean),
        "std": list(std),
    }
    return Known(Teacher(module, params, batch_stats, mean=mean, std=std), described)


def _normalisation(key: str, entry: Any, found: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, from the file or else from the configuration; empty for none."""
    given = (tuple(entry.mean), tuple(entry.std))
    for mean, std in (given, found or given):
        if len(mean) != len(std) or len(mean) not in (0, channels) or any(not value > 0 for value in std):
            raise ValueError(
                f"{key} normalises by mean {mean} and std {std}; needed are {channels} numbers each, std above 0."
            )
    if found and given[0] and not np.allclose(np.array(given), np.array(found), rtol=1e-3):
        raise ValueError(f"{key}.mean and std are {given}, but the file says {found}; leave them empty.")
    return found or given
