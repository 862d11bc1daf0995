"""What a training step costs by arithmetic: FLOPs from layer shapes, passes of each method, bytes, and XLA's own count.

A multiplication with its addition is two FLOPs. Padding counts as in the literature (0.555 GMAC for ResNet-18), so a
3x3 convolution over a 4x4 image costs as much as its 16 x 9 taps, although XLA's own count leaves out the taps that
fall on padding. Batch norm, activations and losses are not counted.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltrobust import models
from ltrobust.models import external
from ltrobust.models.cpu import winograd


@dataclasses.dataclass(frozen=True)
class Network:
    """One forward pass of one image, from shapes.

    Attributes:
      forward: FLOPs of all convolutions and matrix products.
      stem: those of the layer that sees the image; a training pass needs no gradient there.
      activations: numbers that these layers put out.
      parameters: numbers that are trained.
      statistics: running means and variances.
    """

    forward: int
    stem: int
    activations: int
    parameters: int
    statistics: int


def network(module: nn.Module, image_shape: tuple[int, int, int]) -> Network:
    """Arithmetic of a network from `models.create`, on one image; nothing is computed."""
    params, batch_stats = jax.eval_shape(lambda key: models.initialise(module, key, image_shape), jax.random.key(0))
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)

    def run(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        return module.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            **external.mode(module, train=False),
            capture_intermediates=lambda layer, _: isinstance(layer, nn.Conv | nn.Dense),
            mutable=["intermediates"],
        )[1]["intermediates"]

    costs = {}
    for path, (output,) in _outputs(jax.eval_shape(run, params, batch_stats, images)):
        kernel = params
        for name in path:
            kernel = kernel[name]
        costs[path] = (2 * math.prod(output.shape) * math.prod(kernel["kernel"].shape[:-1]), math.prod(output.shape))
    return Network(
        forward=sum(flops for flops, _ in costs.values()),
        stem=costs["stem",][0],
        activations=sum(size for _, size in costs.values()),
        parameters=models.count_parameters(params),
        statistics=models.count_parameters(batch_stats),
    )


def _outputs(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Paths of layers and what they put out, from Flax's tree of captured calls."""
    result = [(path, tree["__call__"])] if "__call__" in tree else []
    for name, inner in tree.items():
        if isinstance(inner, dict):
            result += _outputs(inner, (*path, name))
    return result


@dataclasses.dataclass(frozen=True)
class Passes:
    """Which passes a training step makes, counted for each image.

    Attributes:
      attack: forward equivalents of an attack step: 2 through one network (forward, image gradient), 4 through two.
      before: forward passes before the first attack step, of either network.
      differentiated: train-mode passes that the loss is differentiated through: 3 each.
      statistics: train-mode passes for the running statistics alone: 1 each.
      teacher: a teacher's forward passes in the loss: 1 each.
    """

    attack: int = 2
    before: int = 0
    differentiated: int = 1
    statistics: int = 0
    teacher: int = 0

    def equivalents(self, steps: int) -> int:
        """Forward passes that a step with so many attack steps costs, all networks alike."""
        return steps * self.attack + self.before + 3 * self.differentiated + self.statistics + self.teacher


# With the methods' default settings. A test holds them against `Method.passes`; `train_step.py` prints XLA's count too.
PASSES = {
    "pgd_at": Passes(),
    "at_bsl": Passes(),
    "reat": Passes(),
    "trades": Passes(before=1, differentiated=2),
    "mart": Passes(differentiated=2),
    "ard": Passes(differentiated=2, teacher=1),
    "rslad": Passes(before=1, differentiated=2),
    "adaad": Passes(attack=4, differentiated=2, teacher=2),
    "self_distillation": Passes(differentiated=2, statistics=1, teacher=2),
}


def step_flops(found: Network, method: str, attack_steps: int) -> int:
    """FLOPs of one image in one step: forward equivalents, less the stem's gradient that no training pass needs."""
    passes = PASSES[method]
    return passes.equivalents(attack_steps) * found.forward - passes.differentiated * found.stem


def step_bytes(found: Network, method: str, attack_steps: int, *, batch: int, number_bytes: int) -> float:
    """Least bytes of one image in one step between memory and processor, where nothing stays in a cache.

    Every layer's output is written once and read once, and so is its gradient; a pass with gradients reads each output
    once more. Weights are read in every pass; an update, once a batch, reads weights, gradients and momentum and writes
    weights and momentum (float32).
    """
    passes = PASSES[method]
    graded = attack_steps * passes.attack // 2 + passes.differentiated
    plain = passes.before + passes.statistics + passes.teacher
    activations = (5 * graded + 2 * plain) * found.activations * number_bytes
    weights = (2 * graded + plain) * found.parameters * number_bytes + 5 * found.parameters * 4
    return activations + weights / batch


@contextlib.contextmanager
def direct_convolutions() -> Iterator[None]:
    """What is traced meanwhile has no form of convolutions with fewer products, so that XLA counts them all."""
    with mock.patch.object(winograd, "pays", return_value=False):
        jax.clear_caches()
        yield
    jax.clear_caches()


def counted(with_steps: Any, without_steps: Any, steps: int) -> float:
    """XLA's count for a step with so many attack steps, from two compiled programs: one with steps, one without.

    XLA counts the body of a loop once, however often it runs: the attack's loop in the first program, the loop over
    steps in both. So a step costs F0 + K (F1 - F0).
    """
    first, second = (program.cost_analysis()["flops"] for program in (without_steps, with_steps))
    return first + steps * (second - first)
