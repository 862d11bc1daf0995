"""Inputs that break a logits function. Nothing here knows of models or BatchNorm.

The attacks are functions of one form::

    adversarial = ATTACK(logits_fn, images, labels, threat, *, key, ...)

Args:
    logits_fn: float32 [B,H,W,C] -> logits [B,K], each image for itself (BatchNorm in evaluation mode). An input
        normalisation belongs inside.
    images: float32 [B,H,W,C] within the threat's bounds, [0,1] unless it says otherwise.
    labels: integers [B], the true classes.
    threat: norm, radius and bounds. The two attacks without a radius, `cw_l2` and `deepfool`, use the bounds alone.
    key: a seed, from 0 to 2^31 - 1, or a key of JAX. `fgsm`, `fab`, `cw_l2` and `deepfool`, which by default draw
        nothing, have 0 by default; the other attacks need one.
    ids: integers [B] from 0 to 2^32 - 1, by which an image's draws are addressed; default: positions. An image's draws
        depend on the key and its id, and nothing in its path depends on the other images. So its result does not depend
        on the batch, beyond the last bits that `logits_fn` itself may give in batches of other sizes.

The result is float32 [B,H,W,C], behind `stop_gradient`, within the bounds, and within the ball up to the rounding of
float32 (1e-6 in pixel units). Every image is attacked, those that are misclassified already too. Step sizes are
fractions of the radius: 1/4 is 2/255 at 8/255.

The attacks are those of evaluation: with `key=draws(seed, NAME)` and its settings, a function returns what the attack
NAME of a protocol finds. `ltrobust.evaluate` says whether an image counts as robust; it verifies each point.

Outside of `jax.jit` every call compiles a separate program. In a loop over batches put the call inside::

    attack = jax.jit(lambda params, images, labels: pgd(lambda x: apply(params, x), images, labels, threat, key=0))

All functions raise ValueError for images of another type, shape or range, labels that are not one class for each image,
something else than a `Threat`, settings out of range, and a `logits_fn` that JAX cannot trace and differentiate.
"""

# Of the attacks' arithmetic. Raise it with every change that may change a verdict: verdicts of another version are not
# resumed. `tests/evaluation/test_identity.py` notices such changes.
VERSION = 1

from ltrobust.attacks.functions import (  # noqa: E402 - the modules import this package
    apgd,
    apgd_t,
    cw,
    cw_l2,
    deepfool,
    fab,
    fgsm,
    lsa,
    mim,
    pgd,
    square,
    temperature_pgd,
)
from ltrobust.attacks.search import draws  # noqa: E402

__all__ = [
    "apgd",
    "apgd_t",
    "cw",
    "cw_l2",
    "deepfool",
    "draws",
    "fab",
    "fgsm",
    "lsa",
    "mim",
    "pgd",
    "square",
    "temperature_pgd",
]
