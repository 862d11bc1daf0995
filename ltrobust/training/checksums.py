"""Checksums of a checkpoint's files: `SHA256SUMS` in its folder, as `sha256sum --check SHA256SUMS` reads it."""

import hashlib
from collections.abc import Iterator

from etils import epath

FILE = "SHA256SUMS"


def write(folder: epath.Path) -> None:
    """Writes one line `<SHA-256>  <path>` for every file in the items' folders.

    What lies beside those folders are orbax's notes on its own work: it still writes them when the items are done, and
    no array is read with their help.
    """
    (folder / FILE).write_text("".join(f"{_digest(folder / name)}  {name}\n" for name in _names(folder)))


def find_damage(folder: epath.Path) -> str | None:
    """Describes damage of a folder with checksums in a few words; None if it is undamaged.

    Every file must be listed and every listed file be there, so that no part of the list can be lost unnoticed.
    """
    try:
        lines = (folder / FILE).read_text().splitlines()
        listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        here = set(_names(folder))
        # Compared in both directions: a file that was lost from the folder, or from the list, is damage.
        for name in sorted(listed.keys() | here):
            if name not in here:
                return f"{name} is missing"
            if name not in listed:
                return f"{name} is not in {FILE}"
            if _digest(folder / name) != listed[name]:
                return f"{name} is not what was written: another SHA-256"
    except FileNotFoundError:
        return f"{FILE} is missing"
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be read: {error}"
    return None


def _names(folder: epath.Path) -> list[str]:
    """Paths of all files in the folders inside of this one."""
    inner = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for item in inner for path in files(item))


def files(folder: epath.Path) -> Iterator[epath.Path]:
    """All files in a folder, at any depth; a bucket's too, which has no recursive `glob`."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def _digest(path: epath.Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
