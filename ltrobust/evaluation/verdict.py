"""The fields of a verdict, defined once: arrays in memory and lines on disk follow from them. No JAX."""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One image after one attack, as the exact network sees it.

    The adversarial image is the point at which the attack ended: where it found nothing, the last iterate of PGD and of
    `deepfool`, else the image itself or a point whose claim was rejected. The defaults stand for an image that the
    attack did not see. Arrays of verdicts have the type `DTYPE`: `found["margin"]` is one field of all images.

    Attributes:
      prediction: class of the adversarial image, from 0; -1 where the attack did not see the image.
      rounded: class of the adversarial image rounded to 8 bits and brought back into the ball, from 0; -1 likewise.
      evaluations: passes through the network (forward, or forward and backward) that the attack took, from 0; -1
        likewise.
      target: class aimed at when the image was broken, from 0; -1 for none.
      margin: `z_y - max_{j != y} z_j` on the adversarial image, in logits, below 0 where it is misclassified; an
        infinite one is the largest float32. NaN where the attack did not see the image.
      probability: softmax's of the true class on the adversarial image, 0 to 1, to six digits; NaN likewise.
      confidence: softmax's of the predicted class, likewise.
      norm: of the perturbation, in the threat's norm, in pixel units (1 is the full range), from 0; NaN likewise.
      tied: whether the true class shares the highest logit with another class.
      non_finite: whether a gradient was not finite; the attack took it as 0.
      rejected_claims: how many claims of success the exact network did not confirm, from 0.
      violation: excess over ball and bounds, in pixel units, 0 to `judge.TOLERANCE`.
    """

    prediction: int = -1
    rounded: int = -1
    evaluations: int = -1
    target: int = -1
    margin: float = math.nan
    probability: float = math.nan
    confidence: float = math.nan
    norm: float = math.nan
    tied: bool = False
    non_finite: bool = False
    rejected_claims: int = 0
    violation: float = 0.0


_DEFAULTS = dataclasses.asdict(Verdict())
FIELDS = tuple(_DEFAULTS)
# Of an array of verdicts: int64, float64 or bool for each field.
DTYPE = np.dtype([(name, type(value)) for name, value in _DEFAULTS.items()])


def unseen(number: int) -> np.ndarray:
    """Verdicts [N] of an attack that saw none of so many images."""
    return np.full(number, np.array(tuple(_DEFAULTS.values()), DTYPE))


def table(**columns: Any) -> np.ndarray:
    """Verdicts [N] from one array [N], or one value for all, for each field.

    Raises:
      TypeError: fields that are missing or unknown (names them).
    """
    if wrong := columns.keys() ^ set(FIELDS):
        raise TypeError(f"fields of a verdict are {', '.join(FIELDS)}; missing or unknown: {', '.join(sorted(wrong))}.")
    result = np.empty(np.shape(columns["prediction"]), DTYPE)
    for name, values in columns.items():
        result[name] = values
    return result


def row(verdict: Verdict) -> tuple[Any, ...]:
    """One verdict as an element of an array of `DTYPE`."""
    return tuple(getattr(verdict, name) for name in FIELDS)
