"""FGSM, PGD and its variants as functions from images to adversarial images."""

from typing import Any

import jax

from ltrobust.attacks import inputs, kinds, one_batch
from ltrobust.attacks.inputs import Ids, Images, Key, Labels
from ltrobust.attacks.search import LogitsFn
from ltrobust.threat import Threat


def fgsm(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key = 0,
    start: str = "none",
    ids: Ids | None = None,
) -> jax.Array:
    """Fast gradient sign method (Goodfellow et al., ICLR 2015): one step of the length of the radius::

        x' = project(start + radius * direction(grad CE(z(x), y)))

    The direction is the gradient's sign for linf and the normalised gradient for l2.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      start: starting point, one of `ball.STARTS`; `none` is the image itself.

    Returns:
      Adversarial images, float32 [B,H,W,C].
    """
    return _pgd("ce", logits_fn, images, labels, threat, key, ids, steps=1, step=1.0, start=start)


def pgd(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 20,
    step: float = 1 / 4,
    start: str = "uniform_raw",
    loss: str = "ce",
    ids: Ids | None = None,
) -> jax.Array:
    """Projected gradient ascent (Madry et al., ICLR 2018); returns the last iterate::

        x_0 = start,    x_(k+1) = project(x_k + step * radius * direction(grad L(z(x_k), y)))

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: number of steps, at least 1.
      step: step size as a fraction of the radius; 1/4 is 2/255 at radius 8/255.
      start: starting point, one of `ball.STARTS`; `uniform_raw` is uniform in the ball.
      loss: `ce`, `margin` (see `cw`) or `tempered` (see `temperature_pgd`).

    Returns:
      Adversarial images, float32 [B,H,W,C].

    Example:
      >>> import jax.numpy as jnp, ltrobust as lt
      >>> images, labels = jnp.full((2, 4, 4, 1), 0.5), jnp.array([0, 1])
      >>> logits_fn = lambda x: jnp.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], axis=1)
      >>> adv_images = lt.attacks.pgd(logits_fn, images, labels, lt.Threat("linf", 8), key=0, steps=5)
      >>> adv_images.shape, float(jnp.round(255 * jnp.abs(adv_images - images).max(), 3))
      ((2, 4, 4, 1), 8.0)
    """
    return _pgd(loss, logits_fn, images, labels, threat, key, ids, steps=steps, step=step, start=start)


def mim(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 20,
    step: float = 1 / 4,
    decay: float = 1.0,
    start: str = "uniform_raw",
    ids: Ids | None = None,
) -> jax.Array:
    """PGD with momentum (Dong et al., CVPR 2018): the direction is that of `v <- decay v + grad CE / mean|grad CE|`.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: as in `pgd`.
      step: as in `pgd`.
      start: as in `pgd`.
      decay: momentum, at least 0; 0 is plain PGD.

    Returns:
      Adversarial images, float32 [B,H,W,C].
    """
    inputs.check_number("decay", decay, zero=True)
    return _pgd("ce", logits_fn, images, labels, threat, key, ids, steps=steps, step=step, start=start, decay=decay)


def cw(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 20,
    step: float = 1 / 4,
    kappa: float = 50.0,
    start: str = "uniform_raw",
    ids: Ids | None = None,
) -> jax.Array:
    """PGD on the margin loss of Carlini and Wagner (IEEE S&P 2017) in a ball, `max_(j != y) z_j - z_y`, up to `kappa`.

    Papers on adversarial training call this CW. For the attack without a radius see `cw_l2`.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: as in `pgd`.
      step: as in `pgd`.
      start: as in `pgd`.
      kappa: margin in logits beyond which the loss is constant, at least 0.

    Returns:
      Adversarial images, float32 [B,H,W,C].
    """
    inputs.check_number("kappa", kappa, zero=True)
    return _pgd("margin", logits_fn, images, labels, threat, key, ids, steps=steps, step=step, start=start, kappa=kappa)


def lsa(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 20,
    step: float = 1 / 4,
    scale: float | tuple[float, ...] = 10.0,
    start: str = "uniform_raw",
    ids: Ids | None = None,
) -> jax.Array:
    """Logit-scaled PGD on `CE(scale * z(x), y)`; avoids gradients that vanish where the network is confident.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: as in `pgd`.
      step: as in `pgd`.
      start: as in `pgd`.
      scale: factor of the logits, above 0; or a tuple of K, one for each true class.

    Returns:
      Adversarial images, float32 [B,H,W,C].
    """
    return _pgd("ce", logits_fn, images, labels, threat, key, ids, steps=steps, step=step, start=start, scale=scale)


def temperature_pgd(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 20,
    step: float = 1 / 4,
    scale: float = 10.0,
    start: str = "uniform_raw",
    ids: Ids | None = None,
) -> jax.Array:
    """Temperature-PGD (Tian et al., KDD 2021): PGD on `logsumexp_(j != y)(scale z_j) - scale z_y`.

    Its gradient has the sign of the gradient of `CE(scale * z, y)`, but does not vanish where the network is confident.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: as in `pgd`.
      step: as in `pgd`.
      start: as in `pgd`.
      scale: inverse temperature, above 0.

    Returns:
      Adversarial images, float32 [B,H,W,C].
    """
    given = (logits_fn, images, labels, threat, key, ids)
    return _pgd("tempered", *given, steps=steps, step=step, start=start, scale=scale)


def _pgd(loss: str, *arguments: Any, step: float, **settings: Any) -> jax.Array:
    """Runs PGD with these settings."""
    inputs.check_whole("steps", settings["steps"])
    inputs.check_number("step", step, zero=False)
    inputs.check_scale(settings.get("scale", 1.0))
    return one_batch.find(kinds.Pgd("pgd", loss, step=step, **settings).build, *arguments)
