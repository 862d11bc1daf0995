"""Names that stand for functions and classes: built-in, registered by the user, or offered by installed packages.

A registered function's keyword arguments become keys of the configuration, so that each of them has a default that a
configuration can hold. No JAX.
"""

import collections
import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from ltrobust.runtime.names import nearest

# The function or class that a decorator takes and returns.
Registered = TypeVar("Registered", bound=Callable[..., Any])
# Types of values that a configuration and its command-line flags can hold.
_PLAIN = (bool, int, float, str)
# Entry point group -> name -> why what is offered under it cannot be used.
BROKEN: dict[str, dict[str, str]] = collections.defaultdict(dict)
# Entry point group -> the names that were registered from it.
ADDED: dict[str, set[str]] = collections.defaultdict(set)


def add(known: dict[str, Any], kind: str, name: str, thing: Callable[..., Any], reserved: Collection[str]) -> None:
    """Enters a function or class under a name. One from the same file replaces an earlier one.

    A configuration file is run more than once in a process, and a notebook's cell as often as it is changed.

    Args:
      known: name -> function or class; changed in place.
      kind: what error messages call it, such as `method`.
      reserved: names that mean something else.

    Raises:
      ValueError: a name that is no Python identifier, is reserved, or was registered by another file.
    """
    if not name.isidentifier():
        raise ValueError(f"a {kind} cannot be called {name!r}; give it a Python name, such as my_{kind}.")
    if name in reserved:
        raise ValueError(f"the name {name} is taken; give your {kind} another one.")
    there, here = _file(known.get(name)), _file(thing)
    if there and here and there != here:
        raise ValueError(f"{kind} {name} of {here} is registered by {there} already; rename one of them.")
    known[name] = thing


def _file(thing: Any) -> Path | None:
    """File that defines a function or class; None if there is none, as in a notebook."""
    try:
        path = Path(inspect.getfile(thing)).resolve()
    except (TypeError, OSError):
        return None
    return path if path.is_file() else None


def parameters(function: Callable[..., Any], kind: str) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class by name.

    Raises:
      ValueError: it takes any arguments (`*args` or `**kwargs`), whose names cannot be known.
    """
    result = dict(inspect.signature(function).parameters)
    for parameter in result.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{kind} {_name(function)} takes {parameter}; name each of its settings.")
    return result


def defaults(function: Callable[..., Any], kind: str, without: Collection[str]) -> dict[str, Any]:
    """Setting -> default of a function; an integer default of a parameter annotated as float is a float.

    Args:
      function: whose keyword arguments are the settings.
      kind: what error messages call it.
      without: parameters that are no settings.

    Raises:
      ValueError: a setting without a default, or with one that a configuration cannot hold.
    """
    result = {}
    for name, parameter in parameters(function, kind).items():
        if name in without:
            continue
        default = parameter.default
        if default is parameter.empty:
            raise ValueError(f"setting {name} of {kind} {_name(function)} has no default; give it one.")
        if not is_plain(default):
            raise ValueError(
                f"setting {name} of {kind} {_name(function)} is {default!r} by default; a configuration holds numbers, "
                "texts, booleans and tuples of them."
            )
        # ConfigDict and its flags refuse 2.5 for a key whose default is 2.
        number = parameter.annotation in (float, "float") and not isinstance(default, bool)
        result[name] = float(default) if number else default
    return result


def is_plain(value: Any) -> bool:
    """Whether a configuration can hold a value: a Python number, text, boolean, or a tuple of those."""
    return type(value) in _PLAIN or (isinstance(value, tuple) and all(is_plain(item) for item in value))


def _name(thing: Any) -> str:
    """Name of a function or class in messages."""
    return getattr(thing, "__name__", repr(thing))


def add_installed(group: str, known: Collection[str], register: Callable[[Any, str], Any]) -> None:
    """Registers what installed packages offer in an entry point group, by `register(object, name)`.

    Entries that cannot be loaded or registered are skipped with a warning, because runs that do not use them must not
    stop. Taken names are skipped too, and names that two packages offer, because the choice would be arbitrary.
    """
    for name, points in installed_entry_points(group).items():
        if name in ADDED[group] or name in BROKEN[group]:
            continue
        packages = " and ".join(sorted(point.dist.name if point.dist else "an unknown package" for point in points))
        reason = ""
        if len(points) > 1:
            reason = "more than one package offers it"
        elif name in known:
            reason = "the name is taken"
        else:
            try:
                register(points[0].load(), name)
                ADDED[group].add(name)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        if reason:
            BROKEN[group][name] = f"{name} of the installed package {packages}: {reason}"
            logging.warning("%s: skipped: %s", group, BROKEN[group][name])


@functools.cache
def installed_entry_points(group: str) -> dict[str, list[importlib.metadata.EntryPoint]]:
    """The entry points of a group by name, those of each package once; found once in a process."""
    result: dict[str, list[importlib.metadata.EntryPoint]] = {}
    for point in importlib.metadata.entry_points(group=group):
        result.setdefault(point.name, []).append(point)
    return result


def unknown(kind: str, name: Any, known: Collection[str], group: str, *, also: str = "") -> ValueError:
    """Error for an unknown name: lists the known ones, and explains how to add others."""
    if broken := BROKEN[group].get(str(name)):
        return ValueError(f"{kind} {name!r} cannot be loaded: {broken}")
    return ValueError(
        f"{kind} is {name!r}; {nearest(name, known)}known {kind}s: {', '.join(known)}{also}. "
        f"Load a file with your own by --code=FILE.py (in Python: import it)."
    )


def load_code(name: str) -> None:
    """Imports a Python file, or a module by its dotted name, so that what it registers can be used.

    The file's folder joins the end of `sys.path`: the file may import its neighbours, and configurations may import it.

    Raises:
      ValueError: there is no such file or module, or another module of that name is imported already.
    """
    if not name:
        raise ValueError("--code is empty; give FILE.py or the name of a module.")
    path = Path(name)
    if path.suffix != ".py":
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(f"--code is {name!r}: {error}. Give FILE.py or the name of a module.") from error
        return
    if not path.is_file():
        raise ValueError(f"--code is {name!r}, and there is no such file; give FILE.py or the name of a module.")
    search(path.parent)
    there = getattr(importlib.import_module(path.stem), "__file__", None)
    if there is None or Path(there).resolve() != path.resolve():
        raise ValueError(f"{path} cannot be imported as {path.stem}, which is {there or 'built in'}; rename the file.")


def search(folder: Path) -> None:
    """Appends a folder to `sys.path`, so that its modules can be imported after all others."""
    if (text := str(folder.resolve())) not in sys.path:
        sys.path.append(text)
