"""Names that do not exist, and the nearest ones that do."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any


def nearest(name: Any, known: Iterable[str], other_names: Mapping[str, str] = MappingProxyType({})) -> str:
    """`did you mean NAME? `, the middle of an error message; empty where no known name is near.

    Args:
      name: what was given, of any type.
      known: the names that exist.
      other_names: what some of them are called in other programs, in lower case -> the name here.
    """
    given = str(name)
    found = [other_names[given.lower()]] if given.lower() in other_names else _close(given, list(known))
    return f"did you mean {found[0]}? " if found else ""


def _close(given: str, known: list[str]) -> list[str]:
    """At most one name, whatever its case and its hyphens."""
    plain = {name.lower().replace("-", "_"): name for name in known}
    return [plain[name] for name in difflib.get_close_matches(given.lower().replace("-", "_"), plain, 1)]
