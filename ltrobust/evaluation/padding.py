"""How many rows a batch needs on the CPU, so that an image's result has the same bits in every batch.

XLA's CPU backend chooses its kernels by shape, and kernels differ in the order of their sums. Measured with jax 0.10 on
x86 (one and two threads), forwards and input gradients inside and outside of loops, compared bit by bit with batches of
64 to 1,024 rows; positions in the batch and neighbours never mattered:

| operation on a batch | bits of a large batch from |
|---|---|
| product [B,k] x [k,n], n up to 16 | 2 rows; for some odd k 52 |
| product [B,k] x [k,n], n above 16 | 52 rows |
| product [B,k] x [n,k] transposed, as in gradients | 2 rows |
| convolution, 2x2 to 56x56 outputs, 3 to 512 channels, kernels of 1, 3, 7 | 256 output positions, B x height x width |
| sum over a row, such as a softmax's | on one side of 4,096 elements, B x n |

So 64 rows are what any network needs, and 2 are enough for a convolutional network on large images with few classes: 2
images of 224x224 cost a 32nd. `rows` traces the network and looks at each of its operations. Whatever is not in the
table, such as products of two batches (attention), needs 64 rows. Small networks are not looked at: padding is cheap.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

ROWS = 64  # enough for every operation in the table
# Rows per device that are tried, fewest first. The other numbers are those of the table.
_FEW = (2, 4, 8, 16, 32)
_OUTPUTS, _DEPTH = 16, 8  # a product with at most so many outputs and a multiple of so many terms needs 2 rows
_POSITIONS = 256
_ELEMENTS = 4096
EXPENSIVE = 2e9  # multiplications and additions of ROWS rows, above which fewer are worth a trace


def rows(
    functions: tuple[Callable[[Any, jax.Array], jax.Array], ...],
    variables: Any,
    image_shape: tuple[int, ...],
    num_classes: int,
    wanted: int,
    *,
    expensive: float = EXPENSIVE,
) -> int:
    """The fewest rows, at least `wanted`, with the bits of a batch of 64 or more; 64 where it is not worth a look.

    Args:
      functions: networks `(variables, images) -> logits`, of which the first is differentiated by attacks.
      variables: of the networks.
      image_shape: height, width and channels.
      num_classes: logits, over which losses sum.
      wanted: images that there are.
      expensive: multiplications and additions of 64 rows, from which on fewer rows are worth a trace.
    """
    candidates = [number for number in _FEW if number >= wanted]
    if not candidates:
        return ROWS
    large = _operations(functions, variables, image_shape, ROWS)
    # For a small network the trace takes longer than the padding that it could save.
    if sum(map(_cost, large)) < expensive:
        return ROWS
    for number in candidates:
        if not _same_side(number * num_classes, ROWS * num_classes):
            continue
        small = _operations(functions, variables, image_shape, number)
        if len(small) == len(large) and all(map(_keeps_bits, small, large)):
            return number
    return ROWS


def _operations(functions: Any, variables: Any, image_shape: tuple[int, ...], number: int) -> list[Any]:
    """Every operation of the networks and of the first one's input gradient, on so many images."""
    images = jax.ShapeDtypeStruct((number, *image_shape), jnp.float32)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jax.dtypes.result_type(leaf)), variables)

    def everything(variables: Any, images: jax.Array) -> Any:
        logits, pull = jax.vjp(lambda points: functions[0](variables, points), images)
        return logits, pull(jnp.ones_like(logits)), [function(variables, images) for function in functions[1:]]

    return list(_flat(jax.make_jaxpr(everything)(shapes, images).jaxpr))


def _flat(jaxpr: Any, wanted: Sequence[bool] = ()) -> Iterator[Any]:
    """The operations that the wanted outputs (default: all) need, the last one first, those inside of others too.

    A custom reverse rule lists all gradients; a program does not compute those that it does not use.
    """
    pairs = zip(jaxpr.outvars, wanted or [True] * len(jaxpr.outvars), strict=True)
    needed = {atom for atom, hit in pairs if hit and not isinstance(atom, core.Literal)}
    for equation in reversed(jaxpr.eqns):
        hits = [variable in needed for variable in equation.outvars]
        if not any(hits) and not equation.effects:
            continue
        needed |= {atom for atom in equation.invars if not isinstance(atom, core.Literal)}
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
                if isinstance(inner, core.Jaxpr):
                    plain = equation.primitive.name in ("jit", "pjit") and len(inner.outvars) == len(hits)
                    yield from _flat(inner, hits if plain else ())


def _shapes(equation: Any) -> list[tuple[int, ...]]:
    """Shapes of what goes in, then of what comes out."""
    return [tuple(atom.aval.shape) for atom in (*equation.invars, *equation.outvars)]


def _cost(equation: Any) -> float:
    """Multiplications and additions of a product or a convolution."""
    if equation.primitive.name not in ("dot_general", "conv_general_dilated"):
        return 0
    _, right, out = _shapes(equation)[:3]
    if equation.primitive.name == "dot_general":
        (_, contracted), _ = equation.params["dimension_numbers"]
        return math.prod(out) * math.prod(right[axis] for axis in contracted)
    outputs = equation.params["dimension_numbers"].rhs_spec[0]
    return math.prod(out) * math.prod(right) / right[outputs]


def _keeps_bits(small: Any, large: Any) -> bool:
    """Whether an operation has the same bits on a small and on a large batch, by the table above."""
    name = small.primitive.name
    if name != large.primitive.name:
        return False
    if _shapes(small) == _shapes(large):
        return True  # it does not see the batch
    if name == "dot_general":
        return _product_keeps_bits(small, large)
    if name == "conv_general_dilated":
        spec, out = small.params["dimension_numbers"].out_spec, _shapes(small)[2]
        # A kernel that grows with the batch, as in a kernel gradient, was not measured.
        if _shapes(small)[1] != _shapes(large)[1]:
            return False
        return out[spec[0]] * math.prod(out[axis] for axis in spec[2:]) >= _POSITIONS
    if name.startswith("reduce_") and "precision" not in name:
        return _same_side(*(math.prod(_shapes(one)[0]) for one in (small, large)))
    # Everything else works element by element, so a row does not see the others. These may not.
    return not (name.startswith(("cum", "fft")) or "callback" in name or "custom_call" in name or "ffi" in name)


def _product_keeps_bits(small: Any, large: Any) -> bool:
    """The same for a matrix product, whose first factor is the batch."""
    left, right, out = _shapes(small)[:3]
    # A second factor that grows with the batch, as in attention, was not measured.
    if right != _shapes(large)[1]:
        return False
    (summed, over), (batch, _) = small.params["dimension_numbers"]
    free = [axis for axis in range(len(left)) if axis not in (*summed, *batch)]
    number = math.prod(left[axis] for axis in free)
    depth, outputs = math.prod(left[axis] for axis in summed), math.prod(out) // max(number, 1)
    transposed = len(right) == 2 and tuple(over) == (1,)
    if number >= ROWS:
        return True
    return number >= 2 and (transposed or (outputs <= _OUTPUTS and depth % _DEPTH == 0))


def _same_side(small: int, large: int) -> bool:
    """Whether two numbers of elements are summed alike."""
    return (small >= _ELEMENTS) == (large >= _ELEMENTS)
