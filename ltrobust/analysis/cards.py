"""Result cards: one JSON per evaluation that says everything its numbers depend on. No JAX.

`schema/card.py` says what a card holds. This module reads and writes the files.
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ltrobust
from ltrobust.analysis.schema.card import CARD_VERSION, Card
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import read_json, without_nan, write_new_json
from ltrobust.runtime.workdir import PHASES

# Flags that a command on a card is without: folders and addresses of these machines.
_LOCAL = re.compile(
    r"workdir|out|work|inputs|data_dir|config\.(data\.(cache_)?dir|checkpoint\.dir|teachers\.\w+\.path)|"
    r"coordinator|num_processes|process_id|patience"
)
# Flags of which it has no folder.
_FILES = re.compile(
    r"code|config|torch|weights|config\.(eval\.checkpoint|data\.lists\.\w+|(teacher|student)\.initialize)"
)
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "pillow")


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
    """Whether a path reveals nothing outside of the current folder."""
    return not path.is_absolute() and ".." not in path.parts and not str(path).startswith("~")


def digest(arrays: list[np.ndarray]) -> str:
    """SHA-256 of the raw bytes of arrays, in order."""
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array).tobytes())  # one array's copy at a time: bfloat16 has no buffer
    return result.hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a plain value's JSON, with sorted keys."""
    return hashlib.sha256(json.dumps(without_nan(value), sort_keys=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def now() -> str:
    """Time in UTC for a card's `created`, in milliseconds: two cards of one run can be written within one second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def describe_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The card's configuration: without folders of this machine, and of a folder of networks only the name."""
    found = {
        **settings,
        "teachers": {key: _named(entry, "path") for key, entry in settings.get("teachers", {}).items()},
    }
    for group in ("data", "checkpoint"):
        found[group] = {key: value for key, value in settings.get(group, {}).items() if key not in ("dir", "cache_dir")}
    if "lists" in found["data"]:
        found["data"]["lists"] = {
            key: value and _without_folder(value, keep_relative=True) for key, value in found["data"]["lists"].items()
        }
    return found | {phase: _named(settings.get(phase, {}), "initialize") for phase in PHASES}


def _named(group: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A group with the name in place of a path, if it has one."""
    return {**group, **({key: Path(group[key]).name} if key in group else {})}


def write(folder: Path, name: str, card: Card) -> Path:
    """Writes `<folder>/<name>.json`, or `<name>-2.json` and so on where that exists: a card is never overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    content = typed_json.plain(card)
    return write_new_json(folder / f"{name.replace('/', '-')}.json", content | {"sha256": seal(content)})


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of a card's JSON without its field `sha256`."""
    return digest_json({key: value for key, value in content.items() if key != "sha256"})


def read(path: Path) -> Card:
    """The card in a file.

    Raises:
      ValueError: the file is damaged or no card, a card of another version, or was changed after it was written.
    """
    content = read_json(path)
    version = content.get("card_version")
    if version is None:
        raise ValueError(f"{path} is no result card (it has no card_version); move it away.")
    if version != CARD_VERSION:
        raise ValueError(
            f"{path} is a card of version {version}, and this is version {CARD_VERSION}; evaluate again with ltrobust "
            "evaluate --workdir=DIR, or read it with the version that wrote it."
        )
    try:
        card = typed_json.parse(Card, content)
    except ValueError as error:
        raise ValueError(f"{path} is no card of version {CARD_VERSION}: {error} Put back a copy of it.") from error
    if card.sha256 != seal(content):
        raise ValueError(f"{path} was changed after it was written; evaluate again, or put back a copy of it.")
    if contradiction := _contradiction(card):
        raise ValueError(f"{path} is no card: {contradiction}; put back a copy of it.")
    return card


def _contradiction(card: Card) -> str:
    """What no program that writes cards would write, and pages rely on; empty for nothing."""
    if len({len(part) for part in _by_class(card)}) > 1:
        return "its lists by class have different lengths"
    if not card.networks or card.data.evaluated < 1:
        return "it has no network or no evaluated image"
    examples = [run.examples for run in card.training.values() if run.examples]
    if any(min(known.number, sum(known.class_counts)) < 1 for known in examples):
        return "a phase was trained on no image"
    if "commit" not in card.software:
        return "its software names no commit"
    columns = {"clean", card.protocol.headline}
    if not all(columns <= network.columns.keys() for network in card.networks.values()):
        return f"a network lacks one of its columns {', '.join(sorted(columns))}"
    counts = (column for network in card.networks.values() for column in network.columns.values())
    if any(right > total for column in counts for right, total in zip(column.correct, column.total, strict=True)):
        return "in a class more images are right than there are"
    classes = len(card.data.class_names)
    wrong = ((key, label) for key, label in _labels(card) if label >= classes)
    return next((f"{key} is {label}; needed is a label from 0 to {classes - 1}" for key, label in wrong), "")


def _by_class(card: Card) -> Iterator[Sequence[Any]]:
    """The lists of a card that have one entry for each class."""
    yield from (card.data.class_names, card.data.class_counts)
    yield from (run.examples.class_counts for run in card.training.values() if run.examples)
    for network in card.networks.values():
        for column in network.columns.values():
            yield from (column.correct, column.total, column.per_class)
        for matrix in (network.confusion or {}).values():
            yield from (matrix, *matrix)
        if network.most_frequent_confusion:
            yield network.most_frequent_confusion
        if network.rounded_to_8_bits:
            yield network.rounded_to_8_bits.correct
        if network.classifier:
            yield network.classifier.class_norms


def _labels(card: Card) -> Iterator[tuple[str, int]]:
    """The key and the value of each label on a card."""
    for name, network in card.networks.items():
        path = f"networks.{name}"
        for column, counts in network.columns.items():
            yield f"{path}.columns.{column}.worst.class_index", counts.worst.class_index
            for label in counts.classes_without_images:
                yield f"{path}.columns.{column}.classes_without_images", label
        for entry in filter(None, network.most_frequent_confusion or ()):
            yield f"{path}.most_frequent_confusion", entry.predicted
        for item in network.sanity:
            for label, *_ in item.per_class:
                yield f"{path}.sanity.{item.id}.per_class", label


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
    """Output of git in this file's folder."""
    command = ["git", *words]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
