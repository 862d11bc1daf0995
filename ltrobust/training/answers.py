"""Recognises the code of a network by its logits on fixed weights and images, because checkpoints hold no code.

Another class of the same name and fields takes the same weights, and would answer for the one that was trained. Only
networks that are not of this package are looked at; those of the package have one code.
"""

import math
from collections.abc import Sequence

import jax
import numpy as np

from ltrobust import models
from ltrobust.evaluation import identity
from ltrobust.models.model_plan import ModelPlan

_IMAGES = 2


def take(model: ModelPlan, num_classes: int, head: models.Head, image_shape: tuple[int, ...]) -> list[list[float]]:
    """Logits of an external network, `_IMAGES` lists of its outputs; empty for a network of this package.

    They depend on the code and its settings alone: not on the initialiser, and on the device up to rounding.
    """
    if model.name in models.NAMES or models.parse(model.name) is not None:
        return []
    module = model.create(num_classes, head=head, exact=True)
    shapes = jax.eval_shape(lambda key: models.initialise(module, key, image_shape), jax.random.key(0))
    generator = np.random.RandomState(0)

    def made_up(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values = generator.standard_normal(leaf.shape)
        # Scales, biases and running statistics are about 1, as variances must be above 0; kernels keep lengths.
        values = values / math.sqrt(math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 1 + 0.1 * np.abs(values)
        return values.astype(leaf.dtype)

    params, batch_stats = jax.tree.map(made_up, shapes)
    images = generator.uniform(size=(_IMAGES, *image_shape)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        forward = jax.jit(lambda *arrays: models.forward(module, *arrays, bn="eval")[0])
        logits = np.asarray(forward(params, batch_stats, images), float)
    return np.where(np.isfinite(logits), logits, np.nan).tolist()  # a checkpoint's JSON has no infinity


def check(name: str, there: Sequence[Sequence[float]], here: Sequence[Sequence[float]]) -> None:
    """Refuses a network whose code differs from that of a checkpoint.

    Args:
      name: of the network.
      there: `take` of the code that was trained.
      here: `take` of the code at hand.

    Raises:
      ValueError: they differ by more than rounding.
    """
    if identity.differences({"logits": there}, {"logits": here}):
        raise ValueError(
            f"the network {name} is not the one that was trained: with the same weights it gives other logits "
            f"({there[0][0]:.4g} there, {here[0][0]:.4g} here). Give the code that it was trained with."
        )
