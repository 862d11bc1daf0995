"""Records of a run: JSON lines, the same numbers as CSV, and events for TensorBoard and Weights & Biases."""

import contextlib
import importlib
import json
import math
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltrobust.runtime.files import end_line, without_nan, write_text
from ltrobust.runtime.spreadsheets import csv_text
from ltrobust.runtime.workdir import PHASES


class Records:
    """Writes one record per phase and epoch to `metrics.jsonl`, `metrics.csv` and `tensorboard/`.

    With several processes all but the first are `silent`.

    Nothing in `metrics.jsonl` is ever changed. A run that was killed and resumed may write an epoch twice; `read` keeps
    the later record. One that was killed in the middle of a line leaves a part of it, which is ended here, so that the
    next record starts on a new line. `metrics.csv` has what `read` finds, one row each.
    """

    def __init__(
        self, workdir: Path, *, silent: bool = False, wandb: str = "", config: Mapping[str, Any] | None = None
    ):
        """Opens the writers.

        Args:
          workdir: of the run.
          silent: whether nothing is written.
          wandb: project of Weights & Biases that records are also sent to; empty for none.
          config: of the run, plain values, for Weights & Biases.
        """
        self._file = workdir / "metrics.jsonl"
        self._table = None if silent else _Table(workdir / "metrics.csv", self._file)
        self._events = None if silent else _event_writer(workdir / "tensorboard")
        self._wandb = _start_wandb(wandb, workdir, config or {}) if wandb and not silent else None

    def write(self, record: Mapping[str, Any]) -> None:
        """Appends one record; its numbers become scalars `<phase>/<path>` at its epoch.

        Raises:
          OSError: it could not be written (names the folder).
        """
        if self._events is None or self._table is None:
            return
        line = json.dumps(without_nan(record), sort_keys=True, allow_nan=False) + "\n"
        try:
            end_line(self._file)
            with self._file.open("a") as lines:
                lines.write(line)
            self._table.add(json.loads(line))
            for path, value in _scalars(record):
                self._events.add_scalar(f"{record['phase']}/{path}", value, record["epoch"])
            self._events.flush()
        except OSError as error:
            raise OSError(
                f"the record of {record['phase']}'s epoch {record['epoch']} could not be written to "
                f"{self._file.parent} ({error.strerror}); free space on that disk, and the same command continues from "
                "the newest checkpoint."
            ) from error
        if self._wandb is not None:
            numbers = {f"{record['phase']}/{path}": value for path, value in _scalars(record)}
            self._wandb.log(numbers | {f"{record['phase']}/epoch": record["epoch"]})

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._events is None:
            return
        with contextlib.suppress(OSError):  # `write` has flushed everything, or said why not
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=1 if exception[0] else 0)


class _Table:
    """`metrics.csv`: appended to, and written again from `metrics.jsonl` at the start and when a column is new."""

    def __init__(self, file: Path, records: Path):
        self._file, self._records = file, records
        self._columns: Sequence[str] = ()
        self._known: set[tuple[str, int]] = set()

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds the last record of `metrics.jsonl`."""
        row, epoch = _row(record), (record["phase"], record["epoch"])
        if not row.keys() <= set(self._columns) or epoch in self._known:
            result = [_row(each) for each in read(self._records)]
            numbers = sorted({name for each in result for name in each} - {"phase", "epoch"})
            self._columns = ("phase", "epoch", *numbers)
            self._known = {(each["phase"], each["epoch"]) for each in result}
            write_text(self._file, _csv([dict(zip(self._columns, self._columns, strict=True)), *result], self._columns))
            return
        self._known.add(epoch)
        with self._file.open("a", newline="") as lines:
            lines.write(_csv([row], self._columns))


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's numbers by path, as events have them."""
    return {"phase": record["phase"], "epoch": record["epoch"], **dict(_scalars(record))}


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    return csv_text([row.get(name, "") for name in columns] for row in rows)


def check_wandb(project: str) -> None:
    """Refuses a project of Weights & Biases if the package is not installed.

    Raises:
      ValueError: says how it is installed.
    """
    try:
        if project:
            importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError(
            f"log.wandb is {project!r}, but the package wandb is not installed; run: pip install -e '.[wandb]', or "
            "leave log.wandb empty."
        ) from error


def _start_wandb(project: str, workdir: Path, config: Mapping[str, Any]) -> Any:
    """A run of Weights & Biases; a workdir that is continued continues its run."""
    file = workdir / "wandb" / "ltrobust_run_id"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, uuid.uuid4().hex)
    run = importlib.import_module("wandb").init(  # an extra
        project=project, name=workdir.resolve().name, id=file.read_text(), resume="allow", dir=workdir, config=config
    )
    for phase in PHASES:
        run.define_metric(f"{phase}/*", step_metric=f"{phase}/epoch")
    return run


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, the last one of each (phase, epoch), in the order of their first appearance.

    Lines that are no record, such as one that a killed run left incomplete, are skipped.
    """
    result: dict[tuple[str, int], dict[str, Any]] = {}
    for line in file.read_bytes().split(b"\n"):
        try:
            record = json.loads(line)
            phase, epoch = record["phase"], record["epoch"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(phase, str) and isinstance(epoch, int):
            # The later record of an epoch replaces the earlier one, at its place.
            result[phase, epoch] = record
    return list(result.values())


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
