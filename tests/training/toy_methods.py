"""Methods made for tests: adversarial training with every kind of state that a method may keep."""

import dataclasses

import jax
import jax.numpy as jnp

from ltrobust.methods import Method


def counting(method: Method) -> Method:
    """A toy whose own state changes in every step: how often each class was seen, and the loss as a moving average."""

    def initial(params, class_counts):
        return {"seen": jnp.zeros_like(class_counts), "mean": jnp.float32(0)}

    def loss(learner, batch, adv):
        value, outcome = method.loss(learner, batch, adv)
        seen = jax.nn.one_hot(batch.labels, learner.class_counts.shape[0]).sum(axis=0)
        state = {
            "seen": learner.method_state["seen"] + seen,
            "mean": 0.9 * learner.method_state["mean"] + 0.1 * jax.lax.stop_gradient(value),
        }
        return value, dataclasses.replace(outcome, method_state=state)

    return dataclasses.replace(method, initial_state=initial, loss=loss)


def class_wise(method: Method) -> Method:
    """A toy of the class-wise family: its own state, radii by class, numbers observed on validation, an epoch's end."""
    threat = method.inner.threat

    def radii(learner, labels):
        radius = learner.method_state["scale"][labels] * threat.epsilon
        return radius, radius / 4

    def observe(learner, batch):
        correct = jnp.argmax(learner.forward(batch.images, bn="eval")[0], axis=-1) == batch.labels
        return {"ones": jnp.where(correct, 1.0, 1.0), "label": batch.labels.astype(jnp.float32), "radius": batch.radius}

    def end_epoch(learner, observed):
        assert set(observed) == {"ones", "label", "radius", "clean", "robust"}
        return {
            "scale": jnp.asarray(observed["radius"] / threat.epsilon / 2, jnp.float32),
            "epochs": learner.method_state["epochs"] + 1,
            "label": jnp.asarray(observed["label"], jnp.float32),
        }

    def initial(params, class_counts):
        zeros = jnp.zeros_like(class_counts)
        return {"scale": jnp.ones_like(class_counts), "epochs": jnp.int32(0), "label": zeros}

    return dataclasses.replace(method, initial_state=initial, radii=radii, observe=observe, end_epoch=end_epoch)
