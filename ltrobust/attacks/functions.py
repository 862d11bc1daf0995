"""Attacks other than PGD as functions from images to adversarial images."""

import jax

from ltrobust.attacks import inputs, kinds, one_batch
from ltrobust.attacks.algorithms import cw_l2 as _cw_l2
from ltrobust.attacks.algorithms import deepfool as _deepfool
from ltrobust.attacks.inputs import Ids, Images, Key, Labels
from ltrobust.attacks.search import LogitsFn
from ltrobust.threat import Threat


def apgd(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 100,
    loss: str = "ce",
    ids: Ids | None = None,
) -> jax.Array:
    """Auto-PGD, untargeted (Croce and Hein, ICML 2020): momentum, and a step size that halves itself.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: number of steps, at least 1.
      loss: `ce` or `dlr`; `dlr` needs 3 classes.

    Returns:
      The first misclassified iterate of each image, or the image itself if there is none; float32 [B,H,W,C].
    """
    if loss not in ("ce", "dlr"):
        raise ValueError(f"APGD loss is {loss!r}; known: ce, dlr. Targeted losses are those of apgd_t.")
    inputs.check_whole("steps", steps)
    return one_batch.find(kinds.Apgd("apgd", loss, steps=steps).build, logits_fn, images, labels, threat, key, ids)


def apgd_t(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    steps: int = 100,
    targets: int = kinds.MOST_TARGETS,
    ids: Ids | None = None,
) -> jax.Array:
    """Auto-PGD on the targeted DLR loss (Croce and Hein, ICML 2020): one run of `steps` per target.

    With fewer than 4 classes the loss is the difference of two logits.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: steps per target, at least 1.
      targets: number of targets, at least 1: the classes with the highest clean logits, without the true one.

    Returns:
      The first misclassified iterate of each image, or the image itself if there is none; float32 [B,H,W,C].
    """
    inputs.check_whole("steps", steps)
    inputs.check_whole("targets", targets)
    kind = kinds.Apgd("apgd_t", "targeted_dlr", steps=steps, targets=targets)
    return one_batch.find(kind.build, logits_fn, images, labels, threat, key, ids)


def fab(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key = 0,
    steps: int = 100,
    targets: int = kinds.MOST_TARGETS,
    ids: Ids | None = None,
) -> jax.Array:
    """FAB-T (Croce and Hein, ICML 2020): steps onto linearised decision boundaries, one target after another.

    The attack is deterministic; `key` is not used.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: steps per target, at least 1.
      targets: as in `apgd_t`.

    Returns:
      The first misclassified point within the radius, or the image itself if there is none; float32 [B,H,W,C].
    """
    inputs.check_whole("steps", steps)
    inputs.check_whole("targets", targets)
    return one_batch.find(
        kinds.Fab("fab", steps=steps, targets=targets).build, logits_fn, images, labels, threat, key, ids
    )


def square(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key,
    queries: int = 5000,
    ids: Ids | None = None,
) -> jax.Array:
    """Square attack (Andriushchenko et al., ECCV 2020): random search over shrinking squares, without gradients.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      queries: proposals per image, at least 1. Sides follow AutoAttack's schedule for 10,000 queries, cut off.

    Returns:
      The first misclassified proposal, or the image itself if there is none; float32 [B,H,W,C].
    """
    inputs.check_whole("queries", queries)
    return one_batch.find(kinds.Square("square", queries=queries).build, logits_fn, images, labels, threat, key, ids)


def cw_l2(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key = 0,
    steps: int = 100,
    c: float = 10.0,
    kappa: float = 0.0,
    rate: float = 0.01,
    ids: Ids | None = None,
) -> jax.Array:
    """Carlini and Wagner's L2 attack without a radius (IEEE S&P 2017), as in torchattacks.

    Adam minimises `|x' - x|_2^2 + c max(z_y - max_(j != y) z_j, -kappa)`, with distances in pixel units. Of the threat
    only the bounds are used. The attack is deterministic; `key` is not used.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: iterations of Adam, at least 1.
      c: weight of misclassification, above 0.
      kappa: margin in logits beyond the boundary, at least 0.
      rate: learning rate, above 0.

    Returns:
      The misclassified iterate nearest to the image, **at any distance**, or the image itself if there is none; float32
      [B,H,W,C].
    """
    inputs.check_whole("steps", steps)
    inputs.check_number("c", c, zero=False)
    inputs.check_number("kappa", kappa, zero=True)
    inputs.check_number("rate", rate, zero=False)
    settings = _cw_l2.settings(c=c, kappa=kappa, rate=rate, steps=steps)
    return one_batch.find(lambda *_: (_cw_l2.CW_L2, settings), logits_fn, images, labels, threat, key, ids)


def deepfool(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    *,
    key: Key = 0,
    steps: int = 50,
    overshoot: float = 0.02,
    ids: Ids | None = None,
) -> jax.Array:
    """DeepFool without a radius (Moosavi-Dezfooli et al., CVPR 2016): steps onto the nearest linearised boundary.

    Norm and radius of the threat are not used, its bounds are. The attack is deterministic; `key` is not used.

    Arguments that all attacks share, and errors: see `ltrobust.attacks`.

    Args:
      steps: at most so many steps, at least 1; each takes K - 1 gradients.
      overshoot: a step goes `1 + overshoot` times the distance to the boundary; at least 0.

    Returns:
      The last point, **at any distance**, misclassified or not; float32 [B,H,W,C].
    """
    inputs.check_whole("steps", steps)
    inputs.check_number("overshoot", overshoot, zero=True)
    settings = _deepfool.settings(steps=steps, overshoot=overshoot)
    return one_batch.find(lambda *_: (_deepfool.DEEPFOOL, settings), logits_fn, images, labels, threat, key, ids)
