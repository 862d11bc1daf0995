"""Files on disk: JSON whole or not at all, and folders that one process at a time writes to."""

import contextlib
import fcntl
import json
import math
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    plain = json.loads(json.dumps(without_nan(value), allow_nan=False))
    write_text(path, _layout(plain) + "\n")


def _layout(value: Any, depth: int = 1) -> str:
    """JSON with a line for each part, except that what holds only numbers and words stays on one line."""
    if not isinstance(value, Mapping | list):
        return json.dumps(value)
    items = value.values() if isinstance(value, Mapping) else value
    if not any(isinstance(item, Mapping | list) and item for item in items):
        return json.dumps(value, sort_keys=True)
    begin, end = "{}" if isinstance(value, Mapping) else "[]"
    names = sorted(value) if isinstance(value, Mapping) else range(len(value))
    keys = [f"{json.dumps(name)}: " if isinstance(value, Mapping) else "" for name in names]
    rows = [f"{' ' * depth}{key}{_layout(value[name], depth + 1)}" for key, name in zip(keys, names, strict=True)]
    return "\n".join([begin, ",\n".join(rows), " " * (depth - 1) + end])


def write_text(path: Path, text: str) -> None:
    """Writes text beside the target and renames it, so that a reader never sees half a file.

    What UTF-8 does not have, such as bytes of a file's name that are no UTF-8, is written as escapes.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    partial.replace(path)


def end_line(path: Path) -> None:
    """Ends the last line of a file of lines, which a process that died may have left incomplete."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing to a folder, by a lock on its file `lock` that ends with this process.

    Raises:
      ValueError: another process holds it (says which), or it cannot be written.
    """
    with _open_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{folder} is being written to by another process ({file.read().strip() or 'unknown'}); wait for it, "
                "stop it, or give another folder."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _open_lock(folder: Path) -> TextIO:
    """The folder's file `lock`."""
    try:
        return (folder / "lock").open("a+")
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error}); give another folder, or make it writable.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file that `write_json` wrote.

    Raises:
      ValueError: the file holds anything else; it is left as it is.
    """
    try:
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            return value
        problem = f"a {type(value).__name__} instead of an object"
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"{path} is damaged ({problem}); put back a copy of it, or give another folder.")


def without_nan(value: Any) -> Any:
    """The value with null for every number that is not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
