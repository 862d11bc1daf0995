"""Which numbers a training step should sum over devices; `compilation/hlo.py` reads what a compiled one does."""

from collections.abc import Sequence
from typing import Any

from ltrobust import models
from ltrobust.compilation.hlo import Collective
from ltrobust.methods import Method


def expected(
    params: Any, batch_stats: Any, method: Method, *, metrics: int, synchronised: bool, differentiated: int
) -> int:
    """Numbers that one step sums over devices: gradients once, the loss and the metrics, and those of batch norm.

    With synchronised statistics, each train-mode pass sums a mean and a variance of every normalised channel, and each
    pass that is differentiated sums their two cotangents too. Without, the running statistics are averaged once.

    In a post-activation block, both norms before the last sum have the same gradient of their biases, so that one sum
    serves both: XLA finds that out, and so it is expected.

    Args:
      metrics: how many numbers the method's loss records.
      differentiated: train-mode passes through which the loss is differentiated.

    Raises:
      ValueError: a method that does not name its passes.
    """
    if method.passes is None:
        raise ValueError(f"{method.name} does not say which train-mode passes it makes, so nothing can be expected.")
    statistics = models.count_parameters(batch_stats)
    rounds = len(method.passes) + differentiated if synchronised else 1
    scalars = 2 + metrics  # the loss, the number of right answers, and the method's own
    shared = sum(block["shortcut_norm"]["bias"].size for block in params.values() if "shortcut_norm" in block)
    return models.count_parameters(params) - shared + rounds * statistics + scalars


def summarise(found: Sequence[Collective]) -> dict[str, int]:
    """How many collectives, in how many loops at most, and how many bytes a device gives to them."""
    return {
        "collectives": len(found),
        "deepest": max((one.depth for one in found), default=0),
        "bytes": sum(one.bytes for one in found),
    }
