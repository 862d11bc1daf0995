"""Result cards: one JSON per evaluation that says everything its numbers depend on. No JAX.

A card holds per-class counts for every network and attack; all percentages are derived from them.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ltrobust
from ltrobust.runtime.files import read_json, without_nan, write_new_json

# Raised when a field changes its meaning. The page of a run does not show cards of other versions.
CARD_VERSION = 2
REQUIRED = (
    "card_version",
    "created",
    "software",
    "command",
    "config",
    "model",
    "data",
    "threat",
    "protocol",
    "selection_rule",
    "training",
    "numerics",
    "networks",
    "seconds",
)
# Of a network's part: views of its counts, and where its verdicts lie, whose file has a separate digest.
_NOT_COUNTS = ("columns", "thief", "verdicts")
# Flags that a command on a card is without: folders and addresses of these machines.
_LOCAL = re.compile(
    r"workdir|out|work|inputs|data_dir|config\.(data\.(cache_)?dir|checkpoint\.dir|teachers\.\w+\.path)|"
    r"coordinator|num_processes|process_id|patience"
)
# Flags of which it has no folder.
_FILES = re.compile(r"code|config|config\.(eval\.checkpoint|(teacher|student)\.initialize)")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


@functools.cache
def software() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, and the commit where the source is a checkout.

    Read once a process: call it before a long run, so that later edits of the source are not taken for the run's.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    # The running code's own, which installed metadata may not be: a checkout has none, or those of another day.
    own = {"python": sys.version.split()[0], "commit": commit(), "ltrobust": ltrobust.__version__}
    return own | versions


def command() -> str:
    """The command line without what names a folder or an address of these machines; of files only the names."""
    kept, words = [Path(sys.argv[0]).name], iter(sys.argv[1:])
    for word in words:
        flag, sign, value = word.partition("=")
        name = re.sub("^--?", "", flag) if flag.startswith("-") else ""
        if _LOCAL.fullmatch(name):
            _ = sign or next(words, None)  # without a sign its value is the next word
        elif _FILES.fullmatch(name):
            shown = _without_folder(value if sign else next(words, ""), keep_relative=name == "config")
            kept.append(f"{flag}{sign or ' '}{shown}")
        else:
            kept.append(word)
    return " ".join(kept)


def _without_folder(value: str, *, keep_relative: bool) -> str:
    """The name of a file, `FILE:RECIPE` or `FILE:FILE`; a path below the current folder may stay as it is."""
    if "://" in value:
        return Path(value).name
    parts = (Path(part) for part in value.split(":"))
    return ":".join(str(part) if keep_relative and _is_below(part) else part.name for part in parts)


def _is_below(path: Path) -> bool:
    """Whether a path says nothing of what is outside of the current folder."""
    return not path.is_absolute() and ".." not in path.parts and not str(path).startswith("~")


def digest(arrays: list[np.ndarray]) -> str:
    """SHA-256 of the raw bytes of arrays, in order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())  # one array's copy at a time: bfloat16 has no buffer
    return found.hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a plain value's JSON, with sorted keys."""
    return hashlib.sha256(json.dumps(without_nan(value), sort_keys=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, name: str, card: Mapping[str, Any]) -> Path:
    """Writes `<folder>/<name>.json`, or `<name>-2.json` and so on where that exists: a card is never overwritten.

    Raises:
      ValueError: a required field is missing.
    """
    name = name.replace("/", "-")
    card = {
        "card_version": CARD_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "software": software(),
        "command": command(),
        **card,
    }
    # The digest covers the counts alone, so that views may be added or renamed without making every card look edited.
    card["counts_sha256"] = digest_counts(card)
    missing = [field for field in REQUIRED if field not in card]
    if missing:
        raise ValueError(f"result card {name!r} lacks {', '.join(missing)}; a card without them is not written.")
    folder.mkdir(parents=True, exist_ok=True)
    return write_new_json(folder / f"{name}.json", card)


def digest_counts(card: Mapping[str, Any]) -> str:
    """SHA-256 of what a card's numbers are derived from: images per class, and all of its networks but their views."""
    networks = {
        name: {key: value for key, value in network.items() if key not in _NOT_COUNTS}
        | {"columns": {key: [column["correct"], column["total"]] for key, column in network.get("columns", {}).items()}}
        for name, network in card["networks"].items()
    }
    return digest_json({"class_counts": (card["data"] or {}).get("class_counts"), "networks": networks})


def read(path: Path) -> dict[str, Any]:
    """A card as `write` left it; one that was written before cards had a digest is read as it is.

    Raises:
      ValueError: the file is cut off or no card, or its counts are not those that it was written with.
    """
    card = read_json(path)
    missing = [field for field in REQUIRED if field not in card] if card.get("card_version") == CARD_VERSION else []
    if "card_version" not in card or missing:
        raise ValueError(f"{path} is no result card (it lacks {(missing or REQUIRED)[0]}); move it away.")
    try:
        # Cards that were written before the digest existed have none.
        changed = "counts_sha256" in card and card["counts_sha256"] != digest_counts(card)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); put back a copy of it.") from error
    if changed:
        raise ValueError(
            f"{path} was changed: its counts are not those that it was written with. Evaluate anew, or put back a copy."
        )
    return card


def _version(package: str) -> str:
    """Installed version, or `unknown`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def commit() -> str:
    """The commit of the checkout that this file is in, `+changes` if it was edited.

    Outside of a checkout it is what the environment variable `LTROBUST_COMMIT` says, for copies of a working tree that
    come without their history; else `unknown`.
    """
    try:
        # An environment inside of somebody's repository is no checkout of this project.
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        head, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("LTROBUST_COMMIT") or "unknown"
    return head + ("+changes" if changed else "")


def _git(*words: str) -> str:
    """What git says in this file's folder."""
    command = ["git", *words]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
