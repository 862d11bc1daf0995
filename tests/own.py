"""Networks and a method as a user writes them, for tests; importing this file registers nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltrobust import methods
from ltrobust.attacks.objectives import cross_entropy


class Plain(nn.Module):
    """Without BatchNorm, without a mode, and without a layer that the package knows."""

    num_classes: int
    width: int = 4
    widths: tuple[int, ...] = (4,)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=2)(images))
        return nn.Dense(self.num_classes, name="answers")(x.reshape(len(x), -1))


class Normed(nn.Module):
    """With BatchNorm, and with a head that methods may choose."""

    head: nn.Module | None = None
    axis_name: str | None = None
    width: int = 4

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(self.width, (3, 3), use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x))
        assert self.head is not None
        return self.head(jnp.mean(x, axis=(1, 2)))


def half_at(inner: methods.InnerAttack, *, share: float = 1, terms: tuple[str, ...] = ()) -> methods.Method:
    """PGD-AT times a share.

    Args:
      share: of the loss.
      terms: names that
        nothing reads.
    """
    del terms

    def loss(learner: methods.Learner, batch: methods.Batch, adv_images: jax.Array):
        logits, learner = learner.forward(adv_images, bn="train")
        value = share * batch.mean(cross_entropy(logits, batch.labels))
        return value, methods.Outcome(learner.batch_stats, learner.method_state, logits, {})

    attack = methods.attack_cross_entropy(inner)
    return methods.Method(name="another name", attack=attack, loss=loss, inner=inner, weighted=True)


def louder(method: methods.Method, *, factor: float = 2.0) -> methods.Method:
    """A wrapper that changes nothing."""
    del factor
    return method
