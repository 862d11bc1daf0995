"""Reads pickles of plain data without Python's unpickler: it imports and calls nothing that a pickle names.

What is understood are dicts, lists, tuples, texts, bytes, numbers, and NumPy arrays of numbers as `protocol=2` writes
them, which is what CIFAR's Python archives hold. Everything else is refused by name.
"""

import io
import math
import pickletools
import struct
from typing import Any

import numpy as np

# Functions that a pickle names where it describes an array or bytes; none of them is called.
_ARRAY, _DTYPE, _ENCODE = "numpy array", "numpy dtype", "encoded bytes"
_NAMES = {
    "numpy.core.multiarray _reconstruct": _ARRAY,
    "numpy._core.multiarray _reconstruct": _ARRAY,
    "numpy ndarray": "numpy.ndarray",
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
}
_NUMBERS = ("b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8")
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING"),
    *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    "BINUNICODE8",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Dicts, lists and tuples inside of each other, and the sides of an array; data sets need fewer.
_DEEPEST, _SIDES = 16, 32
# What a pickle can be wrong in that is no ValueError already.
_WRONG = (IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error)


class _Named(str):
    """The name of a function or class, which no text in a pickle can be mistaken for."""


class _Part:
    """An array without its content yet, or a dtype, whose code `value` is; `places` are those of it in the memo."""

    def __init__(self, kind: str, value: str = "") -> None:
        self.kind, self.value = kind, value
        self.places: list[int] = []


def load(content: bytes) -> dict[str, Any]:
    """The dict that a pickle holds; its arrays are NumPy arrays, its Python 2 strings are texts (Latin-1).

    Keys are texts or whole numbers: those that are bytes become texts, and the dict's own are all texts.

    Raises:
      ValueError: a pickle that is cut off, too deeply nested or no dict, or that names anything but arrays of numbers.
    """
    try:
        result = _run(content)
    except _WRONG as error:
        raise ValueError(f"it is no sound pickle ({type(error).__name__}: {error})") from error
    if not isinstance(result, dict):
        raise ValueError(f"it holds a {type(result).__name__}, not a dict")
    _check_content(result)
    return {str(key): value for key, value in result.items()}


def _run(content: bytes) -> Any:
    """Follows the operations of a pickle; `marks` are the stacks below each open mark."""
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}

    def closed() -> list[Any]:
        nonlocal stack
        items, stack = stack, marks.pop()
        return items

    argument: Any
    for operation, argument, _ in pickletools.genops(io.BytesIO(content)):
        name = operation.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            marks.append(stack)
            stack = []
        elif name in ("APPENDS", "APPEND"):
            items = closed() if name == "APPENDS" else [stack.pop()]
            _only(stack[-1], list).extend(items)
        elif name in ("SETITEMS", "SETITEM"):
            items = closed() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _only(stack[-1], dict).update(_dict(items))
        elif name in ("LIST", "TUPLE"):
            items = closed()
            stack.append(items if name == "LIST" else tuple(items))
        elif name == "DICT":
            items = closed()
            stack.append(_dict(items))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(stack[-_TUPLES[name] :])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(memo) if name == "MEMOIZE" else int(argument)
            memo[place] = stack[-1]
            if isinstance(stack[-1], _Part):
                stack[-1].places.append(place)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(argument)])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            text = argument if name == "GLOBAL" else " ".join([_text(stack.pop(-2)), _text(stack.pop())])
            if text not in _NAMES:
                raise ValueError(f"it names {text.replace(' ', '.')[:80]}, which is not called")
            stack.append(_Named(_NAMES[text]))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_described(stack.pop(), arguments))
        elif name == "BUILD":
            state = stack.pop()
            part, stack[-1] = stack[-1], _finish(stack[-1], state)
            memo.update({place: stack[-1] for place in part.places if memo[place] is part})
            part.places.clear()
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the operation {name}, which plain data do not need")
    raise ValueError("it has no end")


def _only(value: Any, kind: type) -> Any:
    """The value, if it is a list or dict that the pickle itself made."""
    if type(value) is not kind:
        raise ValueError(f"it puts items into a {type(value).__name__}")
    return value


def _text(value: Any) -> str:
    """The value, if it is a text. Hashing or printing what is nested very deeply would end the process."""
    if type(value) is not str:
        raise ValueError(f"it has a {type(value).__name__} where a text belongs")
    return value


def _dict(items: list[Any]) -> dict[str | int, Any]:
    """Keys and values in turn as a dict."""
    result: dict[str | int, Any] = {}
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, bytes, int):
            raise ValueError(f"it has a {type(key).__name__} as a key, not a text or a whole number")
        result[key.decode("latin-1") if type(key) is bytes else key] = value
    return result


def _check_content(found: dict[Any, Any]) -> None:
    """Refuses what is nested too deeply or in itself, and names and arrays that nothing was made of."""
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        below: dict[int, Any] = {}  # each once, however often it is named
        for container in level:
            for item in container.values() if type(container) is dict else container:
                if isinstance(item, _Part | _Named):
                    raise ValueError("it has a name or an array without content among its values")
                if type(item) in (dict, list, tuple):
                    below[id(item)] = item
        level = list(below.values())
        if not level:
            return
    raise ValueError(f"it has more than {_DEEPEST} dicts, lists and tuples inside of each other")


def _described(function: Any, arguments: Any) -> Any:
    """What a call that is only described stands for: an array without content, a dtype, or bytes."""
    if isinstance(function, _Named) and function == _ARRAY:
        return _Part(_ARRAY)
    if isinstance(function, _Named) and function == _DTYPE:
        if _text(arguments[0]) not in _NUMBERS:
            raise ValueError(f"it has an array of {arguments[0][:20]!r}, not of numbers")
        return _Part(_DTYPE, arguments[0])
    # Python 3 writes bytes as a Latin-1 text where the protocol has no bytes.
    if isinstance(function, _Named) and function == _ENCODE and arguments[1] in ("latin1", "latin-1"):
        return arguments[0].encode("latin-1")
    raise ValueError("it calls something that is no array")


def _finish(part: Any, state: Any) -> Any:
    """The dtype with its byte order, or the array with its content."""
    if not isinstance(part, _Part) or type(state) is not tuple:
        raise ValueError("it fills something that is no array")
    if part.kind == _DTYPE:
        return _Part(_DTYPE, ("<" if state[1] == "|" else {"<": "<", ">": ">"}[_text(state[1])]) + part.value)
    _, shape, dtype, fortran, raw = state
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if type(raw) is not bytes or not isinstance(dtype, _Part) or dtype.kind != _DTYPE:
        raise ValueError("it has an array without a type or without content")
    numbers = np.frombuffer(raw, np.dtype(dtype.value))
    if type(shape) is not tuple or len(shape) > _SIDES or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("it has an array whose shape is none")
    # The lengths must be those of the content, so a shape cannot ask for memory that the file does not fill.
    if math.prod(shape) != len(numbers):
        raise ValueError(f"it has an array of shape {shape} with {len(numbers):,} numbers")
    return numbers.reshape(shape, order="F" if fortran else "C")
