"""Recognises files with the wrong content, such as a web page in place of weights, by their first bytes."""

import pathlib

_BEGINNINGS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch it with git lfs pull"),
    (b"<!doctype html", "a web page, not the file itself; the download has failed or needs a login"),
    (b"<html", "a web page, not the file itself; the download has failed or needs a login"),
    (b"<?xml", "an XML page, such as a server's error, not the file itself; download it again"),
)


def mistaken_for(path: pathlib.Path) -> str:
    """Describes wrong content, in words that continue `PATH is ...`; empty if none is recognised.

    Raises:
      OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        first = file.read(200).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        if not first and not path.stat().st_size:
            return "an empty file; download it again"
    return next((words for beginning, words in _BEGINNINGS if first.startswith(beginning)), "")
