"""What `ltrobust evaluate --weights` does: a file of weights, evaluated like the network of a run."""

import dataclasses
import time
import warnings
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ltrobust import run as runs
from ltrobust.analysis import cards
from ltrobust.methods import DecisionRule
from ltrobust.models import Head, torch_files, torch_parity, torch_weights
from ltrobust.models.model_plan import ModelPlan
from ltrobust.plan import make_plan
from ltrobust.runtime import processes
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.preemption import Preemption
from ltrobust.training import compatibility, devices
from ltrobust.training.networks import Network
from ltrobust.training.state import Weights
from ltrobust.training.teacher_student import Trained


def evaluate(
    config: ConfigDict,
    workdir: Path,
    preemption: Preemption | None = None,
    *,
    weights: str,
    key: str = "",
    adopt: bool = False,
) -> Path:
    """Evaluates a file of weights as the network `config.model` and writes a card. Returns the card's path.

    The same call resumes an evaluation that was interrupted. All processes call it.

    Args:
      config: names the network, the data, the threat and the protocol. Its phases do not matter.
      workdir: folder of the card and the verdicts.
      preemption: not used; verdicts are on disk as they come.
      weights: the file, .safetensors or PyTorch's; `FILE::KEY` for `key`.
      key: which of several sets of weights in it.
      adopt: as in `run.train`.

    Raises:
      ValueError: a file that cannot be read or is not of this network, or a workdir of another configuration.
      FileNotFoundError: there is no such file.
    """
    del preemption
    began, plan = time.monotonic(), make_plan(config, workdir, training=False)
    mesh, (path, key) = devices.make_mesh(), torch_files.file_and_choice(weights, key)
    with processes.all_or_none():
        if not path.is_file():
            raise FileNotFoundError(f"--weights is {weights!r}, but there is no such file.")
        data = runs.load_run_data(plan.data)
        result = _read(path, key, plan.model, data.num_classes, data.image_shape)
        digest = cards.digest_file(path)
    compatibility.same_start({**plan.recorded, "weights": digest}, data)
    with processes.all_or_none():
        if processes.first():
            workdirs.claim(workdir, plan.recorded, adopt=adopt)
    stem = torch_files.label(path, key, digest)
    # What the configuration's method does to logits is not in the file: files of such networks are not exported.
    network = Network(devices.replicate(result, mesh), Head(), DecisionRule())
    settings = {**plan.recorded, "weights": {"file": path.name, "key": key, "sha256": digest}}
    settings["eval"] = {**settings["eval"], "networks": []}
    plan = dataclasses.replace(plan, evaluation=dataclasses.replace(plan.evaluation, networks=()))
    name = f"{plan.evaluation.protocol.name}-{stem}"
    return runs.write_card(plan, settings, name, Trained({f"file/{stem}": network}, {}, data, mesh), began)


def _read(path: Path, key: str, model: ModelPlan, num_classes: int, image_shape: tuple[int, ...]) -> Weights:
    """The weights in a file as those of a network; warns of what names and shapes leave open."""
    tensors: Any = torch_weights.read(torch_files.with_choice(path, key))
    sizes = {"width": model.width, "depth": model.depth} if model.name == "small_resnet" else {}
    try:
        params, batch_stats = torch_weights.from_torch(tensors, model.name, num_classes=num_classes, **sizes)
    except ValueError as error:
        raise ValueError(f"{path.name}, read as config.model.name={model.name}: {error}") from error
    channels = params["stem"]["kernel"].shape[2]
    if channels != image_shape[-1]:
        raise ValueError(f"{path.name} takes images of {channels} channels; the data have {image_shape[-1]}.")
    torchvision = any(".downsample." in name for name in tensors)
    for doubt in torch_parity.doubts(model.name, image_shape, torchvision=torchvision):
        warnings.warn(f"{path.name}: {doubt}. Compare the clean accuracy with the published one.", stacklevel=2)
    return Weights(params, batch_stats)
