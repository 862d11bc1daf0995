"""Lines of a verdict store: a verdict with its attack and image, as JSON with a checksum. No JAX."""

import dataclasses
import hashlib
import itertools
import json
import operator
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from ltrobust.evaluation import verdict
from ltrobust.evaluation.verdict import Verdict
from ltrobust.runtime.files import without_nan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line(Verdict):
    """A verdict with its attack and image: the columns of `verdicts.jsonl`.

    Attributes:
      attack: name; `clean` for the image itself, and names that begin with `panel/` for attacks of the sanity panel.
      image: id, from 0.
      label: the true class, from 0.
      adversarial_at: offset of the adversarial image in `adversarial.f32`, in bytes; None where it was not kept.
    """

    attack: str
    image: int
    label: int
    adversarial_at: int | None = None


# Keys of a line on disk, what it is about first.
_NAMES = (*(field.name for field in dataclasses.fields(Line) if field.name not in verdict.FIELDS), *verdict.FIELDS)
# A line in memory, without its attack; `adversarial_at` is -1 where no image was kept.
ROW = np.dtype([*((name, int) for name in ("image", "label", "adversarial_at")), *verdict.DTYPE.descr])
_KEYS = frozenset(_NAMES)
_values = operator.itemgetter(*ROW.names or ())
# What JSON makes of a row: a float may be null, which is NaN.
_TYPES = frozenset(
    itertools.product(
        *({"f": (float, type(None)), "i": (int,), "b": (bool,)}[ROW[name].kind] for name in ROW.names or ())
    )
)


class AttackVerdicts(Mapping[int, Line]):
    """One attack's verdicts: image id -> `Line`, ascending. A million of them are one array, not a million objects.

    Attributes:
      attack: name.
      rows: array [n] of `ROW`, ascending by image, one for each.
    """

    def __init__(self, attack: str, rows: np.ndarray) -> None:
        """Args: the attack's name, and rows in order of arrival; of several rows of an image the first one counts."""
        # A number that was reported never changes, so a later line of an image is not read.
        self.attack, self.rows = attack, rows[np.unique(rows["image"], return_index=True)[1]]

    def __getitem__(self, image: int) -> Line:
        """The verdict on one image; a KeyError where there is none."""
        place = int(self.places(np.array([image]))[0])
        if place < 0:
            raise KeyError(image)
        values = dict(zip(ROW.names or (), self.rows[place].item(), strict=True))
        at = values.pop("adversarial_at")
        return Line(attack=self.attack, adversarial_at=None if at < 0 else at, **values)

    def __iter__(self) -> Iterator[int]:
        """Image ids, ascending."""
        return iter(self.rows["image"].tolist())

    def __len__(self) -> int:
        """How many images have a verdict."""
        return len(self.rows)

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Position in `rows` of each of these images [m], int64; -1 for one without a verdict."""
        known = self.rows["image"]
        places = np.searchsorted(known, ids)
        there = places < len(known)
        there[there] = known[places[there]] == np.asarray(ids)[there]
        return np.where(there, places, -1)

    def predictions(self, ids: np.ndarray) -> np.ndarray:
        """Predicted class of each of these images, int64 [m]; -1 for one without a verdict."""
        return np.append(self.rows["prediction"], Verdict().prediction)[self.places(ids)]


# Attack -> what a store holds.
Lines = dict[str, AttackVerdicts]


def row(line: Line) -> tuple[Any, ...]:
    """A line as an element of an array of `ROW`."""
    at = -1 if line.adversarial_at is None else line.adversarial_at
    return (line.image, line.label, at, *verdict.row(line))


def empty(attack: str) -> AttackVerdicts:
    """An attack without verdicts."""
    return AttackVerdicts(attack, np.empty(0, ROW))


def parse(file: BinaryIO, block: int = 2**22) -> tuple[Lines, int, str]:
    """Verdicts by attack, how many lines were not whole, and the SHA-256 of all bytes.

    `block`: bytes of lines that are decoded together, so that memory does not grow with the file.
    """
    result: dict[str, list[np.ndarray]] = {}
    broken, digest = 0, hashlib.sha256()
    while texts := file.readlines(block):
        digest.update(b"".join(texts))
        whole = [content for text in texts if (content := _content(text)) is not None]
        broken += sum(text != b"\n" for text in texts)
        for rows in _decode_all(whole):
            broken -= sum(map(len, rows.values()))
            for attack, values in rows.items():
                result.setdefault(attack, []).append(values)
    verdicts = {attack: AttackVerdicts(attack, np.concatenate(rows)) for attack, rows in result.items()}
    return verdicts, broken, digest.hexdigest()


def _content(text: bytes) -> bytes | None:
    """The JSON of a line without its checksum; None for a line that is empty, not whole, or damaged."""
    content, _, end = text.removesuffix(b"\n").rpartition(b',"crc":')
    content += b"}"
    # A flipped digit is still valid JSON; without the checksum it would be a wrong number.
    return content if end == b'"%08x"}' % zlib.crc32(content) else None


def _decode_all(contents: list[bytes]) -> Iterator[dict[str, np.ndarray]]:
    """`_decode` of all contents together; one by one without those that are no line, if there is one."""
    for chosen in (contents, *([content] for content in contents)):
        try:
            yield _decode(chosen)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
        if chosen is contents:
            return


def _decode(contents: list[bytes]) -> dict[str, np.ndarray]:
    """Attack -> its lines, arrays of `ROW`; one of the errors of `_decode_all` if a content is not a line."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    parsed = json.loads(b"[%b]" % b",".join(contents))
    if len(parsed) != len(contents):
        raise ValueError("several lines in one")
    for values in parsed:
        values.setdefault("adversarial_at", -1)
        if values.keys() != _KEYS or type(values["attack"]) is not str:
            raise ValueError("other fields")
        row = _values(values)
        # NumPy would take 3.7 for 3, and "false" for True.
        if tuple(map(type, row)) not in _TYPES:
            raise TypeError("other types")
        if min(values["image"], values["label"], values["adversarial_at"] + 1, values["prediction"] + 1) < 0:
            raise ValueError("out of range")
        rows.setdefault(values["attack"], []).append(row)
    # Null, JSON's form of NaN, becomes NaN.
    return {attack: np.array(result, ROW) for attack, result in rows.items()}


def encode(line: Line) -> bytes:
    """A line as it is written: JSON that ends with the checksum of what stands before."""
    values = {name: getattr(line, name) for name in _NAMES}
    if line.adversarial_at is None:
        del values["adversarial_at"]
    content = json.dumps(without_nan(values), separators=(",", ":"))
    return f'{content[:-1]},"crc":"{zlib.crc32(content.encode()):08x}"}}\n'.encode()
