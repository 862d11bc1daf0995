"""Trains two networks of your own, without and with BatchNorm, by a method of your own: digits, two epochs each.

    python examples/own_network_and_method.py [FOLDER]

The same from the command line, where --code loads this file:

    ltrobust --code=examples/own_network_and_method.py --config=configs/digits.py --config.model.name=PlainNet \
        --config.student.method=focal_at --config.methods.focal_at.gamma=1.0 --config.student.epochs=2
"""

import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp

import ltrobust as lt
from ltrobust.attacks.objectives import cross_entropy


@lt.models.register
class PlainNet(nn.Module):
    """Two convolutions and a dense layer; nothing differs between training and evaluation.

    Attributes:
      width: channels of the first convolution.
    """

    num_classes: int  # set by the package
    width: int = 8  # config.model.PlainNet.width

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.width, (3, 3))(images))
        x = nn.relu(nn.Conv(2 * self.width, (3, 3), strides=2)(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


@lt.models.register
class NormNet(nn.Module):
    """The same with BatchNorm, and with a last layer that methods may choose."""

    head: nn.Module | None = None  # set by the package: features [B,F] -> outputs
    axis_name: str | None = None  # set by the package, for several devices
    width: int = 8

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = images
        for features in (self.width, 2 * self.width):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x))
        assert self.head is not None
        return self.head(jnp.mean(x, axis=(1, 2)))


@lt.methods.register
def focal_at(inner: lt.methods.InnerAttack, *, gamma: float = 2.0) -> lt.methods.Method:
    """`L = mean (1 - p(x')_y)^gamma CE(z(x'), y)`, the focal loss at PGD's images.

    Args:
      gamma: how much less easy images count; 0 is PGD-AT.
    """

    def loss(learner: lt.methods.Learner, batch: lt.methods.Batch, adv_images: jax.Array):
        logits, learner = learner.forward(adv_images, bn="train")
        losses = cross_entropy(logits, batch.labels)
        value = batch.mean((1 - jnp.exp(-losses)) ** gamma * losses)
        return value, lt.methods.Outcome(learner.batch_stats, learner.method_state, logits, {})

    attack = lt.methods.attack_cross_entropy(inner)
    return lt.methods.Method(name="focal_at", attack=attack, loss=loss, inner=inner, weighted=True)


def main(folder: Path) -> None:
    config = lt.config("digits")
    config.student.method = "focal_at"
    config.methods.focal_at.gamma = 1.0
    config.student.epochs, config.student.batch_size = 2, 16
    config.student.attack.steps = 3
    config.student.optimizer.name, config.student.optimizer.learning_rate = "adam", 0.01
    config.threat.radius = 16.0  # in 1/255
    config.eval.limit = 10  # test images of each class
    config.eval.also = ()  # AutoAttack and other radii, which configs/digits.py asks for
    *_, test = lt.data.load("digits", imbalance_ratio=10)
    images, labels = lt.data.to_unit(test.images[:100]), test.labels[:100]
    threat = lt.Threat("linf", 16)
    for network in (PlainNet, NormNet):
        run = lt.train(config, folder / network.__name__, model=network)
        print(run.evaluation("student/last").summary())
        logits_fn = run.logits_fn("student/last")
        adv_images = lt.attacks.apgd(logits_fn, images, labels, threat, key=0)
        print(f"right under APGD: {jnp.mean(logits_fn(adv_images).argmax(axis=-1) == labels):.1%}")
        print(lt.evaluate(logits_fn, test.images[:100], labels, threat=threat, protocol="quick").summary())


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "runs/own"))
