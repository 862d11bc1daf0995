"""The choice of a class-logit offset on the validation part. No JAX."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)
TAUS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
MOST_LOSS = 0.01


@dataclasses.dataclass(frozen=True)
class Offset:
    """The choice on the validation part, with its candidates.

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
        result = robust_accuracy(_factors(weakest, factor, num_classes))
        tried.append((factor, float(np.nanmean(result)), float(np.nanmin(result))))
    allowed = [trial for trial in tried if trial[1] >= tried[0][1] - most_loss]
    best = max(allowed, key=lambda trial: trial[1] + trial[2])  # the first of equals
    return Offset(weakest, best[0], tuple(tried))


@dataclasses.dataclass(frozen=True)
class PriorOffset:
    """An offset of every class, by how rare it is: `log s_c = tau log(n_max / n_c)`.

    Attributes:
      tau: chosen on the validation part; 0 leaves the network as it is.
      class_counts: n, training images per class.
      tried: (tau, mean, worst) robust accuracy over classes for each candidate.
    """

    tau: float
    class_counts: tuple[int, ...]
    tried: tuple[tuple[float, float, float], ...]

    def factors(self, num_classes: int) -> np.ndarray:
        """s, float32 [C]."""
        return _prior_factors(np.array(self.class_counts), self.tau)


def fit_prior(
    robust_accuracy: Callable[[np.ndarray], np.ndarray], class_counts: np.ndarray, *, taus: Sequence[float] = TAUS
) -> PriorOffset:
    """The tau with the highest mean robust accuracy over classes, the smallest of equals; 0 always is a candidate.

    Args:
      robust_accuracy: as of `fit`.
      class_counts: n, training images per class, int64 [C].
      taus: candidates.

    Raises:
      ValueError: a negative candidate, or no class with validation images.
    """
    if min(taus) < 0:
        raise ValueError(f"taus are {list(taus)}; at least 0 is needed.")
    tried = []
    for tau in sorted({0.0, *taus}):
        result = robust_accuracy(_prior_factors(class_counts, tau))
        if np.all(np.isnan(result)):
            raise ValueError(
                "no class has a validation image, so no offset can be chosen; train with a validation part."
            )
        tried.append((float(tau), float(np.nanmean(result)), float(np.nanmin(result))))
    best = max(tried, key=lambda trial: trial[1])  # the first of equals
    return PriorOffset(best[0], tuple(int(count) for count in class_counts), tuple(tried))


def _prior_factors(class_counts: np.ndarray, tau: float) -> np.ndarray:
    """`(n_max / n_c)^tau`, float32 [C]."""
    return ((class_counts.max() / class_counts) ** tau).astype(np.float32)


def _factors(weakest: int, factor: float, num_classes: int) -> np.ndarray:
    """1 for all classes but one."""
    values = np.ones(num_classes, np.float32)
    values[weakest] = factor
    return values
