"""The choice of a class-logit offset on the validation part. No JAX."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)
MOST_LOSS = 0.01


@dataclasses.dataclass(frozen=True)
class Offset:
    """What was chosen on the validation part, and between what.

    Attributes:
      weakest: the class with the lowest robust accuracy of the unchanged network.
      factor: s of it; 1 for all others.
      tried: (s, mean, worst) robust accuracy over classes for each candidate.
    """

    weakest: int
    factor: float
    tried: tuple[tuple[float, float, float], ...]

    def factors(self, num_classes: int) -> np.ndarray:
        """s, float32 [C]."""
        return _factors(self.weakest, self.factor, num_classes)


def fit(
    robust_accuracy: Callable[[np.ndarray], np.ndarray],
    num_classes: int,
    *,
    factors: Sequence[float] = FACTORS,
    most_loss: float = MOST_LOSS,
) -> Offset:
    """The s of the weakest class with the highest mean plus worst robust accuracy, the smallest of equals.

    Candidates whose mean is more than `most_loss` below that of s = 1, which always is one, are left out.

    Args:
      robust_accuracy: s [C] -> robust accuracy [C] on the validation part of the network with offsets log s; NaN for a
        class without images there.
      num_classes: C.
      factors: candidates, at least 1.
      most_loss: of the mean, a fraction.

    Raises:
      ValueError: a candidate below 1, negative loss, or no class with validation images.
    """
    if min(factors) < 1 or not most_loss >= 0:
        raise ValueError(f"factors are {list(factors)} and most_loss is {most_loss}; at least 1 and 0 are needed.")
    plain = robust_accuracy(np.ones(num_classes, np.float32))
    if np.all(np.isnan(plain)):
        raise ValueError("no class has a validation image, so there is no weakest one; train with a validation part.")
    weakest = int(np.nanargmin(plain))
    tried = [(1.0, float(np.nanmean(plain)), float(np.nanmin(plain)))]
    for factor in sorted(set(factors) - {1.0}):
        found = robust_accuracy(_factors(weakest, factor, num_classes))
        tried.append((factor, float(np.nanmean(found)), float(np.nanmin(found))))
    allowed = [trial for trial in tried if trial[1] >= tried[0][1] - most_loss]
    best = max(allowed, key=lambda trial: trial[1] + trial[2])  # the first of equals
    return Offset(weakest, best[0], tuple(tried))


def _factors(weakest: int, factor: float, num_classes: int) -> np.ndarray:
    """1 for all classes but one."""
    values = np.ones(num_classes, np.float32)
    values[weakest] = factor
    return values
