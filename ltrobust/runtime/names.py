"""Names that do not exist, and the nearest ones that do."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any


class UnknownName(ValueError):
    """A name that is none of those that are known, such as a misspelt one; the message names what is allowed."""


def nearest(name: Any, known: Iterable[str], other_names: Mapping[str, str] = MappingProxyType({})) -> str:
    """`did you mean NAME? `, the middle of an error message; empty where no known name is near.

    Args:
      name: what was given, of any type.
      known: the names that exist.
      other_names: what some of them are called in other programs, in lower case, with underscores -> the name here.
    """
    known = list(known)
    if name in known:
        return ""  # it is not the name that is wrong
    given = _plain(str(name))
    plain = {_plain(here): here for here in known}
    result = [other_names[given]] if given in other_names else difflib.get_close_matches(given, plain, 1)
    return f"did you mean {plain.get(result[0], result[0])}? " if result else ""


def _plain(name: str) -> str:
    """A name without its case and its hyphens."""
    return name.lower().replace("-", "_")
