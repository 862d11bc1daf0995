"""One cell of a sweep: whether it is finished or another process trains it, and its run in a separate process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ltrobust import recipes
from ltrobust.analysis import cards
from ltrobust.commands.sweep_file import Cell, Sweep
from ltrobust.runtime import workdir
from ltrobust.runtime.files import hold, is_lock
from ltrobust.runtime.preemption import EXIT_STATUS, Preempted

# What starts a run.
PROGRAM = (sys.executable, "-m", "ltrobust", "train")


def card_of(folder: Path, protocol: str) -> Path | None:
    """The first card that a run wrote under the protocol, or None."""
    path = folder / "results" / f"{protocol.replace('/', '-')}.json"
    return path if path.exists() else None


def finished(sweep: Sweep, cell: Cell, out: Path) -> Path | None:
    """The card of a cell that is done, or None.

    Raises:
      ValueError: the cell's folder holds a run of another configuration, as after the sweep's file was edited.
    """
    folder = out / cell.name
    card = card_of(folder, sweep.protocol)
    if card is None:
        return None
    there, here = cards.read(card).config, workdir.plain(sweep.config_of(cell))
    result = workdir.differences(there, cards.describe_config(here))
    # A workdir may be evaluated in several ways; a cell is one of them.
    result += [f"eval.{line}" for line in workdir.differences(there["eval"], here["eval"])]
    if result:
        workdir.refuse(
            f"{folder} holds a finished run of another configuration",
            result,
            "Move that folder away, or give the sweep another --out.",
        )
    return card


def at_work(folder: Path) -> bool:
    """Whether another process holds the run's folder."""
    if not is_lock(folder / "lock"):
        return False
    try:
        with hold(folder):
            return False
    except ValueError:
        return True


def log_of(folder: Path) -> Path:
    """The file, beside a cell's folder, that holds what its runs print."""
    return folder.with_name(f"{folder.name}.log")


def last_lines(log: Path) -> str:
    """The last five lines of a log, indented; empty if there is none."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"  {line}" for line in [line for line in text.splitlines() if line.strip()][-5:])


def train(
    sweep: Sweep,
    cell: Cell,
    folder: Path,
    code: Sequence[str],
    started: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
) -> str:
    """Runs one cell in a separate process, its output in `log_of(folder)`; returns the cell's state.

    `started` is called with the process.

    Raises:
      Preempted: this process or the run was asked to stop; the run has saved.
    """
    log = log_of(folder)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [*PROGRAM, f"--config={sweep.config}", f"--workdir={folder}", *(f"--code={name}" for name in code)]
    command += [f"--config.{key}={value}" for key, value in {"eval.also": (), **cell.changes}.items()]
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())
        started(process)
        try:
            status = process.wait()
        except (Preempted, KeyboardInterrupt):
            process.terminate()
            process.wait()
            raise
    if status == EXIT_STATUS:
        raise Preempted(f"{cell.name} was asked to stop; the same command resumes from what is saved.")
    if status or not card_of(folder, sweep.protocol):
        if at_work(folder):  # began between the question and the run
            return "running"
        reason = f"exit status {status}"
        if status < 0:  # such as by the system, where memory is short; the run itself could not say so
            names = {number.value: number.name for number in signal.Signals}
            reason = f"ended by {names.get(-status, f'signal {-status}')}"
            with log.open("a") as output:
                output.write(f"{cell.name}: {reason}\n")
        print(f"{cell.name}: {reason}, log {log}:\n{last_lines(log)}")
        return "failed"
    return "finished"


def environment() -> dict[str, str]:
    """The environment of a run. In a checkout, which need not be installed, it finds the package of this process."""
    root, there = recipes.root(), os.environ.get("PYTHONPATH")
    if root.name == "shipped":  # inside an installed package
        return dict(os.environ)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(root), there)))}
