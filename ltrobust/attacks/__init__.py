"""Attacks: functions from images to adversarial images. They know no model, only a logits function.

All attacks have one form::

    adv_images = ATTACK(logits_fn, images, labels, threat, *, key, ids, ...)

Arguments of every attack:
  logits_fn: maps float32 [B,H,W,C] to logits [B,K]; images must not influence each other (BatchNorm in evaluation
    mode). Input normalisation belongs inside.
  images: float32 [B,H,W,C] within the threat's bounds, by default [0,1].
  labels: integers [B], the true classes.
  threat: norm, radius and pixel bounds. `cw_l2` and `deepfool` have no radius and use the bounds only.
  key: a seed from 0 to 2^31 - 1, or a JAX key. Optional for `fgsm`, `fab`, `cw_l2` and `deepfool`, which by default
    make no random draws.
  ids: integers [B] from 0 to 2^32 - 1, default: positions. The random draws of an image depend on the key and its id
    only, so its result does not depend on the rest of the batch, up to the rounding of `logits_fn`.

Returns:
  float32 [B,H,W,C], with the gradient stopped, within the bounds, and within the ball up to float32 rounding (1e-6 in
  pixel units). Misclassified images are attacked too.

Raises:
  ValueError: images of the wrong type, shape or range, labels that are not one class per image, a threat that is not a
    `Threat`, a setting out of range, or a `logits_fn` that JAX cannot trace and differentiate.

With `key=draws(seed, NAME)` and the settings of attack NAME in a protocol, a function returns what the evaluation
finds. To decide whether an image counts as robust use `ltrobust.evaluate`, which verifies each adversarial image.

Outside of `jax.jit` every call compiles a new program. For a loop over batches, compile once::

    attack = jax.jit(lambda params, images, labels: pgd(lambda x: apply(params, x), images, labels, threat, key=0))
"""

# Version of the attacks' arithmetic. Raise it with every change that may change a verdict: stored verdicts of another
# version are not resumed. `tests/evaluation/test_identity.py` detects such changes.
VERSION = 1

from ltrobust.attacks.functions import (  # noqa: E402 - the modules import this package
    apgd,
    apgd_t,
    cw_l2,
    deepfool,
    fab,
    square,
)
from ltrobust.attacks.pgd_functions import cw, fgsm, lsa, mim, pgd, temperature_pgd  # noqa: E402
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
