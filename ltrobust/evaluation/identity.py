"""Recognises a network by its outputs, which must be equal up to the rounding of another machine. No JAX.

Logits of float32 networks differ by about 1e-6 of their size between machines. A logit without meaning may be huge (a
mask of -1e9, a constant added to all), so differences are compared with the spread of the other logits of the same
image, and with the rounding of the logit itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

_OF_SPREAD = 1e-3  # of the median distance of an image's logits from their median
_OF_GRADIENT = 0.05  # of a gradient's length; bfloat16 rounds to 0.004
_MASK = 1e6  # a logit of that size says nothing
# A few units in the last place of the logit itself.
_ROUNDING = 8 * float(np.finfo(np.float32).eps)


def tolerances(logits: np.ndarray) -> np.ndarray:
    """Allowed difference of each logit between machines, [N, K] for logits [N, K]."""
    logits = np.asarray(logits, float)
    finite = np.where(np.isfinite(logits), logits, np.nan)
    centre = np.nanmedian(finite, axis=1, keepdims=True)
    spread = np.nanmedian(np.abs(finite - centre), axis=1, keepdims=True)
    return _OF_SPREAD * np.maximum(spread, 1e-3) + _ROUNDING * np.abs(np.nan_to_num(finite))


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Differences between the probes (`probe.take`) of two networks, a line each; empty for the same network."""
    names = ("logits", "gradients", "gradient_norms")
    pairs = {name: [np.asarray(each.get(name, []), float) for each in (there, here)] for name in names}
    return [
        f"network.{name}: {_short(first)} -> {_short(second)}"
        for name, (first, second) in pairs.items()
        if first.shape != second.shape or not _within(first, second, _allowed(name, pairs))
    ]


def _allowed(name: str, pairs: Mapping[str, list[np.ndarray]]) -> np.ndarray:
    """By how much the values of a probe may differ."""
    if name == "logits":
        logits = pairs[name][1]
        return tolerances(logits) if logits.size else np.zeros(1)
    norms, other = pairs["gradient_norms"]
    if norms.shape != other.shape:
        return np.zeros(1)
    lengths = _OF_GRADIENT * np.maximum(norms, other)
    # A projection on a random direction is about as long as the gradient.
    return lengths[:, None] if name == "gradients" else lengths


def other_answers(
    known: np.ndarray, known_margins: np.ndarray, logits: np.ndarray, margins: np.ndarray, predictions: np.ndarray
) -> np.ndarray:
    """Images on which a network's answers differ from the known ones, bool [N].

    Args:
      known: predictions [N].
      known_margins: `z_y - max_{j != y} z_j` [N]; NaN where it is not known.
      logits: [N, K], now.
      margins: [N], now.
      predictions: [N], now.
    """
    # A prediction outside of the classes can only come from another network.
    rows, valid = np.arange(len(logits)), (known >= 0) & (known < logits.shape[1])
    # Of two logits. A mask's rounding would excuse everything.
    allowed = 2 * np.max(tolerances(logits), axis=1, where=np.abs(logits) < _MASK, initial=0.0)
    with np.errstate(invalid="ignore"):
        apart = np.abs(logits[rows, predictions] - logits[rows, np.where(valid, known, 0)])
        moved = np.abs(known_margins - margins) > allowed + _ROUNDING * np.abs(margins)
    moved &= np.isfinite(known_margins) & np.isfinite(margins)
    # Two classes whose logits are closer than rounding may change places between machines.
    return ~valid | ((known != predictions) & (apart > allowed)) | moved


def _within(first: np.ndarray, second: np.ndarray, allowed: np.ndarray) -> bool:
    """Whether two arrays of one shape differ by at most `allowed`; infinities and NaN have to be the same."""
    with np.errstate(invalid="ignore"):
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        return bool(np.all(same | (np.abs(first - second) <= allowed)))


def _short(values: np.ndarray) -> str:
    """The first image's, three digits, at most eight numbers."""
    flat = np.atleast_1d(values[0] if values.size else values).ravel()
    return (
        "[" + ", ".join(f"{value:.4g}" for value in flat[:8]) + (", ...]" if flat.size > 8 or len(values) > 1 else "]")
    )
