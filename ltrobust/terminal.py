"""What is printed, on terminals of any encoding."""

import sys


def accept_all_characters() -> None:
    """Lets standard output and standard error escape what their encoding lacks (`±` as `\\xb1`), instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not one that a caller has put in its place
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
