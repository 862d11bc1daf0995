"""The network and the weights of a phase's newest checkpoint."""

import dataclasses
from pathlib import Path

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
from ltrobust.runtime import logs
from ltrobust.runtime.files import read_json
from ltrobust.runtime.workdir import PHASES, checkpoint_dir
from ltrobust.training import answers, devices
from ltrobust.training.checkpoints import Checkpoints, folder_in
from ltrobust.training.metadata import Metadata
from ltrobust.training.metadata import read as read_metadata
from ltrobust.training.state import Weights


@dataclasses.dataclass(frozen=True)
class Saved:
    """The newest checkpoint of a phase.

    Attributes:
      step: finished updates.
      metadata: what it says of itself, with the configuration and the data that it was trained with.
      model: its network, as it was configured.
      method: by which it was trained.
    """

    step: int
    metadata: Metadata
    model: ModelPlan
    method: Method

    @property
    def phase(self) -> str:
        """`teacher` or `student`."""
        return self.metadata.phase

    @property
    def class_counts(self) -> np.ndarray:
        """Images per class that the phase trained on, int64 [C]."""
        return np.array(self.metadata.examples.class_counts)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_counts)

    @property
    def rule(self) -> DecisionRule:
        """How the network's outputs become logits."""
        return decision_rule(self.method, self.class_counts)

    def check_code(self) -> None:
        """Refuses a network whose code in this process differs from the code that was trained.

        Raises:
          ValueError: it gives other logits with the same weights.
        """
        if there := self.metadata.answers:
            shape = self.metadata.image_shape
            answers.check(self.model.name, there, answers.take(self.model, self.num_classes, self.method.head, shape))

    def create(self, *, exact: bool = False, platform: str | None = None) -> nn.Module:
        """The network; with `exact` it computes in float32. `platform` as for `models.create`.

        Raises:
          ValueError: as `check_code`.
        """
        self.check_code()
        return self.model.create(self.num_classes, head=self.method.head, exact=exact, platform=platform)


@dataclasses.dataclass(frozen=True)
class Restored:
    """A network of a run.

    Attributes:
      saved: the checkpoint that it was restored from.
      module: the network.
      weights: its parameters and running statistics.
    """

    saved: Saved
    module: nn.Module
    weights: Weights


def open_network(workdir: Path, network: str, *, exact: bool = True) -> Restored:
    """A network of a run, from the newest checkpoint of its phase.

    Args:
      workdir: folder of the run.
      network: `PHASE/WEIGHTS`, such as `student/last`.
      exact: whether it computes in float32, whatever its configuration says.

    Raises:
      ValueError: no such network, or code that is not known here or not that which was trained.
      FileNotFoundError: there is no complete checkpoint.
    """
    phase, _, weights = network.partition("/")
    if phase not in PHASES:
        raise ValueError(f"network is {network!r}; give PHASE/WEIGHTS, such as student/last or teacher/last.")
    there = read_json(workdir / "config.json").get("checkpoint", {}).get("dir", "")
    folder = epath.Path(checkpoint_dir(workdir, there) or workdir / "checkpoints") / phase
    if not folder.is_dir():
        raise ValueError(f"{workdir} has no network {network!r}: there are no checkpoints in {folder}.")
    with logs.quiet(), Checkpoints(folder, read_only=True) as checkpoints:
        result = read(checkpoints, phase)
        module = result.create(exact=exact)
        restored = restore(checkpoints, module, result.metadata.image_shape)
    if weights not in restored:
        known = ", ".join(f"{phase}/{name}" for name in restored)
        raise ValueError(f"{workdir} has no network {network!r}; its checkpoint holds {known}.")
    return Restored(result, module, restored[weights])


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


def read(checkpoints: Checkpoints, phase: str = "") -> Saved:
    """Reads the metadata of the newest checkpoint, with its network and its method.

    Raises:
      FileNotFoundError: there is no complete checkpoint.
      ValueError: as `metadata.read`; or its method cannot be made here.
    """
    metadata = read_metadata(checkpoints, phase)
    method = make_method(metadata.config, metadata.phase)
    return Saved(checkpoints.latest() or 0, metadata, make_model_plan(metadata.config["model"]), method)


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
