"""What a run tells while it goes: JSON lines, TensorBoard events, and lines for a person."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from ltrobust.files import end_line, without_nan


class Records:
    """Writes one record per phase and epoch to `metrics.jsonl` and `tensorboard/`; nothing written is ever changed.

    A run that was killed and resumed may write an epoch twice; `read` keeps the later record. One that was killed in
    the middle of a line leaves a part of it, which is ended here, so that the next record has a line of its own.
    """

    def __init__(self, workdir: Path):
        self._file = workdir / "metrics.jsonl"
        end_line(self._file)
        self._events = SummaryWriter(str(workdir / "tensorboard"))

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record; its numbers become scalars `<phase>/<path>` at its epoch."""
        with self._file.open("a") as lines:
            lines.write(json.dumps(without_nan(record), sort_keys=True, allow_nan=False) + "\n")
        for path, value in _scalars(record):
            self._events.add_scalar(f"{record['phase']}/{path}", value, record["epoch"])
        self._events.flush()

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exception: object) -> None:
        self._events.close()


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, the last one of each (phase, epoch), in the order of their first appearance.

    Lines that are no record, such as one that a killed run left incomplete, are passed over.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in file.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
            phase, epoch = record["phase"], record["epoch"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(phase, str) and isinstance(epoch, int):
            found[phase, epoch] = record
    return list(found.values())


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Paths and values of the plain finite numbers in a nested record; lists are left to the JSON."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value) and name != "epoch":
            yield prefix + name, float(value)
