"""The verdict on an adversarial image: the exact network's prediction, and whether the image was allowed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball, objectives
from ltrobust.evaluation import verdict
from ltrobust.threat import Threat

# In place of an infinite margin, which JSON does not have: a resumed evaluation is to have the same verdicts.
_LARGEST = float(np.finfo(np.float32).max)
# Allowed excess over ball and bounds, pixel units: float32 rounding of x + delta, not 1 %.
TOLERANCE = 1e-6

Apply = Callable[[Any, jax.Array], jax.Array]


class Judgement(NamedTuple):
    """The exact network on a batch of points, arrays on devices or on the host: [B], and logits [B,K].

    `rounded`: prediction of the point as an 8-bit image. `margins`: `z_y - max_{j != y} z_j`. `norms` and `violations`
    in pixel units. `tied`: the label shares the highest logit with another class.
    """

    predictions: Any
    rounded: Any
    margins: Any
    norms: Any
    violations: Any
    tied: Any
    logits: Any


def judge(
    exact_apply: Apply,
    num_classes: int,
    threat: Threat,
    variables: Any,
    points: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    radius: jax.typing.ArrayLike,
) -> Judgement:
    """The exact network, at highest matmul precision, on points [B,H,W,C], and on the points as 8-bit images.

    Rounded points are brought back into the ball around `images`. A prediction is the lowest class number among equal
    logits.

    Raises:
      ValueError (while traced): the network gives another number of classes.
    """
    # Rounding may move a pixel out of the ball, which would make the 8-bit image a stronger attack than allowed.
    rounded = ball.project(jnp.round(255 * points) / 255, images, radius, threat)

    def exact(points: jax.Array) -> jax.Array:
        # GPUs and TPUs may multiply float32 in fewer bits, which changes predictions near a boundary.
        with jax.default_matmul_precision("highest"):
            return exact_apply(variables, points).astype(jnp.float32)

    # One after the other, so that the peak memory is that of one batch.
    logits, rounded_logits = jax.lax.map(exact, jnp.stack([points, rounded]))
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise ValueError(f"the network gives logits {list(logits.shape)}, but the data have {num_classes} classes.")
    margins = objectives.true_margin(logits, labels.astype(jnp.int32))
    return Judgement(
        predictions=jnp.argmax(logits, axis=-1),
        rounded=jnp.argmax(rounded_logits, axis=-1),
        margins=margins,
        norms=ball.norms(points - images, threat.norm),
        violations=ball.violation(points, images, radius, threat),
        tied=margins == 0,
        logits=logits,
    )


def probabilities_of(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Softmax's probability of one class for each row of logits [B,K], on the host in float64: [B], to six digits."""
    shifted = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return (shifted[np.arange(len(classes)), classes] / shifted.sum(axis=-1)).round(6)


def verdicts(judgement: Judgement, labels: np.ndarray, **search: Any) -> np.ndarray:
    """Verdicts [B] (`verdict.DTYPE`) on judged points, on the host.

    Args:
      judgement: of the points, as host arrays.
      labels: [B].
      search: the fields of a verdict that an attack's search knows, [B] or one value each.
    """
    return verdict.table(
        prediction=judgement.predictions,
        rounded=judgement.rounded,
        margin=np.clip(np.asarray(judgement.margins, float), -_LARGEST, _LARGEST),
        probability=probabilities_of(judgement.logits, labels),
        confidence=probabilities_of(judgement.logits, judgement.predictions),
        norm=judgement.norms,
        tied=judgement.tied,
        violation=judgement.violations,
        **search,
    )


def check(judgement: Judgement, which: np.ndarray) -> None:
    """Raises for an adversarial image outside of ball or bounds, or NaN logits, among the entries at `which`.

    Raises:
      FloatingPointError: says by how much.
    """
    check_logits(np.asarray(judgement.logits)[which])
    violations = np.asarray(judgement.violations)[which]
    # Not `violations > TOLERANCE`, which would let NaN pass.
    if not np.all(violations <= TOLERANCE):
        raise FloatingPointError(
            f"an attack left its ball or the pixel bounds by {violations.max()} (allowed: {TOLERANCE}); "
            "this is a bug in the attack, and no number from it counts."
        )


def check_logits(logits: np.ndarray) -> None:
    """Stops on NaN logits.

    Raises:
      FloatingPointError: there are some.
    """
    if np.isnan(logits).any():
        raise FloatingPointError("the network gives NaN logits; its weights or its input normalisation are broken.")
