"""Frozen teacher networks, and the rule that turns a network's outputs into logits."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from ltrobust import models

PyTree = Any

# Names of the teachers that methods use: adversarially trained, and naturally trained.
TEACHER, CLEAN_TEACHER = "teacher", "clean_teacher"


@dataclasses.dataclass(frozen=True)
class DecisionRule:
    """Function from a network's outputs to the logits of test time. Equal rules share compiled programs.

    Attributes:
      test_logits: that of the method; None: the outputs are the logits.
      class_counts: images per class in training; empty if the rule does not use them.
    """

    test_logits: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    class_counts: tuple[int, ...] = ()

    def __call__(self, outputs: jax.Array) -> jax.Array:
        """Computes logits [B, K] from outputs [B, K + extra]."""
        if self.test_logits is None:
            return outputs
        return self.test_logits(outputs, jnp.asarray(self.class_counts, jnp.float32))


@flax.struct.dataclass
class Teacher:
    """A frozen network that runs on its running statistics. Attacks can differentiate it.

    Attributes:
      module: the network.
      params: its parameters.
      batch_stats: its running statistics.
      rule: from outputs to logits.
      mean: per channel, for external networks that normalise their input; else empty.
      std: per channel, likewise.
    """

    module: nn.Module = flax.struct.field(pytree_node=False)
    params: PyTree
    batch_stats: PyTree
    rule: DecisionRule = flax.struct.field(pytree_node=False, default=DecisionRule())
    mean: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())
    std: tuple[float, ...] = flax.struct.field(pytree_node=False, default=())

    def logits(self, images: jax.Array) -> jax.Array:
        """Computes test-time logits [B, K] of `images`, float32 [B,H,W,C] in [0,1]."""
        # Normalisation is outside of the network, so that images are in [0,1] and a radius means the same for all.
        if self.mean:
            images = (images - jnp.asarray(self.mean, images.dtype)) / jnp.asarray(self.std, images.dtype)
        return self.rule(models.forward(self.module, self.params, self.batch_stats, images, bn="eval")[0])
