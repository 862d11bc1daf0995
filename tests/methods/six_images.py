"""Six one-pixel images of three classes, their logits on the toy network, and one step of a method on them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from toy import on_devices, toy_learner

from ltrobust import methods
from ltrobust.attacks import objectives

BATCH = methods.Batch(
    jnp.array([-1.0, 0, 1, 1, 0, -1]).reshape(6, 1, 1, 1),
    jnp.array([0, 0, 1, 1, 2, 0]),
    jax.random.split(jax.random.key(0), 6),
    *[jnp.zeros(6)] * 2,
)
# Logits of the six images: the toy network's three rows, as BATCH names them; and their cross-entropies.
ROWS = np.array([[2.5, 0.5, 0.2], [2.0, 1.0, 0.0], [0.5, 1.5, 0.0]])[[0, 1, 2, 2, 1, 0]]
CE = np.asarray(objectives.cross_entropy(jnp.asarray(ROWS, jnp.float32), BATCH.labels))


def stepped(method, state=None, *, epoch=1, devices=1, **changes):
    """Mean loss over devices and the outcome on BATCH, as x' and as x, of the toy network."""
    learner = dataclasses.replace(toy_learner(epoch, 10), **changes)
    state = method.initial_state(learner.params, learner.class_counts) if state is None else state
    learner = dataclasses.replace(learner, method_state=state)
    share = jax.tree.map(lambda leaf: leaf.reshape(devices, -1, *leaf.shape[1:]), BATCH)
    run = jax.jit(lambda learner, share: on_devices(lambda batch: method.loss(learner, batch, batch.images), share))
    values, outcomes = run(learner, share)
    return jnp.mean(values), jax.tree.map(lambda leaf: leaf[0], outcomes)
