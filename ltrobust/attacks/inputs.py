"""Checks of the inputs of attacks and evaluations: functions, labels, ids, keys and settings."""

import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Images = jax.Array | np.ndarray
Labels = jax.Array | np.ndarray
Ids = jax.Array | np.ndarray
Key = int | jax.Array

_LARGEST = float(np.finfo(np.float32).max)
_TRACED = 3  # images in the trace of a function: no 1, which could come from anywhere
_NEEDED = (
    "Needed is a function of jax.numpy from images [B,H,W,C] to logits [B,K]; of a PyTorch module make one by "
    "ltrobust.from_torch."
)


def count_classes(logits_fn: Callable[[jax.Array], jax.Array], image_shape: tuple[int, ...]) -> int:
    """Counts the logits of a function, which is traced with its gradient and not run.

    Raises:
      ValueError: JAX cannot trace and differentiate the function (a PyTorch module, a NumPy function), or it does not
        return floats [batch, classes]. Exceptions of the function itself are not caught.
    """
    if any(base.__module__.partition(".")[0] == "torch" for base in type(logits_fn).__mro__):
        raise ValueError(
            f"logits_fn is {type(logits_fn).__name__}, a PyTorch module, which JAX cannot trace. {_NEEDED}"
        )
    if not callable(logits_fn):
        raise ValueError(f"logits_fn is {type(logits_fn).__name__}, which cannot be called. {_NEEDED}")
    images = jax.ShapeDtypeStruct((_TRACED, *image_shape), jnp.float32)
    logits = _traced(logits_fn, images)
    if not isinstance(logits, jax.ShapeDtypeStruct):
        raise ValueError(f"logits_fn gives {_kind(logits)}; return the array of logits [batch, classes] alone.")
    if logits.ndim != 2 or logits.shape[0] != _TRACED:
        raise ValueError(
            f"logits_fn gives {list(logits.shape)} for images {list(images.shape)}; it must give an array "
            "[batch, classes], a row for each image. Two classes need two logits."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"logits_fn gives {logits.dtype}; return logits, not classes: attacks need their gradient.")
    # The gradient too: a function without one is refused here, not after the first attack.
    _traced(jax.grad(lambda points: jnp.sum(logits_fn(points).astype(jnp.float32))), images)
    return logits.shape[1]


def _traced(function: Callable, images: jax.ShapeDtypeStruct) -> Any:
    """Shapes of the function's result; errors of NumPy or PyTorch code are explained."""
    try:
        return jax.eval_shape(function, images)
    except Exception as error:
        text = str(error).strip().partition("\n")[0]
        foreign = isinstance(error, jax.errors.JAXTypeError) or "Tracer" in text or "not support JVP" in text
        frames = traceback.walk_tb(error.__traceback__)
        if foreign or any(frame.f_globals.get("__name__", "").startswith("torch.") for frame, _ in frames):
            raise ValueError(
                f"logits_fn cannot be traced by JAX ({type(error).__name__}: {text[:160]}). NumPy and PyTorch code has "
                f"no gradient here. {_NEEDED}"
            ) from error
        error.add_note(f"raised by logits_fn for images float32 {list(images.shape)}, [batch, height, width, channel]")
        raise


def _kind(logits: Any) -> str:
    """`a tuple of 2`, `a dict with logits, features`."""
    if isinstance(logits, dict):
        return f"a dict with {', '.join(map(str, logits))}"
    return f"a {type(logits).__name__}" + (f" of {len(logits)}" if isinstance(logits, tuple | list) else "")


def check_labels(labels: Labels, number: int, num_classes: int) -> None:
    """Refuses labels that are not one class per image.

    Values are checked outside of traced functions only.

    Raises:
      ValueError: labels of a wrong type, shape or range, or fewer than two classes.
    """
    if num_classes < 2:
        raise ValueError(f"the network has {num_classes} class(es); an attack needs at least 2.")
    if labels.shape != (number,) or labels.dtype.kind not in "iu" or labels.size == 0:
        if labels.shape == (number, num_classes) and num_classes > 1:
            advice = " One-hot labels become classes by labels.argmax(axis=1)."
        elif labels.shape == (number, 1):
            advice = " Use labels[:, 0]."
        elif labels.shape == (number,) and labels.dtype.kind == "f":
            advice = " Use labels.astype(int)."
        elif labels.shape == (number,) and labels.dtype.kind in "USO":
            advice = " Give the position of each name in the order of the logits."
        else:
            advice = ""
        raise ValueError(
            f"labels must be integers [{number}], one class for each image, got {labels.dtype} {list(labels.shape)}."
            f"{advice}"
        )
    if isinstance(labels, Tracer):
        return
    labels = np.asarray(labels)  # under an outer trace jnp would trace even a concrete array
    if labels.min() < 0 or labels.max() >= num_classes:
        counted_from_1 = labels.min() > 0 and labels.max() == num_classes
        raise ValueError(
            f"labels lie in [{labels.min()}, {labels.max()}]; {num_classes} classes allow 0 to {num_classes - 1}. "
            + (
                "Labels count from 0: use labels - 1."
                if counted_from_1
                else "Every label needs a logit of the network."
            )
        )


def ids_of(ids: Any, number: int) -> jax.Array | np.ndarray:
    """The images' ids, by which draws are addressed; positions where none are given.

    Raises:
      ValueError: not one integer in [0, 2^32) for each image.
    """
    if ids is None:
        return np.arange(number, dtype=np.uint32)
    ids = ids if isinstance(ids, jax.Array) else np.asarray(ids)
    if ids.shape != (number,) or ids.dtype.kind not in "iu":
        raise ValueError(f"ids must be integers [{number}], one for each image, got {ids.dtype} {list(ids.shape)}.")
    if not isinstance(ids, Tracer):
        seen = np.asarray(ids)  # JAX cannot compare its int32 and uint32 with 2^32
        if seen.min() < 0 or seen.max() >= 1 << 32:
            raise ValueError(
                f"ids lie in [{seen.min()}, {seen.max()}]; positions in the test set are allowed, 0 to 2^32 - 1."
            )
    return ids.astype(np.uint32)


def root_of(key: Any) -> jax.Array:
    """The key from which all draws are addressed, from a seed or a key.

    Raises:
      ValueError: neither of them.
    """
    if isinstance(key, jax.Array):
        if key.dtype == jnp.uint32 and key.ndim == 1:  # of jax.random.PRNGKey
            try:
                return jax.random.wrap_key_data(key)
            except TypeError as error:  # which length is right depends on the generator
                raise ValueError(
                    f"key is an array uint32 {list(key.shape)}, no raw key; give a seed, or a key of jax.random.key."
                ) from error
        if key.ndim or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            raise ValueError(f"key is an array {key.dtype} {list(key.shape)}; give a seed, or a key of jax.random.key.")
        return key
    if isinstance(key, bool) or not isinstance(key, int | np.integer) or not 0 <= key < 1 << 31:
        raise ValueError(f"key is {key!r}; give a seed from 0 to 2^31 - 1, or a key of jax.random.key.")
    return jax.random.key(int(key))


def check_whole(name: str, value: Any) -> None:
    """Refuses a setting that is not a count, such as steps, queries or targets.

    Raises:
      ValueError: not an integer from 1 to 2^31 - 1; booleans and whole floats are refused too.
    """
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
        raise ValueError(f"{name} is {value!r}; give an integer from 1 to 2^31 - 1.")


def check_number(name: str, value: Any, *, zero: bool) -> None:
    """Refuses a setting that is not a positive number, or 0 if `zero` allows it. Traced values are not checked.

    Raises:
      ValueError: not a number, or in float32 negative, not finite, or 0 where it is not allowed.
    """
    value = _plain(value)
    if isinstance(value, Tracer):
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= _LARGEST or (np.float32(value) == 0 and not zero):
        raise ValueError(
            f"{name} is {value!r}; give a finite number {'of at least' if zero else 'above'} 0 in float32."
        )


def check_scale(scale: Any) -> None:
    """Refuses factors of logits, one or a sequence, that are not positive numbers. Their number is not checked.

    Raises:
      ValueError: as of `check_number`, which names the position in a sequence.
    """
    scale = np.asarray(scale) if isinstance(scale, jax.Array) and not isinstance(scale, Tracer) else scale
    if isinstance(scale, tuple | list) or (isinstance(scale, np.ndarray) and scale.ndim == 1):
        for position, one in enumerate(scale):
            check_number(f"scale[{position}]", one, zero=False)
    else:
        check_number("scale", scale, zero=False)


def _plain(value: Any) -> Any:
    """Python's number for one of NumPy or JAX; anything else as it is."""
    if isinstance(value, Tracer) or not isinstance(value, np.generic | np.ndarray | jax.Array) or value.ndim:
        return value
    return value.item()
