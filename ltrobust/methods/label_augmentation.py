"""Label augmentation: an extra output for "this image was attacked", dropped at test time."""

import jax
import jax.numpy as jnp

from ltrobust import models
from ltrobust.attacks import objectives
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome, attack_on
from ltrobust.methods.settings import check_fractions


def label_aug(inner: InnerAttack, *, extra: int = 1, delta: float = 0.15) -> Method:
    """`L = -(1 - delta) log q(x')_y - delta log q(x')_C`, q the softmax over C + 1 outputs, x' from PGD on CE.

    Amerehi and Healy (arXiv 2503.16179). Attack, training accuracy and test see the first C outputs alone: the last one
    would take the attack's gradient and then be dropped. One train-mode pass, on x'.

    Args:
      extra: outputs beyond the classes: 1, or 0, which is PGD-AT.
      delta: what the added output gets of the label.

    Raises:
      ValueError: another number of outputs, or a fraction outside of [0, 1].
    """
    check_fractions("label_aug", delta=delta)
    if extra not in (0, 1):
        raise ValueError(f"label_aug.extra is {extra}; it must be 1, or 0 for PGD-AT.")

    def objective(learner: Learner, batch: Batch):
        def ascended(images: jax.Array):
            outputs, _ = learner.forward(images, bn=inner.bn)
            logits = first_classes(outputs, learner.class_counts)
            return objectives.cross_entropy(logits, batch.labels), logits

        return ascended

    def loss(learner: Learner, batch: Batch, adv_images):
        outputs, learner = learner.forward(adv_images, bn="train")
        logits = first_classes(outputs, learner.class_counts)
        losses = objectives.cross_entropy(outputs, batch.labels)
        if outputs.shape[-1] > logits.shape[-1]:
            attacked = jnp.full_like(batch.labels, logits.shape[-1])
            losses = (1 - delta) * losses + delta * objectives.cross_entropy(outputs, attacked)
        return batch.mean(losses), Outcome(learner.batch_stats, learner.method_state, logits, {})

    return Method(
        name="label_aug",
        attack=attack_on(inner, objective),
        loss=loss,
        inner=inner,
        passes=("adv",),
        weighted=True,
        separable=True,
        head=models.Head(extra=extra),
        test_logits=first_classes if extra else None,
    )


def first_classes(outputs: jax.Array, class_counts: jax.Array) -> jax.Array:
    """Logits [B, C] of outputs [B, C + extra]; C is the length of the class counts."""
    return outputs[:, : class_counts.shape[0]]
