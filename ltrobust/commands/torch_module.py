"""What `ltrobust evaluate --torch` does: a PyTorch module, evaluated like the network of a run."""

import re
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ltrobust import run as runs
from ltrobust.analysis import cards
from ltrobust.data.run_data import first_of_each_class
from ltrobust.methods import DecisionRule
from ltrobust.models import Head, torch_files, torch_modules, torch_source
from ltrobust.plan import make_plan
from ltrobust.runtime import processes
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.preemption import Preemption
from ltrobust.training import compatibility, devices
from ltrobust.training.networks import Network, fingerprints_of
from ltrobust.training.state import Weights
from ltrobust.training.teacher_student import Trained


def evaluate(
    config: ConfigDict,
    workdir: Path,
    preemption: Preemption | None = None,
    *,
    source: str,
    weights: str = "",
    key: str = "",
    adopt: bool = False,
) -> Path:
    """Evaluates a PyTorch module on the configuration's test images and writes a card. Returns the card's path.

    Logits and input gradients are compared with PyTorch's first. The same call resumes an evaluation that was
    interrupted. All processes call it.

    Args:
      config: of the data, the threat and the protocol. Its phases do not matter.
      workdir: folder of the card and the verdicts.
      preemption: not used; verdicts are on disk as they come.
      source: the function that returns the module, as in `torch_source.build`.
      weights: the file of its weights, or `FILE::KEY`; empty for those that the function gives it.
      key: which of several sets of weights in the file.
      adopt: as in `run.train`.

    Raises:
      ValueError: a module or file that cannot be used, another number of classes than the data's, or a workdir of
        another network or configuration.
      OSError: there is no such file.
    """
    del preemption
    file, key = torch_files.file_and_choice(weights, key) if weights else (None, key)
    began, changed = time.monotonic(), _without_network(config, source)
    plan, mesh = make_plan(changed, workdir, training=False), devices.make_mesh()
    with processes.all_or_none():
        module = torch_source.build(source)
        if file:
            torch_source.load(module, torch_files.with_choice(file, key))
        data = runs.load_run_data(plan.data)
    test = runs.open_test(plan.data, data)
    rows = first_of_each_class(test.split.labels, plan.evaluation.limit)
    with processes.all_or_none():
        network = _translate(module, test.split.images[rows[:8]], data.num_classes)
    weights_here = _split(network)
    fingerprints = fingerprints_of(weights_here)
    compatibility.same_start({**plan.recorded, **fingerprints}, data)
    with processes.all_or_none():
        if processes.first():
            workdirs.claim(workdir, plan.recorded, adopt=adopt)
    name = _name(source, file, key)
    settings = {**plan.recorded, "weights": {"file": file.name if file else "", "key": key, **fingerprints}}
    evaluated = Network(
        devices.replicate(weights_here, mesh),
        Head(),
        DecisionRule(),
        lambda variables, images: network.apply({**variables.params, **variables.batch_stats}, images),
    )
    trained = Trained({f"torch/{name}": evaluated}, {}, data, mesh)
    return runs.write_card(plan, settings, f"{plan.evaluation.protocol.name}-{name}", trained, began, test)


def _without_network(config: ConfigDict, source: str) -> ConfigDict:
    """The configuration with the module in place of its network."""
    changed: Any = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.model.name, changed.model.dtype, changed.eval.networks = recorded_name(source), "float32", ()
    return changed


def recorded_name(source: str) -> str:
    """The module's name in records: of a file its name without folders, and the beginning of its digest."""
    place, _, call = source.partition(":")
    if place.endswith(".py") and (file := Path(place)).is_file():
        place = f"{file.name}@{cards.digest_file(file)[:8]}"
    return f"torch:{place}:{call}" if call else f"torch:{place}"


def _translate(module: Any, images: Any, num_classes: int) -> torch_modules.TorchNetwork:
    """The module in JAX, compared with PyTorch; prints the differences."""
    network = torch_modules.from_torch(module)
    result = network.compare(images)
    if processes.first():
        print(f"{type(network.module).__name__}: {result}", flush=True)
    outputs = jax.eval_shape(network, jax.ShapeDtypeStruct((1, *images.shape[1:]), "float32")).shape[1]
    if outputs != num_classes:
        raise ValueError(
            f"{type(network.module).__name__} gives {outputs} logits; the data have {num_classes} classes. Give the "
            f"function its number of classes, such as --torch='...(num_classes={num_classes})'."
        )
    return network


def _split(network: torch_modules.TorchNetwork) -> Weights:
    """Parameters, and everything else that logits depend on."""
    names = {f"0.{name}" for name, _ in network.module.named_parameters()}  # torchax sees the module in a container
    params = {name: array for name, array in network.weights.items() if name in names}
    return Weights(params, {name: array for name, array in network.weights.items() if name not in names})


def _name(source: str, file: Path | None, key: str) -> str:
    """The network's name: the file of its weights with the digest's beginning, or the function."""
    if file:
        return torch_files.label(file, key, cards.digest_file(file))
    return re.sub(r"[^\w.+-]+", "-", source.partition(":")[2].partition("(")[0])
