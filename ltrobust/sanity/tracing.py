"""Searches a network's trace for operations that hide its gradient, for loops that optimise, and for randomness.

The network is traced, not run. Only operations that depend on the images count, so rounding a parameter or counting
positions is allowed; callbacks and random draws always count.
"""

import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core

# Primitive -> its effect on a gradient.
_HIDING = {
    "round": "rounding",
    "floor": "rounding down",
    "ceil": "rounding up",
    "sign": "sign",
    "stop_gradient": "stopped gradient",
    "argmax": "argmax",
    "argmin": "argmin",
    "sort": "sorting",
    "top_k": "top-k",
    "approx_top_k": "top-k",
    "custom_jvp_call": "custom derivative",
    "custom_vjp_call": "custom derivative",
    "while": "while loop",
    "scan": "scan",
}
_RANDOM = {"random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform"}
# Functions of JAX with the right derivative although they contain one of the operations above.
_SOUND = {
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "softplus", "logaddexp", "hard_tanh"),
    *("sigmoid", "hard_sigmoid", "softmax", "log_softmax", "clip"),
}
_OF_JAX = pathlib.Path(jax.__file__).parent
# Operations after which a maximum over an axis is still that maximum.
_PASSING_ON = ("max", "select_n", "broadcast_in_dim", "convert_element_type", "reshape")


class Trace(NamedTuple):
    """How often each operation occurs, by its description.

    Attributes:
      explained: looks suspicious, and is known to have the right derivative.
      hiding: no derivative, one that is not that of the function, or one that depends on a branch.
      forbidden: gradients taken inside the forward pass, callbacks, random draws.
    """

    explained: Counter[str]
    hiding: Counter[str]
    forbidden: Counter[str]


def trace(apply: Callable[[Any, jax.Array], jax.Array], variables: Any, image_shape: tuple[int, ...]) -> Trace:
    """Walks `apply(variables, images float32 [2, *image_shape])` with all that it calls.

    A gradient inside the forward pass is recognised by the name that JAX gives to transposed operations, whether it
    stands in a loop or was written out.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), "float32")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jax.numpy.shape(leaf), _dtype(leaf)), variables)
    closed = jax.make_jaxpr(apply)(shapes, images)
    result = Trace(Counter(), Counter(), Counter())
    reached = [False] * (len(closed.jaxpr.invars) - 1) + [True]
    _walk(closed.jaxpr, reached, result)
    return result


def _dtype(leaf: Any) -> Any:
    """The type that JAX gives to a leaf."""
    return jax.dtypes.result_type(leaf)


def _walk(jaxpr: Any, reached: list[bool], found: Trace) -> list[bool]:
    """Counts the operations of one jaxpr; whether the images reach each of its outputs."""
    variables = {variable for variable, hit in zip(jaxpr.invars, reached, strict=True) if hit}
    makers: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        hits = [not isinstance(atom, core.Literal) and atom in variables for atom in equation.invars]
        makers.update(dict.fromkeys(equation.outvars, equation))
        outputs = _count(equation, hits, makers, found)
        variables |= {variable for variable, hit in zip(equation.outvars, outputs, strict=True) if hit}
    return [not isinstance(atom, core.Literal) and atom in variables for atom in jaxpr.outvars]


def _count(equation: Any, hits: list[bool], makers: dict[Any, Any], found: Trace) -> list[bool]:
    """Counts one operation and what is inside; whether the images reach each output."""
    name, reached = equation.primitive.name, any(hits)
    everywhere = [reached] * len(equation.outvars)
    if "callback" in name or name in _RANDOM:
        found.forbidden["callback" if "callback" in name else "random draw"] += 1
        return everywhere
    # JAX names the operations of a backward pass `transpose(...)`.
    if reached and "transpose(" in str(equation.source_info.name_stack):
        found.forbidden["gradient inside the forward pass"] += 1
        return everywhere
    sound = _sound(equation)
    if reached and sound:
        found.explained[sound] += 1
        return everywhere
    hiding = _hiding(equation, hits)
    if reached and hiding:
        # logsumexp subtracts its maximum behind a stopped gradient, which changes no derivative.
        shift = name == "stop_gradient" and _is_maximum(equation.invars[0], makers)
        if shift:
            found.explained["shift by the maximum"] += 1
        else:
            found.hiding[hiding] += 1
    for inner, inner_hits in _inside(equation, hits):
        outputs = _walk(inner, inner_hits, found)
        # Only calls pass on which outputs depend on the images. For loops and branches all of them count as reached.
        if name in ("jit", "pjit") and len(outputs) == len(everywhere):
            everywhere = outputs
    return everywhere


def _hiding(equation: Any, hits: list[bool]) -> str | None:
    """Effect of an operation on a gradient that passes through it; None for no effect."""
    name = equation.primitive.name
    if name in ("select_n", "cond"):
        return {"select_n": "selection by comparison", "cond": "branch"}[name] if hits[0] else None
    if name == "convert_element_type":
        before, after = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
        floating = jax.numpy.issubdtype(before, jax.numpy.floating)
        whole = jax.numpy.issubdtype(after, jax.numpy.integer)
        return "conversion to integers" if floating and whole else None
    return _HIDING.get(name)


def _sound(equation: Any) -> str | None:
    """The name of a known function whose derivative is right, None for any other operation."""
    name = equation.primitive.name
    if name == "cpu_convolution":  # the primitive of `models/cpu/convolution.py`
        return "convolution"
    if name in ("jit", "pjit", "custom_jvp_call"):
        body = next((inner for inner, _ in _inside(equation, [])), None)
        where = getattr(body, "debug_info", None)
        function = str(getattr(where, "func_name", "")).split(".")[-1]
        file = str(getattr(where, "func_filename", "") or "")
        # By name and file, so that a user's own function called `relu` is not taken for JAX's.
        return function if function in _SOUND and pathlib.Path(file).is_relative_to(_OF_JAX) else None
    return None


def _is_maximum(atom: Any, makers: dict[Any, Any]) -> bool:
    """Whether a value is a maximum over an axis, up to operations that keep it."""
    maker = None if isinstance(atom, core.Literal) else makers.get(atom)
    if maker is None or maker.primitive.name not in _PASSING_ON:
        return maker is not None and maker.primitive.name == "reduce_max"
    return any(_is_maximum(before, makers) for before in maker.invars)


def _inside(equation: Any, hits: list[bool]) -> Iterator[tuple[Any, list[bool]]]:
    """The jaxprs in an operation's parameters, each with the inputs that the images reach."""
    for value in equation.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            inner = part.jaxpr if isinstance(part, core.ClosedJaxpr) else part
            if isinstance(inner, core.Jaxpr):
                yield inner, _inputs(equation.primitive.name, len(inner.invars), hits)


def _inputs(name: str, number: int, hits: list[bool]) -> list[bool]:
    """Which inputs of an inner jaxpr the images reach; all of them where its inputs go round in a loop."""
    if name == "cond" and len(hits) == number + 1:
        return hits[1:]
    # In a loop, what the images reach in one iteration may enter any input of the next.
    if name not in ("scan", "while") and len(hits) == number:
        return hits
    return [any(hits)] * number
