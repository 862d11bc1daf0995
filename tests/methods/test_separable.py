"""Batches in parts: the methods that allow it have the loss, the gradient, the state and the metrics of the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from affine import KERNEL, learner
from toy import INNER, assert_same, on_one_device

from ltrobust import methods
from ltrobust.training import accumulation

# Their losses compare the examples of a batch, or follow its means.
OF_THE_WHOLE_BATCH = {"taet", "reat", "mtard", "b_mtard", "chi2_class_dro", "faal", "frl"}
WRAPPED = [("trades", "cfa"), ("ard", "fair_ard"), ("pgd_at", "weak_class_reweight"), ("iad", "igdm")]
SEPARABLE = [(name,) for name in methods.REGISTRY if name not in OF_THE_WHOLE_BATCH] + WRAPPED


def made(names):
    method = methods.create(names[0], INNER)
    for wrapper in names[1:]:
        # Radii of CFA would be the same for ten epochs.
        method = methods.wrap(method, wrapper, **{"plain_epochs": 0} if wrapper == "cfa" else {})
    return method


def test_methods_of_the_whole_batch_are_not_separable():
    others = {name for name in methods.REGISTRY if not methods.create(name, INNER).separable}
    assert others == OF_THE_WHOLE_BATCH


@pytest.mark.parametrize("names", SEPARABLE, ids="+".join)
def test_parts_give_the_loss_the_gradient_and_the_state_of_the_whole(names):
    method = made(names)
    outputs = 3 + method.head.extra
    kernel = jnp.pad(KERNEL, ((0, 0), (0, outputs - 3)))
    there = learner(kernel, jnp.zeros(outputs))
    teacher = methods.Teacher(there.module, learner(-KERNEL, jnp.ones(3)).params, there.batch_stats)
    there = dataclasses.replace(there, teachers={"teacher": teacher, "clean_teacher": teacher})
    images = jax.random.uniform(jax.random.key(1), (8, 2, 2, 1))
    labels, keys = jnp.arange(8) % 3, jax.random.split(jax.random.key(2), 8)

    def of_part(learner, batch, adv):
        def loss(params):
            return method.loss(dataclasses.replace(learner, params=params), batch, adv)

        (value, outcome), gradients = jax.value_and_grad(loss, has_aux=True)(learner.params)
        return value, outcome, gradients

    def step(parts, state, epoch):
        now = dataclasses.replace(there, method_state=state, epoch=jnp.int32(epoch))
        batch = methods.make_batch(method, now, images, labels, keys)
        adv = accumulation.attack(lambda part: method.attack(now, part), batch, parts)
        return batch.radius, adv, accumulation.gradient(of_part, now, batch, adv, parts)

    @jax.jit
    def steps():
        state, results = method.initial_state(there.params, there.class_counts), []
        # The second epoch has weights and radii from what the first one left.
        for epoch in (1, 2):
            whole, parts = (on_one_device(lambda p=p, s=state, e=epoch: step(p, s, e)) for p in (1, 4))
            results.append((whole, parts))
            state = whole[2][1].method_state
        return results

    (first, _), (last, _) = results = steps()
    for (_, whole_adv, whole), (_, adv, parts) in results:
        joined = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), adv)
        jax.tree.map(np.testing.assert_array_equal, joined, whole_adv)
        assert_same(parts, whole, rtol=1e-5, atol=1e-6)
        assert float(jnp.abs(whole[2]["kernel"]).max()) > 1e-3
    if {"dafa", "cfa"} & set(names):
        assert np.ptp(first[0]) == 0 < np.ptp(last[0])


def test_running_statistics_are_the_mean_over_the_parts_and_start_from_those_before_the_step():
    method = made(("pgd_at",))
    there = dataclasses.replace(learner(KERNEL, jnp.zeros(3)), batch_stats={"seen": jnp.ones(1)})

    def of_part(learner, batch, adv):
        moved = {"seen": 0.9 * learner.batch_stats["seen"] + 0.1 * jnp.mean(adv)}
        outcome = methods.Outcome(moved, {}, jnp.zeros((len(adv), 3)), {})
        return jnp.mean(adv), outcome, learner.params

    images = jnp.arange(4, dtype=jnp.float32)[:, None, None, None] * jnp.ones((1, 2, 2, 1))
    batch = methods.make_batch(method, there, images, jnp.zeros(4, jnp.int32), jax.random.split(jax.random.key(0), 4))
    adv = accumulation.attack(lambda part: part.images, batch, 2)
    value, outcome, _ = accumulation.gradient(of_part, there, batch, adv, 2)
    np.testing.assert_allclose((value, outcome.batch_stats["seen"][0]), (1.5, 0.9 + 0.15), rtol=1e-6)
    assert outcome.adv_logits.shape == (4, 3)
