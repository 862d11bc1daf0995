"""Official archives (`published.py`), read in place, in the archive's order.

Nothing is prepared or unpacked on disk: images go from the archive into the cache (`cache.py`). The folder that an
archive unpacks to is read as well.
"""

import gzip
import os
import pathlib
import struct
import tarfile
import zipfile
import zlib

from absl import logging

from ltrobust.data import archive_formats, cache, published, tiny_imagenet
from ltrobust.data.archive_formats import Arrays
from ltrobust.runtime import contents

# Ends `cache.Entry.source` of images from archives with the published checksums.
PUBLISHED = "published archive"
# Where archives are looked for in `data_dir`, in this order.
_PLACES = ("", "downloads/manual")
# Key of an entry's findings: what tells the archive from the published one, in words.
DIFFERENT = "different"
NAMES = tuple(published.DATA)
# What damaged archives raise.
_UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    KeyError,
    ValueError,
    struct.error,
)


def load(name: str, split: str, *, data_dir: pathlib.Path, cache_root: pathlib.Path | None) -> tuple[cache.Entry, str]:
    """The arrays of one split, in the archive's order, and which copy they are from, in words.

    Reading one split also checks that the other is there.

    Args:
      name: one of `NAMES`.
      split: `train` or `test`.
      data_dir: the folder that holds the archives; it is only read.
      cache_root: where decoded images are kept, or None.

    Raises:
      FileNotFoundError: an archive is missing; the message says what to get and where to put it.
      ValueError: damaged archives, or files in them of another form.
    """
    form, paths = find(name, data_dir)
    if name == "tiny_imagenet":
        fingerprint = tiny_imagenet.fingerprint(paths[0])
    else:
        fingerprint = cache.fingerprint_files(paths, form=f"reader {archive_formats.VERSION}", check="sample")
    file = None
    if cache_root is not None:
        location = paths[0] if _is_archive(form, paths) or paths[0].is_dir() else paths[0].parent
        file = cache.entry_path(cache_root, f"{name}-archive-{split}", location)
        if (entry := cache.read(file, fingerprint)) is not None:
            return entry, f"decoded copy {file}"
    logging.info("Reading %s from %s, once.", name, paths[0])
    images, labels, class_names = _read(name, split, form, paths, data_dir)
    differences = _differences(form, paths)
    origin = f", {PUBLISHED}" if differences == "" else ""
    findings = {DIFFERENT: differences} if differences else {}
    entry = cache.Entry(images, labels, class_names, f"{name} {split}{origin}", fingerprint, findings)
    return entry, cache.NO_COPY if file is None else cache.write(file, entry)


def find(name: str, data_dir: pathlib.Path) -> tuple[published.Form, list[pathlib.Path]]:
    """An available form of a data set and its files: archives, or unpacked archives.

    Files that are published gzipped are found unpacked, too. Of Tiny-ImageNet unpacked, the only path is its folder.

    Raises:
      FileNotFoundError: no form is complete.
    """
    if data_dir.is_file():
        raise FileNotFoundError(f"data_dir {data_dir} is a file; give the folder that holds it: {data_dir.parent}.")
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"data_dir {data_dir} is not a folder, so {name} is not there. {how_to_get(name, data_dir)}"
        )
    here: list[str] = []
    for form in published.DATA[name].forms:
        for place in places(form, data_dir):
            paths = [_gzipped_or_not(place / file.name) for file in form.files]
            if all(path.is_file() for path in paths):
                return form, paths
            here += [path.name for path in paths if path.is_file()]
            folder = place / form.folder
            if form.folder and folder.is_dir():
                paths = [_gzipped_or_not(folder / member) for member in form.members]
                if all(path.is_file() for path in paths):
                    return form, paths or [folder]
    there = f"only {', '.join(dict.fromkeys(here))}" if here else "neither archive nor prepared records"
    raise FileNotFoundError(f"{data_dir} has {there} of {name}. {how_to_get(name, data_dir)}")


def places(form: published.Form, data_dir: pathlib.Path) -> list[pathlib.Path]:
    """The folders in which the files of a form are looked for, in this order."""
    return [data_dir / place for place in (*_PLACES, *form.places)]


def _gzipped_or_not(path: pathlib.Path) -> pathlib.Path:
    """The path, or that of the same IDX file unpacked where only that one is there."""
    unpacked = path.with_suffix("")
    return unpacked if path.name.endswith("ubyte.gz") and not path.exists() and unpacked.is_file() else path


def how_to_get(name: str, data_dir: pathlib.Path) -> str:
    """Last sentence of every error about missing data."""
    first, *others = published.DATA[name].files
    if others:
        names = ", ".join(file.name for file in (first, *others))
        what = f"{names} from {first.url.rpartition('/')[0]} and put them into {data_dir} as they are"
    else:
        what = f"{first.url} ({first.facts}) and put it into {data_dir} as it is"
    return f"Get {what}; see ltrobust data {name}."


def _is_archive(form: published.Form, paths: list[pathlib.Path]) -> bool:
    """Whether these are the published files, not what they unpack to."""
    return len(paths) == len(form.files) and all(
        path.is_file() and path.name.startswith(file.name.removesuffix(".gz"))
        for file, path in zip(form.files, paths, strict=True)
    )


def _differences(form: published.Form, paths: list[pathlib.Path]) -> str | None:
    """Differences of files from the published ones; empty if there are none, None if no comparison is possible."""
    if not _is_archive(form, paths) or not all(file.checksum for file in form.files):
        return None
    pairs = list(zip(form.files, paths, strict=True))
    if any(path.name != file.name for file, path in pairs):  # unpacked
        return None
    known = {file.checksum: name for name, data in published.DATA.items() for file in data.files if file.checksum}
    result = []
    for file, path in pairs:
        if words := file.difference(path):
            other = known.get(published.checksum(path, file.checksum.partition(":")[0]), "")
            result.append(f"{path.name} is not the published file ({words}){f' but that of {other}' if other else ''}")
    return "; ".join(result[:1] + [f"nor are {len(result) - 1} others"] * (len(result) > 1))


def _read(name: str, split: str, form: published.Form, paths: list[pathlib.Path], data_dir: pathlib.Path) -> Arrays:
    """Opens archives or folder; what is wrong with them becomes a ValueError."""
    where = ", ".join(map(os.fspath, paths if _is_archive(form, paths) else paths[:1]))
    for path in paths:
        if path.is_file() and (words := contents.mistaken_for(path)):
            raise ValueError(f"{path} is {words}. {how_to_get(name, data_dir)}")
    if form.read is None:
        return tiny_imagenet.read(paths[0], split)
    try:
        if form.folder and _is_archive(form, paths):
            members = archive_formats.unpack(paths[0], form.folder, form.members, form.largest)
        else:
            members = {path.name: archive_formats.whole(path, form.largest) for path in paths}
        return form.read(members, split)
    except _UNREADABLE as error:
        raise ValueError(
            f"{where} cannot be read as {name} ({type(error).__name__}: {error}). {how_to_get(name, data_dir)}"
        ) from error
