"""Verdicts on disk: one line per image and attack, appended as they come, never rewritten. No JAX.

    passport.json    provenance, what the verdicts belong to: protocol, threat, seed, images, labels, network
    verdicts.jsonl   {"attack", "image", "prediction", ..., "crc"}, one line each, in order of arrival
    adversarial.f32  raw little-endian float32 images, only where asked for; a verdict names its offset in bytes

A reader may look at any time. A process that dies in the middle of a line leaves a part of it; the next one ends that
line, prints a note, and repeats the image. `crc` is the checksum of the rest of the line: a damaged verdict is noticed
and repeated, too. The folder is refused for anything other than what its passport names.
"""

import contextlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ltrobust.evaluation import identity
from ltrobust.runtime.files import end_line, hold, is_partial, read_json, without_nan, write_json
from ltrobust.runtime.names import nearest

# Raised when older verdicts could be misread. A store of another format is refused.
FORMAT = 3


class Store:
    """An open folder of verdicts. `verdicts` maps attack -> image id -> record, as found when it was opened."""

    def __init__(self, folder: str | Path, passport: Mapping[str, Any], *, keep_images: bool = False) -> None:
        """Opens the folder, or makes it.

        Args:
          folder: of the store.
          passport: plain values; compared with what is there. `network` is compared up to rounding
            (`identity.differences`), everything else exactly.
          keep_images: whether adversarial images are kept.

        Raises:
          ValueError: the folder holds verdicts of something else (shows both passports), is not a store, cannot be
            written, or is being written to by another process.
        """
        self.folder = Path(folder)
        self.notes: list[str] = []
        # As JSON reads it back (tuples become lists, NaN becomes null), so that it can be compared with the file.
        here = json.loads(json.dumps(without_nan({"format": FORMAT, **passport})))
        _claim(self.folder, here)
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(hold(self.folder))
        self.verdicts = self._read_lines()
        self._lines: BinaryIO = (self.folder / "verdicts.jsonl").open("ab")
        self._images: BinaryIO | None = (self.folder / "adversarial.f32").open("ab") if keep_images else None

    def append(self, attack: str, records: Iterable[Mapping[str, Any]], images: np.ndarray | None = None) -> None:
        """Adds records, each with at least `image` (its id) and `prediction`, and flushes them."""
        lines = []
        for position, record in enumerate(records):
            record = {"attack": attack, **record}
            if self._images is not None and images is not None:
                record["adversarial_at"] = self._images.tell()
                self._images.write(np.ascontiguousarray(images[position], "<f4").tobytes())
            self.verdicts.setdefault(attack, {})[int(record["image"])] = record
            lines.append(encode(record))
        if self._images is not None:
            # Images are on disk before the lines that name their offsets.
            self._images.flush()
        self._lines.write(b"".join(lines))
        self._lines.flush()

    def close(self) -> None:
        """Closes the files; the store can be opened again."""
        self._lines.close()
        if self._images is not None:
            self._images.close()
        self._closing.close()

    def _read_lines(self) -> dict[str, dict[int, dict[str, Any]]]:
        """Every whole record, and a note on what was not whole."""
        path = self.folder / "verdicts.jsonl"
        if not path.exists():
            return {}
        end_line(path)
        verdicts, broken = parse(path.read_bytes())
        if broken:
            self.notes.append(
                f"{path}: {broken} incomplete or damaged record(s) dropped; the images are attacked again."
            )
        return verdicts


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, dict[int, dict[str, Any]]]]:
    """Passport and verdicts of a store, which may be in use.

    Raises:
      ValueError: the folder is not a store, or one of another version.
    """
    passport, lines = read_passport(folder), Path(folder) / "verdicts.jsonl"
    verdicts, _ = parse(lines.read_bytes() if lines.exists() else b"")
    return passport, verdicts


def read_passport(folder: str | Path) -> dict[str, Any]:
    """What a store belongs to; its verdicts are not read.

    Raises:
      ValueError: as `read`.
    """
    folder = Path(folder)
    if not (folder / "passport.json").is_file():
        raise ValueError(f"{folder} is not a verdict store: it has no passport.json.")
    passport = read_json(folder / "passport.json")
    if passport.get("format") != FORMAT:
        raise ValueError(
            f"verdict store {folder} has format {passport.get('format')}, this version reads {FORMAT}; evaluate again, "
            "or use the version that wrote it."
        )
    return passport


def columns(passport: Mapping[str, Any]) -> tuple[str, ...]:
    """`clean`, each attack and each combination of a store's protocol; the last one is its headline."""
    protocol = passport["protocol"]
    return ("clean", *(attack["name"] for attack in protocol["attacks"]), *(name for name, _ in protocol["combined"]))


def members(passport: Mapping[str, Any], column: str | None = None) -> list[str]:
    """The attacks that a column consists of, in order; None for the protocol's headline.

    Raises:
      ValueError: no such column.
    """
    known = columns(passport)
    column = column or known[-1]
    if column not in known:
        raise ValueError(f"no column {column!r} in the store; {nearest(column, known)}it has {', '.join(known)}.")
    attacks = {attack["name"]: attack for attack in passport["protocol"]["attacks"]}
    alone = {"clean": []} | {name: [*attack["after"], name] for name, attack in attacks.items()}
    return list((alone | dict(passport["protocol"]["combined"]))[column])


def final(
    passport: Mapping[str, Any], verdicts: Mapping[str, Mapping[int, Mapping[str, Any]]], column: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and labels of a store's images, ascending by id, and the prediction that counts in a column, int64 [N] each.

    It is that of the first attack of the column that broke the image, as in `Evaluation.final_predictions`.

    Args:
      passport: from `read`.
      verdicts: from `read`.
      column: `clean`, an attack, or a combination; None for the protocol's headline, its last combination.

    Raises:
      ValueError: no such column, or images whose verdict is not there yet.
    """
    names = members(passport, column)
    clean = verdicts.get("clean", {})
    ids = np.array(sorted(clean), np.int64)
    labels = np.array([clean[identity]["label"] for identity in ids], np.int64)
    predictions = np.array([clean[identity]["prediction"] for identity in ids], np.int64)
    for name in names:
        # An attack of a sequence has verdicts only on the images that nothing before it has broken.
        for place in np.flatnonzero(predictions == labels):
            record = verdicts.get(name, {}).get(int(ids[place]))
            if record is None:
                raise ValueError(f"{name} has no verdict on image {ids[place]} yet; finish the evaluation first.")
            predictions[place] = record["prediction"]
    if len(ids) < passport["images"]["number"]:
        raise ValueError(f"{len(ids)} of {passport['images']['number']} images have verdicts; finish the evaluation.")
    return ids, labels, predictions


def correct(
    passport: Mapping[str, Any], verdicts: Mapping[str, Mapping[int, Mapping[str, Any]]], column: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `final`, with whether each image is right, bool [N], in place of the prediction."""
    ids, labels, predictions = final(passport, verdicts, column)
    return ids, labels, predictions == labels


def read_adversarial(folder: str | Path, record: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """The adversarial image that a record names, float32 of the given shape.

    Raises:
      ValueError: the store was written without images.
    """
    if "adversarial_at" not in record:
        raise ValueError(f"the verdict on image {record['image']} names no adversarial image; none were kept.")
    size = int(np.prod(shape))
    with (Path(folder) / "adversarial.f32").open("rb") as file:
        file.seek(record["adversarial_at"])
        return np.frombuffer(file.read(4 * size), "<f4").reshape(shape)


def parse(content: bytes) -> tuple[dict[str, dict[int, dict[str, Any]]], int]:
    """Records by attack and image, and how many lines were not whole. The first record of an image counts."""
    verdicts: dict[str, dict[int, dict[str, Any]]] = {}
    broken = 0
    for line in content.split(b"\n"):
        if not line:
            continue
        try:
            # The first record of an image counts, so that a number that was reported never changes.
            record = _record(line)
            verdicts.setdefault(record["attack"], {}).setdefault(int(record["image"]), record)
        except (ValueError, KeyError, TypeError):
            broken += 1
    return verdicts, broken


def _record(line: bytes) -> dict[str, Any]:
    """What `encode` was given; a ValueError for a line that is not whole."""
    content, _, end = line.rpartition(b',"crc":')
    content += b"}"
    # A flipped digit is still valid JSON; without the checksum it would be a wrong number.
    if end != b'"%08x"}' % zlib.crc32(content):
        raise ValueError("checksum differs")
    return json.loads(content)


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as it is written: one line of JSON that ends with the checksum of what stands before."""
    content = json.dumps(without_nan(record), separators=(",", ":"))
    return f'{content[:-1]},"crc":"{zlib.crc32(content.encode()):08x}"}}\n'.encode()


def _claim(folder: Path, here: dict[str, Any]) -> None:
    """Writes the passport of a new store, or compares it with the one that is there."""
    path = folder / "passport.json"
    if not path.exists():
        # A process that died while it wrote the passport of a new store leaves a part of it.
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"verdict store {folder} is a file; give a folder.")
        others = [found for found in (folder.iterdir() if folder.exists() else ()) if not is_partial(found, path.name)]
        if others and not path.exists():
            raise ValueError(f"{folder} is neither empty nor a verdict store; give another folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, here, new=True)
            return
        except FileExistsError as error:  # another process has just made it
            if not path.exists():
                raise ValueError(f"verdict store {folder} cannot be written ({error}); give another folder.") from error
        except OSError as error:
            raise ValueError(f"verdict store {folder} cannot be written ({error}); give another folder.") from error
    there = read_json(path)
    found = _differences(there, here)
    if found:
        raise ValueError(
            f"verdict store {folder} belongs to another evaluation; give another folder. Differences (there -> here):\n"
            + "\n".join(f"  {line}" for line in found)
        )


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Lines `key: there -> here`; a network's answers count as equal up to rounding."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if name == ".network":
            return identity.differences(there, here)
        keys = sorted(there.keys() | here.keys())
        return [line for key in keys for line in _differences(there.get(key), here.get(key), f"{name}.{key}")]
    return [] if there == here else [f"{name[1:]}: {_short(there)} -> {_short(here)}"]


def _short(value: Any) -> str:
    """At most 200 characters of a value."""
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."
