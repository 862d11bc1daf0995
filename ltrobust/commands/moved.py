"""Message of `python -m ltrobust.NAME` for commands that are verbs of `ltrobust` now."""

import re
import shlex
import sys
from collections.abc import Sequence

# Old module -> verb, and flags that have another name.
_MOVED = {
    "ltrobust.agreement": ("agree", {}),
    "ltrobust.class_logit_offset": ("offset", {"--run": "--workdir"}),
    "ltrobust.compare": ("compare", {}),
    "ltrobust.diagnose": ("diagnose", {}),
    "ltrobust.sweep": ("sweep", {}),
}


def check(original: Sequence[str], arguments: Sequence[str]) -> None:
    """Ends the program if `python -m` looks for a command that moved; prints its new spelling.

    Args:
      original: `sys.orig_argv`.
      arguments: `sys.argv`: `-m`, then the words after the module's name.
    """
    module = original[-len(arguments)].removeprefix("-m")
    room, _, name = module.rpartition(".")
    if room == "ltrobust.commands":
        print(f"ltrobust: {module} is not a program; give python -m ltrobust {name}", file=sys.stderr)
        sys.exit(2)
    if module in _MOVED:
        command = shlex.join(["python", "-m", "ltrobust", *new_words(module, arguments[1:])])
        print(f"ltrobust: python -m {module} is a verb of one program now; give {command}", file=sys.stderr)
        sys.exit(2)


def new_words(module: str, words: Sequence[str]) -> list[str]:
    """The verb and the words with today's names of flags, which have underscores."""
    verb, flags = _MOVED[module]
    result = [verb]
    for word in words:
        name, sign, value = word.partition("=")
        if re.fullmatch(r"--[a-z][a-z-]*", name):
            name = flags.get(name, name.replace("-", "_").replace("__", "--", 1))
        result.append(f"{name}{sign}{value}")
    return result
