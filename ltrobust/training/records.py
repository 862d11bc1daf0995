"""Records of a run: JSON lines and TensorBoard events."""

import contextlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ltrobust.runtime.files import end_line, without_nan


class Records:
    """Writes one record per phase and epoch to `metrics.jsonl` and `tensorboard/`; nothing written is ever changed.
    With several processes all but the first are `silent`.

    A run that was killed and resumed may write an epoch twice; `read` keeps the later record. One that was killed in
    the middle of a line leaves a part of it, which is ended here, so that the next record has a line of its own.
    """

    def __init__(self, workdir: Path, *, silent: bool = False):
        self._file = workdir / "metrics.jsonl"
        self._events = None if silent else _event_writer(workdir / "tensorboard")

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record; its numbers become scalars `<phase>/<path>` at its epoch.

        Raises:
          OSError: it could not be written (names the folder).
        """
        if self._events is None:
            return
        line = json.dumps(without_nan(record), sort_keys=True, allow_nan=False) + "\n"
        try:
            end_line(self._file)
            with self._file.open("a") as lines:
                lines.write(line)
            for path, value in _scalars(record):
                self._events.add_scalar(f"{record['phase']}/{path}", value, record["epoch"])
            self._events.flush()
        except OSError as error:
            raise OSError(
                f"the record of {record['phase']}'s epoch {record['epoch']} could not be written to "
                f"{self._file.parent} ({error.strerror}); free space on that disk, and the same command goes on from "
                "the newest checkpoint."
            ) from error

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._events is None:
            return
        with contextlib.suppress(OSError):  # `write` has flushed everything, or said why not
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
            # The later record of an epoch replaces the earlier one, at its place.
            found[phase, epoch] = record
    return list(found.values())


def _scalars(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Paths and values of the plain finite numbers in a nested record; lists are left to the JSON."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value) and name != "epoch":
            yield prefix + name, float(value)


def _event_writer(folder: Path) -> Any:
    """tensorboardX's writer of events.

    tensorboardX imports PyTorch where it is installed, which takes seconds at every start and serves nothing that is
    written here. So PyTorch is hidden from it, unless it is loaded already.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - an import then fails
    try:
        from tensorboardX import SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return SummaryWriter(str(folder))
