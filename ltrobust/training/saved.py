"""A phase's network as its newest checkpoint describes it, and its weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from ltrobust import models
from ltrobust.methods import DecisionRule, Method, decision_rule
from ltrobust.models.model_plan import ModelPlan, make_model_plan
from ltrobust.plan import make_method
from ltrobust.training import devices
from ltrobust.training.checkpoints import Checkpoints, check_phase, folder_in
from ltrobust.training.state import Weights


@dataclasses.dataclass(frozen=True)
class Saved:
    """The newest checkpoint of a phase.

    Attributes:
      step: finished updates.
      about: its JSON part, with the configuration and the data that it was trained with.
      model: its network, as it was configured.
      method: by which it was trained.
    """

    step: int
    about: Mapping[str, Any]
    model: ModelPlan
    method: Method

    @property
    def phase(self) -> str:
        """`teacher` or `student`."""
        return self.about["phase"]

    @property
    def class_counts(self) -> np.ndarray:
        """Images per class that the phase trained on, int64 [C]."""
        return np.array(self.about["examples"]["class_counts"])

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_counts)

    @property
    def rule(self) -> DecisionRule:
        """How the network's outputs become logits."""
        return decision_rule(self.method, self.class_counts)

    def create(self, *, exact: bool = False, platform: str | None = None) -> nn.Module:
        """The network; with `exact` it computes in float32. `platform` as for `models.create`."""
        return self.model.create(self.num_classes, head=self.method.head, exact=exact, platform=platform)


def find(path: str, label: str, *, or_file: bool = False) -> epath.Path:
    """The folder of checkpoints that a path means: a workdir's student's, or itself.

    Args:
      path: of the folder.
      label: what the error calls the path, such as the flag or the key that holds it.
      or_file: whether that may also be a PyTorch file.

    Raises:
      ValueError: there is none.
    """
    folder = folder_in(path)
    if folder is None:
        folders = "a workdir or a phase's folder of checkpoints"
        files = ", or a PyTorch file" if or_file else ""
        raise ValueError(f"{label} is {path!r}, which does not exist; give {folders}{files}.")
    return folder


def read(checkpoints: Checkpoints, folder: epath.Path, phase: str = "") -> Saved:
    """What the newest checkpoint in the folder says of itself.

    Raises:
      FileNotFoundError: there is no complete checkpoint.
      ValueError: it is of another phase than `phase`, or than its folder; or its method cannot be made here.
    """
    about = checkpoints.about()
    check_phase(about, folder, phase)
    config = about["config"]
    method = make_method(config, about["phase"])
    return Saved(checkpoints.latest() or 0, about, make_model_plan(config["model"]), method)


def restore(
    checkpoints: Checkpoints, module: nn.Module, image_shape: tuple[int, ...], mesh: Mesh | None = None
) -> dict[str, Weights]:
    """The newest checkpoint's weights by name: `last`, `selected` and `averaged`, as far as they are there.

    Args:
      module: the network.
      image_shape: height, width and channels.
      mesh: on whose devices they are replicated; None for the default device.
    """
    shapes = jax.eval_shape(lambda key: models.initialise(module, key, image_shape), jax.random.key(0))
    template = Weights(*jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    return checkpoints.restore_weights(template if mesh is None else devices.replicate(template, mesh))
