"""Every attack as a function from images to adversarial images, all of one form; the package says which."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball, inputs, kinds
from ltrobust.attacks import search as searches
from ltrobust.attacks.algorithms import cw_l2 as _cw_l2
from ltrobust.attacks.algorithms import deepfool as _deepfool
from ltrobust.attacks.inputs import Ids, Images, Key, Labels
from ltrobust.attacks.search import LogitsFn, Search
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
    """Fast gradient sign: `project(x + radius * direction(grad CE(z(x), y)))`, one step (Goodfellow et al., ICLR 2015).

    The direction is the gradient's sign for linf, and the gradient over its length for l2. `start` is one of
    `ball.STARTS`; the default is the image itself. For the other arguments see `ltrobust.attacks`.
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
    """Projected gradient ascent, the last iterate (Madry et al., ICLR 2018).

        x_0 = start,    x_{k+1} = project(x_k + step * radius * direction(grad L(z(x_k), y)))

    Args:
      logits_fn, images, labels, threat, key, ids: as for all attacks, see `ltrobust.attacks`.
      steps: at least 1.
      step: fraction of the radius.
      start: one of `ball.STARTS`.
      loss: `ce`, `margin` (see `cw`) or `tempered` (see `temperature_pgd`).
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

    `decay` is at least 0, and 0 is plain PGD. The other settings are those of `pgd`.
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
    """PGD on Carlini and Wagner's margin within a ball, `max_{j != y} z_j - z_y`, up to `kappa` in logits.

    What papers on adversarial training call CW (Carlini and Wagner, IEEE S&P 2017, is the loss's source). The other
    settings are those of `pgd`. For the attack without a radius see `cw_l2`.
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
    """Logit-scaled PGD on `CE(scale * z(x), y)`, against gradients that vanish where a network is sure.

    `scale` is one number, or a tuple of K: one for each true class. The other settings are those of `pgd`.
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
    """Temperature-PGD on `logsumexp_{j != y}(scale z_j) - scale z_y` (Tian et al., KDD 2021).

    `scale` is the inverse temperature. The gradient has the sign of that of `CE(scale * z, y)`, and does not vanish
    where a network is sure. The other settings are those of `pgd`.
    """
    given = (logits_fn, images, labels, threat, key, ids)
    return _pgd("tempered", *given, steps=steps, step=step, start=start, scale=scale)


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
    """Auto-PGD, untargeted: ascent with momentum, whose step size halves itself (Croce and Hein, ICML 2020).

    Returns the first misclassified iterate of each image, and the image itself where there was none. `loss` is `ce` or
    `dlr`, which needs 3 classes. The other arguments are those of all attacks, see `ltrobust.attacks`.
    """
    if loss not in ("ce", "dlr"):
        raise ValueError(f"APGD loss is {loss!r}; known: ce, dlr. Targeted losses are those of apgd_t.")
    inputs.check_whole("steps", steps)
    return _run(kinds.Apgd("apgd", loss, steps=steps).build, logits_fn, images, labels, threat, key, ids)


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
    """Auto-PGD on the targeted DLR loss, one run of `steps` for each target (Croce and Hein, ICML 2020).

    Targets are the `targets` classes of highest logit at the image, the true one left out; as many as there are, if
    there are fewer. With fewer than 4 classes the loss is the difference of two logits. Returns what `apgd` does.
    """
    inputs.check_whole("steps", steps)
    inputs.check_whole("targets", targets)
    kind = kinds.Apgd("apgd_t", "targeted_dlr", steps=steps, targets=targets)
    return _run(kind.build, logits_fn, images, labels, threat, key, ids)


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
    """FAB-T: steps onto linearised boundaries, target after target (Croce and Hein, ICML 2020).

    Returns the first misclassified point within the radius, and the image itself where there was none. Targets are
    chosen as in `apgd_t`. It makes no random draws.
    """
    inputs.check_whole("steps", steps)
    inputs.check_whole("targets", targets)
    return _run(kinds.Fab("fab", steps=steps, targets=targets).build, logits_fn, images, labels, threat, key, ids)


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
    """Random search over squares that shrink, without gradients (Andriushchenko et al., ECCV 2020).

    Returns the first misclassified proposal, and the image itself where there was none. `queries` is the number of
    proposals for each image; the schedule of sides is AutoAttack's, that of 10,000 queries, cut off.
    """
    inputs.check_whole("queries", queries)
    return _run(kinds.Square("square", queries=queries).build, logits_fn, images, labels, threat, key, ids)


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
    """Carlini and Wagner's L2 attack, without a radius (IEEE S&P 2017, as torchattacks runs it).

    Adam of learning rate `rate` descends on `|x' - x|_2^2 + c max(z_y - max_{j != y} z_j, -kappa)`, distances in pixel
    units. Returns the misclassified iterate nearest to the image, **however far it is**, and the image itself where
    there was none. Norm and radius of the threat are not used, its bounds are. It makes no random draws.
    """
    inputs.check_whole("steps", steps)
    inputs.check_number("c", c, zero=False)
    inputs.check_number("kappa", kappa, zero=True)
    inputs.check_number("rate", rate, zero=False)
    settings = _cw_l2.settings(c=c, kappa=kappa, rate=rate, steps=steps)
    return _run(lambda *_: (_cw_l2.CW_L2, settings), logits_fn, images, labels, threat, key, ids)


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
    """DeepFool, without a radius: steps onto the nearest linearised boundary (Moosavi-Dezfooli et al., CVPR 2016).

    Each of at most `steps` steps goes `1 + overshoot` times the Euclidean distance, in pixel units, and takes K - 1
    gradients. Returns the last point, **however far it is**, misclassified or not. Norm and radius of the threat are
    not used, its bounds are. It makes no random draws.
    """
    inputs.check_whole("steps", steps)
    inputs.check_number("overshoot", overshoot, zero=True)
    settings = _deepfool.settings(steps=steps, overshoot=overshoot)
    return _run(lambda *_: (_deepfool.DEEPFOOL, settings), logits_fn, images, labels, threat, key, ids)


def _pgd(loss: str, *arguments: Any, step: float, **settings: Any) -> jax.Array:
    """One of the attacks that are PGD."""
    inputs.check_whole("steps", settings["steps"])
    inputs.check_number("step", step, zero=False)
    inputs.check_scale(settings.get("scale", 1.0))
    return _run(kinds.Pgd("pgd", loss, step=step, **settings).build, *arguments)


def _run(
    build: Callable[[Threat, int, tuple[int, ...]], tuple[Search, dict[str, Any]]],
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    key: Key,
    ids: Ids | None,
) -> jax.Array:
    """One batch of the search that `build` gives, until all of its images are done."""
    if not isinstance(threat, Threat):
        raise ValueError(f"threat is {threat!r}; give a Threat, such as ltrobust.Threat('linf', 8) for linf 8/255.")
    images, labels = (one if isinstance(one, jax.Array) else np.asarray(one) for one in (images, labels))
    ball.check_shape(images.shape)
    if len(images) == 0:
        raise ValueError("there are 0 images; give at least 1.")
    num_classes = inputs.count_classes(logits_fn, images.shape[1:])
    inputs.check_labels(labels, len(images), num_classes)
    search, settings = build(threat, num_classes, images.shape[1:])
    lanes = searches.run(
        search,
        # In float32, as in an evaluation: losses and margins of bfloat16 logits would often tie.
        lambda points: logits_fn(points).astype(jnp.float32),
        images,
        labels,
        searches.keys_of(inputs.root_of(key), inputs.ids_of(ids, len(images))),
        settings=settings,
        threat=threat,
    )
    return jax.lax.stop_gradient(lanes.state.candidate)
