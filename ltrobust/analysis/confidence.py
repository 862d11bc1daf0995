"""Probability that a network gives to the true class, clean and under attack, from its verdicts. NumPy only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis import intervals
from ltrobust.analysis.intervals import Estimate
from ltrobust.evaluation import store
from ltrobust.evaluation.lines import AttackVerdicts


def true_probabilities(
    provenance: Mapping[str, Any], verdicts: Mapping[str, AttackVerdicts], column: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax's probability of each image's true class, float64 [N] by ascending id: clean, and lowest under attack.

    The lowest is over the clean image and the points that the column's attacks were judged at. An image that is wrong
    when clean is not attacked and keeps its clean value. So the second array bounds the lowest probability in the ball
    from above.

    Args:
      provenance, verdicts: from `store.read`.
      column: None for the protocol's headline.

    Raises:
      ValueError: no such column.
    """
    clean = verdicts["clean"].rows
    # The image itself is in the ball, so its clean probability is the first bound.
    lowest = clean["probability"].copy()
    for known in (verdicts[name] for name in store.members(provenance, column) if name in verdicts):
        places = known.places(clean["image"])
        seen = places >= 0
        lowest[seen] = np.minimum(lowest[seen], known.rows["probability"][places[seen]])
    return clean["probability"], lowest


def mean_by(groups: Sequence[np.ndarray], values: np.ndarray) -> list[Estimate]:
    """Mean of values [N] over each group's positions, with the normal interval of `SE = sd / sqrt(n)`, inside [0, 1].

    NaN for an empty group; of one value the interval is all of [0, 1].
    """
    result = []
    for positions in groups:
        chosen = values[positions]
        if not len(chosen):
            result.append(Estimate(math.nan, math.nan, math.nan))
            continue
        error = float(chosen.std(ddof=1)) / math.sqrt(len(chosen)) if len(chosen) > 1 else math.inf
        result.append(intervals.normal(float(chosen.mean()), error, 0.0, 1.0))
    return result
