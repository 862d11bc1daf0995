"""Lists the keys of a configuration with values and meanings.

    ltrobust config                      all keys of configs/default.py
    ltrobust config digits               the values of a configuration
    ltrobust config methods.trades       the keys under one

Meanings are read where the keys are defined: the comments of `configs/default.py`, and the `Args` in the docstrings of
methods, wrappers and registered networks.
"""

import ast
import inspect
import io
import itertools
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ltrobust import recipes
from ltrobust.commands.parser import Parser, UsageError, load_code
from ltrobust.runtime.names import UnknownName, nearest
from ltrobust.runtime.workdir import flatten


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the listing.

    Raises:
      UsageError: neither a configuration nor a key; or the file has no such recipe.
      ValueError: the configuration cannot be read.
    """
    parser = Parser(program, __doc__)
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="configuration, or beginning of keys")
    parser.add_code()
    given = parser.parse_args(arguments)
    recipes.importable()
    load_code(given.code)
    try:
        print(render(given.name))
    except UnknownName as error:
        raise UsageError(str(error)) from error
    except Exception as error:  # a configuration is a program: anything may be raised in it
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"the configuration {given.name} cannot be read: {kind}{error}") from error


def render(name: str = "") -> str:
    """Lines `key = value  # meaning`, one for each key.

    Args:
      name: a configuration (`digits`, `configs/published.py:robal_n`, or a file), whose values are listed; or a key or
        the beginning of several (`methods.trades`, `student.attack`), listed with the values of `configs/default.py`.
        Empty: all keys.

    Raises:
      UnknownName: neither a configuration nor a key, or no such recipe.
      Exception: what the configuration raises.
    """
    keys = flatten(recipes.default().to_dict())
    chosen = {key: value for key, value in keys.items() if not name or f"{key}.".startswith(f"{name}.")}
    if not chosen:
        _check_file(name, keys)
        chosen = flatten(recipes.load(name).to_dict())
    known = meanings()
    return "\n".join(_line(key, value, known.get(key, "")) for key, value in sorted(chosen.items()))


def _check_file(name: str, keys: dict[str, Any]) -> None:
    """Refuses a name that is not a configuration, with the keys that it may stand for."""
    stem = name.partition(":")[0]
    if not Path(recipes.find(stem)).is_file():
        groups = {key.rsplit(".", count)[0] for key in keys for count in range(1, key.count(".") + 1)}
        raise UnknownName(
            f"{name!r} is neither a key nor a configuration; {nearest(name, [*groups, *recipes.shipped()])}"
            f"configurations: {', '.join(recipes.shipped())}; groups of keys: "
            f"{', '.join(sorted(group for group in groups if '.' not in group))}."
        )


def _line(key: str, value: Any, meaning: str) -> str:
    """One key in the form of an assignment."""
    return f"{key} = {value!r}" + (f"  # {meaning}" if meaning else "")


def meanings() -> dict[str, str]:
    """Key -> what it means, for every key of `configs/default.py` that says so."""
    from ltrobust import methods, models  # with JAX, which help does not need

    result: dict[str, str] = {}
    for key, text in _of_comments(recipes.root() / "configs" / "default.py"):
        if text:
            result.setdefault(key, text)  # the first is of the key; later ones are of another value
    for group, functions in (("methods", methods.REGISTRY | methods.WRAPPERS), ("model", models.REGISTERED)):
        for name, function in functions.items():
            result |= {f"{group}.{name}.{setting}": text for setting, text in arguments(function).items()}
    return result


def arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Argument -> its entry in the `Args` (or `Attributes`) of a docstring, on one line."""
    text = inspect.getdoc(function) or ""
    section = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    if section is None:
        return {}
    result: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(section[1]).splitlines():
        if entry := re.match(r"(\w+(?:, \w+)*): (.*)", line):
            names = entry[1].split(", ")
            result |= dict.fromkeys(names, entry[2])
        else:
            result |= {name: f"{result[name]} {line.strip()}".strip() for name in names}
    return result


def _of_comments(path: Path) -> Iterator[tuple[str, str]]:
    """Keys that a configuration file sets, with the comment at the line, or else those above it."""
    text = path.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    result = [token for token in tokens if token.type == tokenize.COMMENT]
    comments = {token.start[0]: token.string.lstrip("# ") for token in result}
    alone = {token.start[0] for token in result if token.line.lstrip().startswith("#")}
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}

    def keys(function: str, prefix: str) -> Iterator[tuple[str, str]]:
        for node in functions[function].body:
            if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
                continue
            key = prefix + ast.unparse(node.targets[0]).partition(".")[2]
            called = node.value.func if isinstance(node.value, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in functions:
                yield from keys(called.id, f"{key}.")
            lines = [line for line in range(node.lineno, (node.end_lineno or node.lineno) + 1) if line in comments]
            above = itertools.takewhile(alone.__contains__, range(node.lineno - 1, 0, -1))
            yield key, " ".join(comments[line] for line in lines or reversed([*above]))

    yield from keys("get_config", "")
