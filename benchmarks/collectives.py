"""Which collectives a compiled program makes, read from its HLO text, and which ones a training step should make."""

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from ltrobust import models
from ltrobust.methods import Method

KINDS = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "collective-broadcast", "reduce-scatter")
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?%\S+ = (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]+?(\d+))\[([\d,]*)\]")
_CALLED = re.compile(r"(body|condition|calls|to_apply|\w+_computations?)=(?:\{([^}]*)\}|(%\S+?)(?=[,\s)]|$))")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction: its kind, how many loops it stands in, how many numbers and bytes a device gives."""

    kind: str
    depth: int
    numbers: int
    bytes: int


def read(text: str) -> list[Collective]:
    """The collectives of `compiled.as_text()`.

    A computation that is called from several places counts once, at the deepest of them. Loops are not unrolled: an
    instruction counts once, however often its loop runs.
    """
    computations = _computations(text)
    depths = _depths(computations)
    found = []
    for name, lines in computations.items():
        for line in lines:
            matched = _INSTRUCTION.match(line)
            if matched and name in depths:
                numbers, size = _size(matched[1])
                found.append(Collective(matched[2], depths[name], numbers, size))
    return found


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


def _computations(text: str) -> dict[str, list[str]]:
    """Lines of each computation by its name; the entry's has the empty name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        header = re.match(r"(ENTRY )?(%\S+) \(.*\{$", line)
        if header:
            lines = found.setdefault("" if header[1] else header[2], [])
        elif line.startswith(" "):
            lines.append(line)
    return found


def _depths(computations: dict[str, list[str]]) -> dict[str, int]:
    """In how many loops each computation stands, at most; only of those that the entry reaches."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for name, lines in computations.items():
        for line in lines:
            for role, several, one in _CALLED.findall(line):
                for called in re.split(r",\s*", several or one):
                    callers.setdefault(called, []).append((name, int(role == "body" and " while(" in line)))

    @functools.cache
    def depth(name: str) -> float:
        if name == "":
            return 0
        return max((depth(caller) + deeper for caller, deeper in callers.get(name, ())), default=-math.inf)

    return {name: int(depth(name)) for name in computations if depth(name) >= 0}


def _size(shapes: str) -> tuple[int, int]:
    """Numbers and bytes of an HLO shape or tuple of shapes."""
    numbers, size = 0, 0
    for kind, bits, sides in _ARRAY.findall(shapes):
        count = math.prod(int(side) for side in sides.split(",") if side)
        numbers += count
        size += count * (1 if kind == "pred" else int(bits or 16) // 8)
    return numbers, size


def summarise(found: Sequence[Collective]) -> dict[str, int]:
    """How many collectives, in how many loops at most, and how many bytes a device gives to them."""
    return {
        "collectives": len(found),
        "deepest": max((one.depth for one in found), default=0),
        "bytes": sum(one.bytes for one in found),
    }
