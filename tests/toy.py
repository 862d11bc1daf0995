"""Learners on which a method's loss can be computed by hand, or run for real on a tiny network."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ltrobust import methods, models
from ltrobust.methods import Batch, InnerAttack, Learner, Teacher
from ltrobust.threat import Threat

INNER = InnerAttack(Threat(radius=16), steps=3, step_size=6)
COUNTS = jnp.array([40.0, 12.0, 5.0])


class Lookup(nn.Module):
    """Logits chosen by a one-pixel image's value, -1, 0 or 1: a test can name z(x - d), z(x) and z(x')."""

    @nn.compact
    def __call__(self, images: jax.Array, use_running_average: bool) -> jax.Array:
        table = self.param("table", nn.initializers.zeros, (3, 3))
        seen = self.variable("batch_stats", "seen", lambda: jnp.zeros(3))
        rows = jnp.round(images[:, 0, 0, 0]).astype(jnp.int32) + 1
        if not use_running_average and not self.is_initializing():
            # Decimal digits tell which inputs train-mode passes saw, and in which order.
            seen.value = 10 * seen.value + jax.nn.one_hot(rows[0], 3)
        self.sow("intermediates", "features", table[rows])
        return table[rows]


def lookup(minus: Any, clean: Any, adv: Any) -> dict[str, Any]:
    return {"stem": {"kernel": jnp.zeros((1, 1, 1, 1))}, "table": jnp.array([minus, clean, adv])}


def toy_learner(epoch: int = 1, epochs: int = 2) -> Learner:
    """The shared toy vector: one sample, y = 0, n = (100, 30, 10), ramp 1/2."""
    student = lookup([2.5, 0.5, 0.2], [2.0, 1.0, 0.0], [0.5, 1.5, 0.0])
    teacher = lookup([3.0, 0.2, -0.8], [2.2, 0.4, -0.6], [1.8, 0.3, -0.5])
    statistics = {"seen": jnp.zeros(3)}
    return Learner(
        module=Lookup(),
        axis_name="devices",
        params=student,
        batch_stats=statistics,
        method_state={},
        teachers={"teacher": Teacher(Lookup(), teacher, statistics)},
        class_counts=jnp.array([100.0, 30.0, 10.0]),
        epoch=jnp.int32(epoch),
        epochs=jnp.float32(epochs),
    )


def toy_batch() -> Batch:
    zeros = jnp.zeros(1)
    return Batch(jnp.zeros((1, 1, 1, 1)), jnp.array([0]), jax.random.split(jax.random.key(0), 1), zeros, zeros)


def passes(seen: str) -> np.ndarray:
    """The statistics after train-mode passes over m = x - d, x = clean, a = x', in that order."""
    expected = np.zeros(3)
    for letter in seen:
        expected = 10 * expected + np.eye(3)["mxa".index(letter)]
    return expected


def real_learner(network, **changes: Any) -> Learner:
    module, params, batch_stats = network
    teacher = Teacher(module, *models.initialise(module, jax.random.key(5), (8, 8, 1)))
    learner = Learner(
        module, "devices", params, batch_stats, {}, {"teacher": teacher}, COUNTS, jnp.int32(1), jnp.float32(4)
    )
    return dataclasses.replace(learner, **changes)


def real_batch(method: methods.Method, learner: Learner) -> Batch:
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1))
    return methods.make_batch(method, learner, images, jnp.arange(6) % 3, jax.random.split(jax.random.key(2), 6))


def on_devices(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function of one device's share, with the device axis that methods sum over: the arguments' first."""
    return jax.vmap(function, axis_name="devices")(*arguments)


def on_one_device(function: Callable[[], Any]) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], on_devices(lambda _: function(), jnp.zeros(1)))


def toy_loss(method: methods.Method, learner: Learner | None = None, batch: Batch | None = None, adv: float = 1.0):
    """Loss and outcome on the toy vector, `adv` naming the table's row."""
    learner, batch = learner or toy_learner(), batch or toy_batch()
    learner = dataclasses.replace(learner, method_state=method.initial_state(learner.params, learner.class_counts))
    return on_one_device(lambda: method.loss(learner, batch, jnp.full(batch.images.shape, adv)))


def gradient_of(method: methods.Method, learner: Learner):
    """Loss, its gradient and the statistics after one attack and one outer pass."""

    @jax.jit
    def run(learner):
        batch = real_batch(method, learner)
        adv = method.attack(learner, batch)

        def objective(params):
            return method.loss(dataclasses.replace(learner, params=params), batch, adv)

        (value, outcome), gradient = jax.value_and_grad(objective, has_aux=True)(learner.params)
        return value, gradient, outcome.batch_stats

    return run(learner)


def assert_same(first, second, **tolerance: float):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), first, second)
