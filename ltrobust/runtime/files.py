"""Files on disk: JSON whole or not at all, and folders that one process at a time writes to."""

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

# What `hold` writes into a folder's `lock`.
_HOLDER = re.compile(rb"(process \d+ on [^\n]*\n?)?")


def write_json(path: Path, value: Any, *, new: bool = False) -> None:
    """Writes JSON, whole or not at all; `new` and errors as for `write_text`."""
    write_text(path, _json(value), new=new)


def write_new_json(path: Path, value: Any, beside: str = "") -> Path:
    """Writes JSON to `path`, or to the first free of `<stem>-2<suffix>`, `<stem>-3<suffix>` ...; returns the path.

    A name is also taken if a file of that stem with the suffix `beside` exists. Two processes never get the same name.
    """
    text, number, free = _json(value), 1, path
    while True:
        if not (beside and free.with_suffix(beside).exists()):
            with contextlib.suppress(FileExistsError):
                write_text(free, text, new=True)
                return free
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")


def _json(value: Any) -> str:
    """JSON of a value, as `write_json` writes it."""
    plain = json.loads(json.dumps(without_nan(value), allow_nan=False))
    return _layout(plain) + "\n"


def _layout(value: Any, depth: int = 1) -> str:
    """JSON with a line for each part, except that what holds only numbers and words stays on one line."""
    if not isinstance(value, Mapping | list):
        return json.dumps(value)
    # Rows of numbers stay on one line: a card with confusion matrices is a fifth smaller, and a person can read it.
    items = value.values() if isinstance(value, Mapping) else value
    if not any(isinstance(item, Mapping | list) and item for item in items):
        return json.dumps(value, sort_keys=True)
    begin, end = "{}" if isinstance(value, Mapping) else "[]"
    names = sorted(value) if isinstance(value, Mapping) else range(len(value))
    keys = [f"{json.dumps(name)}: " if isinstance(value, Mapping) else "" for name in names]
    rows = [f"{' ' * depth}{key}{_layout(value[name], depth + 1)}" for key, name in zip(keys, names, strict=True)]
    return "\n".join([begin, ",\n".join(rows), " " * (depth - 1) + end])


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    """Writes text beside the target and renames it, so that a reader never sees half a file.

    Args:
      path: the target.
      text: written as UTF-8. What UTF-8 does not have, such as bytes of a file's name that are no UTF-8, is escaped.
      new: whether the target must not exist, also where another process makes it at the same moment.

    Raises:
      FileExistsError: `new`, and the target exists.
    """
    if new and (path.exists() or path.is_symlink()):
        raise FileExistsError(f"{path} exists; nothing is overwritten.")
    # Another process may write the same file: each one has its own temporary file.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        if new:
            _rename_to_new(partial, path)
        else:
            partial.replace(path)
    finally:
        # An error leaves the partial file behind, and so does a hard link to it.
        partial.unlink(missing_ok=True)


def _rename_to_new(partial: Path, path: Path) -> None:
    """Renames a file to a name that must be free. One file system call, where there are hard links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(f"{path} exists; nothing is overwritten.") from None
    except OSError:  # no hard links on this file system: the name is claimed by an empty file
        path.open("x").close()
        partial.replace(path)


def is_partial(path: Path, name: str) -> bool:
    """Whether a file is what a process left that died while it wrote the file `name` in the same folder."""
    return path.name.startswith(f"{name}.") and path.name.endswith(".partial")


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
      ValueError: another process holds it (says which), it cannot be written, or its file `lock` is not one that this
        function wrote, which is left as it is.
    """
    with _open_lock(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_lock(file).decode(errors="replace").strip() or "unknown"
            raise ValueError(
                f"{folder} is being written to by another process ({holder}); wait for it, stop it, or give another "
                "folder."
            ) from None
        if not _HOLDER.fullmatch(_read_lock(file)):
            raise ValueError(
                f"{folder / 'lock'} is not a lock of ltrobust, so it is not written to; move it away, or give another "
                "folder."
            )
        # Emptied only after the check: what another program keeps under this name is left as it is.
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        yield


def is_lock(path: Path) -> bool:
    """Whether a file is the `lock` that `hold` leaves in a folder."""
    if path.name != "lock" or not path.is_file():
        return False
    with path.open("rb") as file:
        return bool(_HOLDER.fullmatch(_read_lock(file)))


def _read_lock(file: BinaryIO) -> bytes:
    """The first bytes of a lock, enough to recognise it."""
    file.seek(0)
    return file.read(1024)


def _open_lock(folder: Path) -> BinaryIO:
    """The folder's file `lock`."""
    try:
        return (folder / "lock").open("ab+")
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
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise ValueError(f"{path} is damaged ({problem}); put back a copy of it, or give another folder.")


def without_nan(value: Any) -> Any:
    """The value with null for every number that is not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
