"""Lines of a verdict store: a verdict with its attack and image, as JSON with a checksum. No JAX."""

import dataclasses
import json
import math
import zlib
from typing import Any

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


_NUMBERS = tuple(name for name in verdict.FIELDS if verdict.DTYPE[name].kind == "f")
# Attack -> image id -> what a store holds.
Lines = dict[str, dict[int, Line]]
# Keys of a line on disk, what it is about first.
_NAMES = (*(field.name for field in dataclasses.fields(Line) if field.name not in verdict.FIELDS), *verdict.FIELDS)


def parse(content: bytes) -> tuple[Lines, int]:
    """Lines by attack and image, and the number of damaged ones. The first line of an image counts."""
    verdicts: Lines = {}
    broken = 0
    for text in content.split(b"\n"):
        if not text:
            continue
        try:
            # The first line of an image counts, so that a number that was reported never changes.
            line = _decode(text)
            verdicts.setdefault(line.attack, {}).setdefault(line.image, line)
        except (ValueError, TypeError):
            broken += 1
    return verdicts, broken


def _decode(text: bytes) -> Line:
    """What `encode` was given; a ValueError or TypeError for a line that is not whole."""
    content, _, end = text.rpartition(b',"crc":')
    content += b"}"
    # A flipped digit is still valid JSON; without the checksum it would be a wrong number.
    if end != b'"%08x"}' % zlib.crc32(content):
        raise ValueError("checksum differs")
    values: dict[str, Any] = {"adversarial_at": None, **json.loads(content)}
    if values.keys() != set(_NAMES):
        raise ValueError("other fields")
    # JSON has null for NaN.
    values |= {name: math.nan for name, value in values.items() if value is None and name in _NUMBERS}
    return Line(**values)


def encode(line: Line) -> bytes:
    """A line as it is written: JSON that ends with the checksum of what stands before."""
    values = {name: getattr(line, name) for name in _NAMES}
    if line.adversarial_at is None:
        del values["adversarial_at"]
    content = json.dumps(without_nan(values), separators=(",", ":"))
    return f'{content[:-1]},"crc":"{zlib.crc32(content.encode()):08x}"}}\n'.encode()
