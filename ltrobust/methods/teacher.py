"""Frozen networks that methods learn from, and the rule that makes logits of a network's outputs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ltrobust import models

PyTree = Any

# Teachers that methods ask for: an adversarially trained one, and a naturally trained one.
TEACHER, CLEAN_TEACHER = "teacher", "clean_teacher"


@dataclasses.dataclass(frozen=True)
class DecisionRule:
    """How the network's outputs become the logits that are attacked and judged at test time.

    `test_logits` is the method's, None for the outputs themselves; `class_counts` are those of the images trained on,
    empty where no rule reads them. Equal rules share compiled programs.
    """

    test_logits: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    class_counts: tuple[int, ...] = ()

    def __call__(self, outputs: jax.Array) -> jax.Array:
        """Logits [B, C] from outputs [B, C + extra]."""
        if self.test_logits is None:
            return outputs
        return self.test_logits(outputs, jnp.asarray(self.class_counts, jnp.float32))


@flax.struct.dataclass
class Teacher:
    """A frozen network: running statistics, no updates. Its input gradient is available to attacks.

    `mean` and `std`, one number for each channel, are of external networks that normalise their input.
    """

    module: nn.Module = flax.struct.field(pytree_node=False)
    params: PyTree
    batch_stats: PyTree
    rule: DecisionRule = flax.struct.field(pytree_node=False, default=DecisionRule())
    mean: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())
    std: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())

    def logits(self, images: jax.Array) -> jax.Array:
        """Logits [B, C] in eval mode, as they are used at test time, from pixels in [0,1]."""
        # Outside of the network: images are in [0,1] for everyone else, so that a radius means the same.
        if self.mean:
            images = (images - jnp.asarray(self.mean, images.dtype)) / jnp.asarray(self.std, images.dtype)
        return self.rule(models.forward(self.module, self.params, self.batch_stats, images, bn="eval")[0])
