"""A learner whose outputs are affine in the pixels of 2x2 images."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from toy import toy_learner

KERNEL = jax.random.normal(jax.random.key(0), (4, 3))


class Affine(nn.Module):
    """Outputs of a 2x2 image that are affine in its pixels."""

    @nn.compact
    def __call__(self, images: jax.Array, use_running_average: bool) -> jax.Array:
        self.variable("batch_stats", "seen", lambda: jnp.zeros(1))
        kernel, bias = (self.param(name, lambda _: None) for name in ("kernel", "bias"))
        return images.reshape(len(images), -1) @ kernel + bias


def learner(kernel, bias):
    params = {"stem": {"kernel": jnp.zeros((1, 1, 1, 1))}, "kernel": kernel, "bias": jnp.asarray(bias)}
    return dataclasses.replace(toy_learner(), module=Affine(), params=params, batch_stats={"seen": jnp.zeros(1)})
