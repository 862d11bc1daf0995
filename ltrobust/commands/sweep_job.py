"""One cell of a sweep as a job of submitit: what the job itself does, and the file in which it notes its events.

A run that ends with exit status 75 was asked to stop and has saved: its job is requeued, and resumes. The same happens
when the job gets submitit's signal, which Slurm sends before a job's time is up and where it preempts by that signal.
SIGTERM to the job, as from `scancel` or `kill`, stops both for good; where Slurm preempts by it, Slurm itself requeues.
"""

import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ltrobust.commands import sweep_cell
from ltrobust.commands.sweep_file import Cell, Sweep
from ltrobust.runtime.preemption import EXIT_STATUS, Preempted


def note(events: Path, text: str) -> None:
    """Adds a line with the time to a cell's file of events."""
    with events.open("a") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def noted(events: Path) -> list[str]:
    """The events of a cell without their times."""
    return [line[20:] for line in events.read_text().splitlines()] if events.exists() else []


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other sweep looks for open cells or submits them, and keeps others waiting meanwhile."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclasses.dataclass(frozen=True)
class CellJob:
    """Trains a cell when it is called, in the job.

    Attributes:
      sweep, cell, folder, code: see `sweep_cell.train`.
      events: file of events, see `note`.
      environment: variables of the run; None removes one.
    """

    sweep: Sweep
    cell: Cell
    folder: Path
    code: tuple[str, ...]
    events: Path
    environment: Mapping[str, str | None]

    def __call__(self) -> str:
        """Returns the cell's state.

        Raises:
          SystemExit: the run was asked to stop and has saved; where that was not for good, submitit requeues the job.
        """
        preempted = _signal()
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            os.setsid()  # so that Ctrl-C in the terminal of the sweep does not reach the job
        self._set_environment()
        note(self.events, f"running on {socket.gethostname()}")
        before = {number: signal.getsignal(number) for number in (preempted, signal.SIGTERM)}
        received: list[int] = []

        def started(process: subprocess.Popen[bytes]) -> None:
            def ask(number: int, frame: FrameType | None) -> None:
                received.append(number)
                process.terminate()

            for number in before:
                signal.signal(number, ask)

        # Slurm sends its signal to every process of the job. The run inherits that it is ignored, and gets SIGTERM.
        signal.signal(preempted, signal.SIG_IGN)
        try:
            state = sweep_cell.train(self.sweep, self.cell, self.folder, self.code, started)
        except Preempted:
            state = "stopped"
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if state in ("finished", "running") or (state == "failed" and not received):
            return state
        if signal.SIGTERM in received:
            note(self.events, "stopped")
            sys.exit(EXIT_STATUS)
        os.kill(os.getpid(), preempted)  # submitit's handler calls `checkpoint`, requeues the job and exits
        raise Preempted(f"{self.cell.name} was asked to stop and could not be requeued.")

    def checkpoint(self) -> Any:
        """The job that submitit requeues in place of this one: the same, because runs resume by themselves."""
        from submitit.helpers import DelayedSubmission  # an extra

        note(self.events, "requeued")
        return DelayedSubmission(self)

    def _set_environment(self) -> None:
        for name, value in self.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _signal() -> signal.Signals:
    """The signal by which submitit is asked to requeue a job."""
    from submitit import JobEnvironment  # an extra

    return signal.Signals[f"SIG{JobEnvironment.USR_SIG}"]
