"""Initial weights of a phase from another run's checkpoint; optimiser and schedule start from the beginning."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from ltrobust.data.run_data import RunData, other_images
from ltrobust.models.model_plan import ModelPlan
from ltrobust.plan import RunPlan
from ltrobust.runtime import processes
from ltrobust.training import saved
from ltrobust.training.checkpoints import Checkpoints, folder_in
from ltrobust.training.phases import Phase
from ltrobust.training.saved import Saved
from ltrobust.training.state import Weights

# Values of `initialize` that are no path.
INITIAL = ("scratch", "teacher")


@dataclasses.dataclass(frozen=True)
class Initial:
    """Initial weights, and their origin as recorded in checkpoints and on cards."""

    weights: Weights
    about: dict[str, Any]


def load(plan: RunPlan, planned: Mapping[str, Phase], run_data: RunData) -> dict[str, Initial]:
    """Phase -> its first weights, for phases whose `initialize` is a path and that have no checkpoint yet.

    Prints where each of them starts and with what schedule.

    Raises:
      ValueError: a path that does not exist, or a network of another model, head or number of classes.
    """
    # Process 0 decides for all: the others may not see its folder, which is noticed later.
    begun = processes.share({name: any((plan.checkpoints.folder / name).glob("[0-9]*")) for name in planned})
    result = {}
    for phase in plan.phases:
        name = phase.name
        if phase.initialize in INITIAL or begun[name]:
            continue
        result[name] = _from_checkpoint(phase.initialize, plan.model, planned[name], run_data)
        if processes.first():
            print(f"{name}: starts from {describe(result[name].about)}")
    return result


def describe(about: Mapping[str, Any]) -> str:
    """Origin of a phase's initial weights and its schedule, in a sentence."""
    return (
        f"{about['phase']}/{about['weights']} of {about['path']} (step {about['step']}, {about['method']}), with a "
        f"fresh optimiser; {about['schedule']}"
    )


def describe_schedule(phase: Phase) -> str:
    """Length and learning rates of a phase: at most five rates with their first epochs, else the first and the last."""
    epochs = phase.settings.epochs
    steps = jnp.asarray([phase.schedule.first_step(epoch) for epoch in range(epochs)])
    rates = [float(f"{rate:.6g}") for rate in np.asarray(jax.vmap(phase.learning_rate)(steps))]
    changes = [epoch for epoch in range(epochs) if epoch == 0 or rates[epoch] != rates[epoch - 1]]
    if len(changes) <= 5:
        rates_text = ", ".join(f"{rates[epoch]:g} from epoch {epoch + 1}" for epoch in changes)
    else:
        rates_text = f"{rates[0]:g} in epoch 1 to {rates[-1]:g} in the last"
    return f"{epochs} epoch{'s' * (epochs > 1)} ({phase.total_steps} steps), learning rate {rates_text}"


def _from_checkpoint(path: str, model: ModelPlan, phase: Phase, run_data: RunData) -> Initial:
    """The last weights of the checkpoint that `<phase>.initialize` names, checked against the phase."""
    key = f"{phase.name}.initialize"
    folder = folder_in(path)
    if folder is None:
        raise ValueError(
            f"{key} is {path!r}, and there is no such folder; give scratch, teacher, a workdir (its student), or a "
            "phase's folder of checkpoints."
        )
    with Checkpoints(folder, read_only=True) as checkpoints:
        if checkpoints.latest() is None:
            raise ValueError(f"{key} is {path!r}, and {folder} has no checkpoint; give a run that has trained.")
        there = saved.read(checkpoints)
        _check_model(there, model, key, folder, run_data)
        if there.method.head != phase.settings.method.head:
            raise ValueError(
                f"{key} ({folder}) is of {there.method.name}, whose head is not that of {phase.name}.method."
            )
        there.check_code()
        weights = saved.restore(checkpoints, phase.settings.module, run_data.image_shape)["last"]
    same_images = not other_images(there.metadata.fingerprints, run_data.fingerprints)
    if not same_images:
        logging.warning(
            "%s (%s) was trained on other images than this run's; they may be among the validation images here.",
            *(key, folder),
        )
    described = {
        "from": "checkpoint",
        "path": run_of(path),
        "phase": there.phase,
        "weights": "last",
        "step": there.step,
        "method": there.method.name,
        "same_images": same_images,
        "schedule": describe_schedule(phase),
    }
    return Initial(weights, described)


def run_of(path: str) -> str:
    """The name of a run's workdir, whose path may end in `checkpoints/PHASE`."""
    *_, run, folder, phase = "", "", *Path(path).parts
    return run if folder == "checkpoints" and run else phase


def _check_model(there: Saved, model: ModelPlan, key: str, folder: epath.Path, run_data: RunData) -> None:
    """Refuses a checkpoint of another architecture or number of classes."""
    classes = there.num_classes
    if classes != run_data.num_classes:
        raise ValueError(f"{key} ({folder}) has {classes} classes; the data here have {run_data.num_classes}.")
    free = ("dtype", "sync_batch_norm")  # of how it is computed, not of what is stored
    recorded = there.metadata.config["model"]
    for setting, here in model.describe().items():
        if setting not in free and recorded.get(setting) != here:
            raise ValueError(
                f"{key} ({folder}) has model.{setting} {recorded.get(setting)!r}; here it is {here!r}. Give "
                "the value of that run."
            )
