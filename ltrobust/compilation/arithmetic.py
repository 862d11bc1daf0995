"""FLOPs of a traced program: convolutions and matrix products by their shapes, loops multiplied.

A multiplication with its addition is two FLOPs. Taps that fall on padding count, as in the literature; normalisation,
activations and losses do not.
"""

import math
from typing import Any, NamedTuple

from jax.extend import core
from jax.interpreters import partial_eval


class Flops(NamedTuple):
    """`once`: outside of loops of unknown length; `each`: one round of those loops."""

    once: int
    each: int

    def __add__(self, other: "Flops") -> "Flops":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Flops(self.once + other.once, self.each + other.each)

    def times(self, count: int) -> "Flops":
        """Multiplies by a number of rounds."""
        return Flops(count * self.once, count * self.each)


def count(closed: core.ClosedJaxpr) -> Flops:
    """FLOPs of `jax.jit(...).trace(...).jaxpr`, without what no output needs; of one device inside of `shard_map`."""
    used, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _count(used)


def _count(jaxpr: Any) -> Flops:
    total = Flops(0, 0)
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, _inner(equation)
        if name == "dot_general":
            total += Flops(_product(equation), 0)
        elif name == "conv_general_dilated":
            total += Flops(_convolution(equation), 0)
        elif name == "while":
            rounds = [_count(part) for part in inner]
            total += Flops(0, sum(sum(part) for part in rounds))
        elif name == "scan":
            total += sum((_count(part) for part in inner), Flops(0, 0)).times(equation.params["length"])
        elif name == "cond":
            total += max((_count(part) for part in inner), key=sum)
        else:
            for part in inner:
                total += _count(part)
    return total


def _inner(equation: Any) -> list[Any]:
    """The programs inside of an operation."""
    result = []
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
            if isinstance(part, core.Jaxpr):
                result.append(part)
    return result


def _product(equation: Any) -> int:
    left, _ = (variable.aval.shape for variable in equation.invars[:2])
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: Any) -> int:
    kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
    taps = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    # Zeros between the pixels of a dilated input are not multiplied by any of the compilers.
    zeros = math.prod(equation.params["lhs_dilation"])
    return 2 * math.prod(equation.outvars[0].aval.shape) * taps // zeros
