"""Frozen dataclasses and named tuples as JSON and back, and their JSON Schema. One definition serves all three.

Fields may be text, numbers, booleans, `Count`, `Any`, `Literal`, sequences, tuples, mappings with text as keys, other
records, and each of these or None.
"""

import dataclasses
import functools
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np

from ltrobust.runtime.names import nearest

# A number that need not exist: NaN in memory, null in JSON, which has no NaN.
Number = Annotated[float, "null in JSON for NaN"]
# How many, or which one. Programs that read JSON may change whole numbers beyond 2^53 - 1 (RFC 8259, section 6).
Count = Annotated[int, "from 0 to 2^53 - 1"]
Record = TypeVar("Record")
_SCALARS: dict[Any, tuple[str, str]] = {
    str: ("string", "text"),
    int: ("integer", "a whole number"),
    Count: ("integer", "a whole number from 0 to 2^53 - 1"),
    float: ("number", "a number"),
    bool: ("boolean", "true or false"),
}
# Least and largest integer.
_LIMITS: dict[Any, tuple[float, float]] = {
    Count: (0, 2**53 - 1),
    float: (-sys.float_info.max, sys.float_info.max),
}

# JSON has values of these types as they are.
_EXACT = frozenset({str, int, bool, type(None)})


def plain(value: Any, path: str = "") -> Any:
    """A record, or anything that holds records, as values that JSON has.

    NumPy's scalars become Python's. A number that is not finite becomes None, in fields that are declared `Number` or
    `Any` and outside of records.

    Raises:
      ValueError: a number that is not finite in another field, or a value that JSON does not have (names its path).
    """
    return _plain(Any, value, path)


def _plain(kind: Any, value: Any, path: str) -> Any:
    """`plain` of a value that is declared as `kind`."""
    if type(value) in _EXACT:
        return value
    value = value.item() if isinstance(value, np.generic) else value
    if _is_record(type(value)):
        fields = _fields(type(value))
        return {name: _plain(kind, getattr(value, name), _below(path, name)) for name, (kind, _) in fields.items()}
    if _form(kind)[0] in (typing.Union, types.UnionType):
        kind = _without_none(_form(kind)[1])
    arguments = _form(kind)[1]
    if isinstance(value, Mapping):
        return {
            key: _plain(arguments[-1] if arguments else Any, item, _below(path, key)) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        each = len(arguments) == len(value) and ... not in arguments
        kinds = arguments if each else (arguments[0] if arguments else Any,) * len(value)
        return [_plain(kinds[place], item, f"{path}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return _refuse(path, value, "a finite number") if kind is float else None
    return value if value is None or isinstance(value, str | int | float) else _refuse(path, value, "a plain value")


def parse(kind: type[Record], value: Any, path: str = "") -> Record:
    """The record that `plain` made the value from.

    Args:
      kind: class of the record.
      value: as read from JSON.
      path: where the value stands, for messages: `data.evaluated`.

    Raises:
      ValueError: a field that is missing, unknown, or of another type (names it by its path).
    """
    return _parse(kind, value, path)


def _parse(kind: Any, value: Any, path: str) -> Any:
    """`parse` of any annotation."""
    if kind is Any or (type(value) is kind and kind in _SCALARS):
        return value
    origin, arguments = _form(kind)
    if origin is Annotated and kind not in _SCALARS:
        return math.nan if value is None else _parse(arguments[0], value, path)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _parse(_without_none(arguments), value, path)
    if origin is Literal:
        # True equals 1, and is none of its values.
        fits = any(value == argument and type(value) is type(argument) for argument in arguments)
        return value if fits else _refuse(path, value, "one of " + ", ".join(map(str, arguments)))
    if kind in _SCALARS:
        return _parse_scalar(kind, value, path)
    if _is_record(kind):
        return _parse_record(kind, value, path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _ = isinstance(value, Mapping) or _refuse(path, value, "an object")
        return {key: _parse(arguments[1], item, _below(path, key)) for key, item in value.items()}
    _ = isinstance(value, list | tuple) or _refuse(path, value, "a list")
    each = origin is tuple and ... not in arguments
    if not each and arguments[0] in _SCALARS and _are_exact(arguments[0], value):
        return tuple(value)
    kinds = arguments if each else (arguments[0],) * len(value)
    _ = len(kinds) == len(value) or _refuse(path, value, f"a list of {len(kinds)}")
    return tuple(_parse(item, entry, f"{path}[{n}]") for n, (item, entry) in enumerate(zip(kinds, value, strict=True)))


def _parse_scalar(kind: Any, value: Any, path: str) -> Any:
    """`parse` of text, a number or a truth value."""
    exact = int if kind == Count else kind
    fits = isinstance(value, (int, float) if exact is float else exact) and (
        exact is bool or not isinstance(value, bool)
    )
    if fits and isinstance(value, int) and kind in _LIMITS:
        fits = _LIMITS[kind][0] <= value <= _LIMITS[kind][1]
    return exact(value) if fits else _refuse(path, value, _SCALARS[kind][1])


def _are_exact(kind: Any, values: Sequence[Any]) -> bool:
    """Whether all values are of a scalar kind as they are."""
    exact = int if kind == Count else kind
    if not all(type(value) is exact for value in values):
        return False
    return kind != Count or not values or _LIMITS[Count][0] <= min(values) <= max(values) <= _LIMITS[Count][1]


def _parse_record(kind: Any, value: Any, path: str) -> Any:
    """`parse` of an object."""
    _ = isinstance(value, Mapping) or _refuse(path, value, "an object")
    fields = _fields(kind)
    for key in value:
        if key not in fields:
            known = ", ".join(fields)
            raise ValueError(f"{_below(path, key)} is not a field; {nearest(key, fields)}known are {known}.")
    for name, (_, required) in fields.items():
        if required and name not in value:
            raise ValueError(f"{_below(path, name)} is missing.")
    return kind(**{key: _parse(fields[key][0], item, _below(path, key)) for key, item in value.items()})


def _refuse(path: str, value: Any, needed: str) -> Any:
    shown = repr(value)
    raise ValueError(f"{path or 'the value'} is {shown[:60]}{'...' * (len(shown) > 60)}; needed is {needed}.")


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


@functools.cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Origin and arguments of an annotation."""
    return typing.get_origin(kind), typing.get_args(kind)


def _without_none(arguments: Sequence[Any]) -> Any:
    """The one member of a union that is not None."""
    (member,) = (argument for argument in arguments if argument is not type(None))
    return member


@functools.cache
def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Field -> its annotation, and whether it must be given."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if not dataclasses.is_dataclass(kind):
        return {name: (hints[name], name not in kind._field_defaults) for name in kind._fields}
    unset = dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is unset and field.default_factory is unset)
        for field in dataclasses.fields(kind)
    }


def descriptions(kind: Any) -> dict[str, str]:
    """Field -> its description in the class's docstring, under `Attributes:`."""
    result: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if _is_record(base):
            result |= _described(inspect.getdoc(base) or "")
    return result


def _described(text: str) -> dict[str, str]:
    """The entries under `Attributes:` of a docstring."""
    result: dict[str, str] = {}
    names: list[str] = []
    for line in text.partition("Attributes:\n")[2].splitlines():
        if begin := re.fullmatch(r"  (\w+(?:, \w+)*): (.*)", line):
            names = begin[1].split(", ")
            result |= dict.fromkeys(names, begin[2])
        elif line.startswith("    "):
            result |= {name: f"{result[name]} {line.strip()}" for name in names}
    return result


def schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a record, with the descriptions of its docstrings.

    Raises:
      ValueError: two records have one name.
    """
    result: dict[Any, Any] = {}
    _schema(kind, result)
    definitions: dict[str, Any] = {}
    for record, content in result.items():
        if record.__name__ in definitions:
            raise ValueError(
                f"two records are called {record.__name__}; a schema tells them apart by name. Rename one."
            )
        definitions[record.__name__] = content
    top = definitions.pop(kind.__name__)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind.__name__, **top} | {
        "$defs": dict(sorted(definitions.items()))
    }


def _schema(kind: Any, definitions: dict[Any, Any]) -> dict[str, Any]:
    """The schema of an annotation; records are added to `definitions`, by their class."""
    if kind is Any:
        return {}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind == Count:
        return {"type": "integer"} | dict(zip(("minimum", "maximum"), _LIMITS[Count], strict=True))
    if origin is Annotated:
        return {"type": [_SCALARS[arguments[0]][0], "null"]}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(_without_none(arguments), definitions), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if kind in _SCALARS:
        return {"type": _SCALARS[kind][0]}
    if _is_record(kind):
        if kind not in definitions:
            definitions[kind] = {}  # first, for records that hold their own kind
            definitions[kind] = _schema_of_record(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if origin is tuple and ... not in arguments:
        items = [_schema(argument, definitions) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    return {"type": "array", "items": _schema(arguments[0], definitions)}


def _schema_of_record(kind: Any, definitions: dict[Any, Any]) -> dict[str, Any]:
    described = descriptions(kind)
    properties = {
        name: _schema(annotation, definitions) | ({"description": described[name]} if name in described else {})
        for name, (annotation, _) in _fields(kind).items()
    }
    return {
        "description": (inspect.getdoc(kind) or "").partition("\n")[0],
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
