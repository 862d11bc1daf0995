"""The file `pack.json` of a pack (`pack.py`), written and read."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

# A pack of another format is refused.
FORMAT = 1
NAME = "pack.json"
# Ends messages about packs that are not as they were written.
REMEDY = "Make the pack again or copy it again."


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a pack: its name, the SHA-256 of its bytes, and how many images it holds."""

    name: str
    sha256: str
    images: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
    """The images of one split: files in order, SHA-256 of all pixels (uint8, C order), the source's notes and claim."""

    files: tuple[File, ...]
    pixels_sha256: str
    notes: tuple[str, ...]
    claim: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `pack.json`, which also has `format` and `checksum` (of all other entries).

    Attributes:
      name, class_names: of the data set.
      image_shape: height, width and channels (1 or 3).
      imbalance_ratio, profile, seed: what the training images were chosen by (`longtail.choose`).
      class_counts: training images per class.
      fingerprints: `longtail.fingerprint` of the `chosen` positions in the sampler's order, of `train_labels` and of
        `test_labels`.
      arrays: the file `arrays.npz`.
      train, test: the images of both splits.
      codec: versions of Pillow and libwebp that wrote the files.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    imbalance_ratio: float
    profile: str
    seed: int
    class_counts: tuple[int, ...]
    fingerprints: dict[str, str]
    arrays: File
    train: Part
    test: Part
    codec: str

    @property
    def choice(self) -> dict[str, Any]:
        """Arguments of `longtail.choose`."""
        return {"imbalance_ratio": self.imbalance_ratio, "profile": self.profile, "seed": self.seed}


def write(folder: pathlib.Path, manifest: Manifest) -> None:
    """Writes `pack.json` into a folder."""
    content = {"format": FORMAT, **dataclasses.asdict(manifest)}
    text = json.dumps({**content, "checksum": checksum(content)}, indent=1, sort_keys=True)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read(folder: pathlib.Path) -> Manifest:
    """The content of a pack's `pack.json`.

    Raises:
      ValueError: it is damaged or of another format; the message names it.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise ValueError(f"{path} has format {content['format']!r}, but format {FORMAT} is expected. {REMEDY}")
    if not isinstance(content, dict) or content.pop("checksum", None) != checksum(content):
        raise ValueError(f"{path} is damaged or was edited. {REMEDY}")
    try:
        return _manifest(content)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} lacks a field or has one too many ({error}). {REMEDY}") from error


def _manifest(content: dict[str, Any]) -> Manifest:
    """The manifest in the JSON object of a `pack.json`."""
    content = {key: value for key, value in content.items() if key != "format"}
    parts = {
        split: Part(
            files=tuple(File(**file) for file in content[split]["files"]),
            pixels_sha256=content[split]["pixels_sha256"],
            notes=tuple(content[split]["notes"]),
            claim=content[split].get("claim", ""),  # packs of earlier versions have none
        )
        for split in ("train", "test")
    }
    lists = {key: tuple(content[key]) for key in ("class_names", "image_shape", "class_counts")}
    return Manifest(**{**content, **lists, **parts, "arrays": File(**content["arrays"])})


def sha256(content: bytes | memoryview) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(content).hexdigest()


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of the content as JSON, whatever its layout in the file."""
    return sha256(json.dumps(content, sort_keys=True).encode())
