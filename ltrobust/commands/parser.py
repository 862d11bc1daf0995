"""Flags, help and errors in the form that all verbs share."""

import argparse
from collections.abc import Collection, Sequence
from typing import NoReturn

from ltrobust import registry

CODE_HELP = "Python file, or module by name, to import first: it registers methods and networks of your own"


class UsageError(Exception):
    """The command line is wrong; the message names the word, and what is allowed."""


class Parser(argparse.ArgumentParser):
    """A verb's flags. A word that it does not know is a `UsageError`.

    Args:
      program: what the verb is called in help and messages, such as `ltrobust compare`.
      text: what `--help` prints above the flags.
    """

    def __init__(self, program: str, text: str | None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=program, description=text, formatter_class=form, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raises instead of ending the program, which ends in one place."""
        raise UsageError(f"{message}; {self.prog} --help lists the flags.")

    def add_code(self) -> None:
        """The flag `--code` of verbs that load networks or configurations."""
        self.add_argument(
            "--code", action="append", default=[], metavar="FILE.py", help=f"{CODE_HELP}; may be repeated"
        )


def taken(arguments: Sequence[str], flag: str) -> tuple[list[str], list[str]]:
    """Splits words into the values of a flag and all other words."""
    values, rest, words = [], [], iter(arguments)
    for word in words:
        name, sign, value = word.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            values.append(value if sign else next(words, ""))
        else:
            rest.append(word)
    return values, rest


def taken_all(arguments: Sequence[str], flags: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Splits words into the last value of each flag, empty where it is not given, and all other words."""
    given, words = {}, list(arguments)
    for flag in flags:
        values, words = taken(words, flag)
        given[flag] = values[-1] if values else ""
    return given, words


def load_code(names: Sequence[str]) -> None:
    """Imports the user's own files.

    Raises:
      UsageError: there is no such file, or a mistake in it.
    """
    for name in names:
        try:
            registry.load_code(name)
        except Exception as error:  # a file is a program: anything may be raised in it
            kind = "" if isinstance(error, ValueError) else f"{name} cannot be loaded: {type(error).__name__}: "
            raise UsageError(f"{kind}{error}") from error
