"""Verdict stores: one line per image and attack on disk, appended and never rewritten. No JAX.

    provenance.json    identifies the evaluation: protocol, threat, seed, images, labels, network
    verdicts.jsonl   one line per verdict, in order of arrival: the fields of `lines.Line`, and "crc"
    adversarial.f32  raw little-endian float32 images, some or all; a verdict names its image's offset in bytes

A store can be read while it is written. If a process dies in the middle of a line, the next one ends that line, prints
a note, and attacks the image again. `crc` is the checksum of the rest of the line; damaged verdicts are repeated too.
Another evaluation is refused.
"""

import contextlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ltrobust.evaluation import identity, lines, verdict
from ltrobust.evaluation.columns import from_plain
from ltrobust.evaluation.lines import AttackVerdicts, Line, Lines
from ltrobust.evaluation.verdict import Verdict
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import end_line, hold, is_partial, read_json, without_nan, write_json

# Raise it when older verdicts could be misread. A store of another format is refused.
FORMAT = 5
OLDER = "passport.json"  # what provenance.json was called up to format 4
_UNSEEN = Verdict().prediction


class Store:
    """An open verdict store."""

    def __init__(
        self,
        folder: str | Path,
        provenance: Mapping[str, Any],
        *,
        keep_images: bool = False,
        sample: Collection[int] = (),
    ) -> None:
        """Opens a store, or creates it.

        Args:
          folder: of the store.
          provenance: plain values that identify the evaluation. An existing store must have the same: `network` up to
            rounding (`identity.differences`), everything else exactly.
          keep_images: keep all adversarial images.
          sample: ids of images whose adversarial images under the protocol's attacks are kept in any case.

        Raises:
          ValueError: the folder holds verdicts of another evaluation (the message lists the differences), is not a
            store, cannot be written, or is in use by another process.
        """
        self.folder = Path(folder)
        self.notes: list[str] = []
        # Through JSON, so that it can be compared with the file: tuples become lists, NaN becomes null.
        here = json.loads(json.dumps(without_nan({"format": FORMAT, **provenance})))
        _claim(self.folder, here)
        self._closing = contextlib.ExitStack()
        self._closing.enter_context(hold(self.folder))
        self._known = self._read_lines()
        self._new: dict[str, list[np.ndarray]] = {}
        self._lines: BinaryIO = (self.folder / "verdicts.jsonl").open("ab")
        self._all, self._sample = keep_images, frozenset(int(image) for image in sample)
        # The sanity panel's attacks are many, and no picture shows them.
        self._sampled = {attack["name"] for attack in here["protocol"]["attacks"]} if self._sample else set()
        keeps = keep_images or self._sample
        self._images: BinaryIO | None = (self.folder / "adversarial.f32").open("ab") if keeps else None

    def append(
        self,
        attack: str,
        ids: Sequence[int] | np.ndarray,
        labels: np.ndarray,
        verdicts: np.ndarray,
        images: np.ndarray | None = None,
    ) -> None:
        """Adds verdicts (`verdict.DTYPE`, [n]) on the images with these ids, and flushes them.

        `images`: the adversarial images, float32 [n,H,W,C]; the store writes those that it keeps.
        """
        rows, written = np.empty(len(verdicts), lines.ROW), []
        for place, values in enumerate(verdicts):
            at = None
            if self._images is not None and images is not None and self._keeps(attack, int(ids[place])):
                at = self._images.tell()
                self._images.write(np.ascontiguousarray(images[place], "<f4").tobytes())
            fields = dict(zip(verdict.FIELDS, values.item(), strict=True))
            line = Line(attack=attack, image=int(ids[place]), label=int(labels[place]), adversarial_at=at, **fields)
            rows[place] = lines.row(line)
            written.append(lines.encode(line))
        self._new.setdefault(attack, []).append(rows)
        if self._images is not None:
            # Images are on disk before the lines that name their offsets.
            self._images.flush()
        self._lines.write(b"".join(written))
        self._lines.flush()

    def verdicts(self, attack: str) -> AttackVerdicts:
        """Verdicts of one attack: those found when the store was opened, and those added since."""
        known = self._known.get(attack, lines.empty(attack))
        if new := self._new.pop(attack, []):
            known = self._known[attack] = AttackVerdicts(attack, np.concatenate([known.rows, *new]))
        return known

    def _keeps(self, attack: str, image: int) -> bool:
        return self._all or (attack in self._sampled and image in self._sample)

    def close(self) -> None:
        """Closes the files; the store can be opened again."""
        self._lines.close()
        if self._images is not None:
            self._images.close()
        self._closing.close()

    def _read_lines(self) -> Lines:
        """Reads all complete lines, and adds a note if some are damaged."""
        path = self.folder / "verdicts.jsonl"
        if not path.exists():
            return {}
        end_line(path)
        with path.open("rb") as file:
            verdicts, broken, _ = lines.parse(file)
        if broken:
            self.notes.append(
                f"{path}: {broken} incomplete or damaged record(s) dropped; the images are attacked again."
            )
        return verdicts


def read(folder: str | Path, sha256: str | None = None) -> tuple[dict[str, Any], Lines]:
    """Reads the provenance and the verdicts of a store, which may be in use.

    Args:
      folder: of the store.
      sha256: of `verdicts.jsonl`, as recorded on the card; None skips the comparison.

    Raises:
      ValueError: the folder is not a store, has another format, or holds other verdicts than the card.
    """
    provenance, file = read_provenance(folder), Path(folder) / "verdicts.jsonl"
    with file.open("rb") if file.exists() else io.BytesIO() as content:
        verdicts, _, digest = lines.parse(content)
    if sha256 is not None and digest != sha256:
        raise ValueError(f"{folder} holds other verdicts than the card was made from; evaluate again.")
    return provenance, verdicts


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """What a store belongs to; its verdicts are not read.

    Raises:
      ValueError: as `read`; or numbers of training images that are none.
    """
    folder = Path(folder)
    if not (folder / "provenance.json").is_file():
        _refuse_older(folder)
        raise ValueError(f"{folder} is not a verdict store: it has no provenance.json.")
    provenance = read_json(folder / "provenance.json")
    if provenance.get("format") != FORMAT:
        raise _other_format(folder, provenance)
    if counts := provenance.get("about", {}).get("training_counts"):
        try:
            typed_json.parse(Sequence[typed_json.Count], counts, "about.training_counts")
        except ValueError as error:
            raise ValueError(f"{folder / 'provenance.json'} is damaged: {error} Put back a copy of it.") from error
    return provenance


def _other_format(folder: Path, provenance: Mapping[str, Any]) -> ValueError:
    """The refusal of a store of another format."""
    return ValueError(
        f"verdict store {folder} has format {provenance.get('format')}, this version reads {FORMAT}; "
        "evaluate again, or use the version that wrote it."
    )


def _refuse_older(folder: Path) -> None:
    """Raises a ValueError where the folder is a store of a format with another name of its provenance."""
    if (folder / OLDER).is_file():
        raise _other_format(folder, read_json(folder / OLDER))


def columns(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """`clean`, each attack and each combination of a store's protocol; the last one is its headline."""
    return from_plain(provenance["protocol"]).names


def members(provenance: Mapping[str, Any], column: str | None = None) -> list[str]:
    """The attacks that a column consists of, in order; None for the protocol's headline.

    Raises:
      ValueError: no such column.
    """
    return from_plain(provenance["protocol"]).members(column)


def final(
    provenance: Mapping[str, Any], verdicts: Mapping[str, AttackVerdicts], column: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and labels of a store's images, ascending by id, and the prediction that counts in a column, int64 [N] each.

    Args:
      provenance: from `read`.
      verdicts: from `read`.
      column: `clean`, an attack, or a combination; None for the protocol's headline, its last combination.

    Raises:
      ValueError: no such column, or images whose verdict is not there yet.
    """
    clean, number = verdicts.get("clean", lines.empty("clean")).rows, provenance["images"]["number"]
    ids, labels = clean["image"], clean["label"]
    predictions = {
        # An attack of a sequence has verdicts only on the images that nothing before it has broken.
        name: verdicts.get(name, lines.empty(name)).predictions(ids)
        for name in ("clean", *members(provenance, column))
    }
    result = from_plain(provenance["protocol"]).final(predictions, labels, column)
    if np.any(missing := result == _UNSEEN):
        name = next(name for name, seen in predictions.items() if np.any(missing & (seen == _UNSEEN)))
        raise ValueError(f"{name} has no verdict on image {ids[missing][0]} yet; finish the evaluation first.")
    if len(ids) < number:
        raise ValueError(f"{len(ids)} of {number} images have verdicts; finish the evaluation.")
    return ids, labels, result


def correct(
    provenance: Mapping[str, Any], verdicts: Mapping[str, AttackVerdicts], column: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `final`, with whether each image is right, bool [N], in place of the prediction."""
    ids, labels, predictions = final(provenance, verdicts, column)
    return ids, labels, predictions == labels


def read_adversarial(folder: str | Path, line: Line, shape: tuple[int, ...]) -> np.ndarray:
    """The adversarial image that a line names, float32 of the given shape.

    Raises:
      ValueError: the store was written without images.
    """
    if line.adversarial_at is None:
        raise ValueError(f"the verdict on image {line.image} names no adversarial image; none were kept.")
    size = int(np.prod(shape))
    with (Path(folder) / "adversarial.f32").open("rb") as file:
        file.seek(line.adversarial_at)
        return np.frombuffer(file.read(4 * size), "<f4").reshape(shape)


def _claim(folder: Path, here: dict[str, Any]) -> None:
    """Writes the provenance of a new store, or compares it with that of an existing one."""
    path = folder / "provenance.json"
    if not path.exists():
        # A process that died while it wrote the provenance leaves a partial file.
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"verdict store {folder} is a file; give a folder.")
        others = [found for found in (folder.iterdir() if folder.exists() else ()) if not is_partial(found, path.name)]
        if others and not path.exists():
            _refuse_older(folder)
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
    """Lines `key: there -> here`; a network's outputs count as equal up to rounding."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        if name == ".network":
            return identity.differences(there, here)
        if not name and not ("contents" in there and "contents" in here):  # of files that were not all read
            there, here = ({key: value for key, value in each.items() if key != "contents"} for each in (there, here))
        keys = sorted(there.keys() | here.keys())
        return [line for key in keys for line in _differences(there.get(key), here.get(key), f"{name}.{key}")]
    return [] if there == here else [f"{name[1:]}: {_short(there)} -> {_short(here)}"]


def _short(value: Any) -> str:
    """At most 200 characters of a value."""
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."
