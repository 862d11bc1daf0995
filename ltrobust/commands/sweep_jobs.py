"""The cells of a sweep as jobs of submitit: submits and watches them, and prints a line for each event.

`local` jobs are processes of this machine, at most N at a time in one folder (on each GPU, its share of N), whichever
command started them; `slurm` submits arrays. A cell that names the folder of an earlier one is submitted when that one
has ended. Jobs survive this process. The same command finds those of Slurm again by the files in `OUT/.jobs`; cells at
which another process or a local job is are left to it.
"""

import contextlib
import dataclasses
import functools
import importlib
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ltrobust.commands import sweep_cell, sweep_local
from ltrobust.commands.sweep_file import Cell, Sweep
from ltrobust.commands.sweep_job import CellJob, alone, note, noted
from ltrobust.commands.sweep_slurm import EXAMPLE, Slurm
from ltrobust.runtime.names import nearest
from ltrobust.runtime.preemption import Preempted, Preemption

LAUNCHERS = ("local", "slurm")
# Where submitit's files and the events of cells lie, below the sweep's folder. No variant begins with a dot.
FOLDER = ".jobs"
# How often a job may reach its time limit before submitit gives it up.
_TIME_LIMITS = 100
# Minutes of a local job, which has no limit: a year.
_FOREVER = 60 * 24 * 365


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Where jobs run.

    Attributes:
      name: one of `LAUNCHERS`.
      executor: submitit's.
      slots: GPUs (None: no choice) of the jobs that may run at a time in one folder; None where the executor holds the
        limit.
      find: gives a job that an earlier command submitted, by its number; None if it has ended.
      look, stop: beginnings of commands that end in numbers of jobs.
      seconds: between two looks at the jobs.
      lives: whether a job still runs, by its number, whichever command submitted it; only where `find` finds none.
    """

    name: str
    executor: Any
    slots: tuple[str | None, ...] | None
    find: Callable[[str], Any | None]
    look: str
    stop: str
    seconds: float
    lives: Callable[[str], bool] = lambda number: False


def make(name: str | None, out: Path, options: Slurm | None, jobs: int | None) -> Launcher:
    """The launcher of a name.

    Args:
      name: one of `LAUNCHERS`; None only with `jobs`, for its message.
      out: the sweep's folder.
      options: what the sweep's file has as SLURM.
      jobs: local jobs at a time, or None for the default.

    Raises:
      ValueError: an unknown name, a number of jobs that is not allowed, submitit is not installed, or for Slurm there
        are no options or there is no `sbatch`.
    """
    if jobs is not None and name is None:
        raise ValueError("--jobs needs --launcher=local.")
    if jobs is not None and name == "slurm":
        raise ValueError("--jobs needs --launcher=local; for Slurm, give array_parallelism in SLURM.")
    if jobs is not None and not 1 <= jobs <= sweep_local.MOST:
        raise ValueError(f"--jobs={jobs} is not allowed; give 1 to {sweep_local.MOST}.")
    if name not in LAUNCHERS:
        raise ValueError(
            f"--launcher={name} is unknown; {nearest(name, LAUNCHERS)}give one of {', '.join(LAUNCHERS)}, or leave it "
            "out to run one cell after the other."
        )
    try:
        submitit = importlib.import_module("submitit")
    except ImportError as error:
        raise ValueError("submitit is not installed; run: pip install -c constraints.txt -e '.[slurm]'") from error
    if name == "local":
        executor = submitit.LocalExecutor(out / FOLDER)
        executor.update_parameters(timeout_min=_FOREVER)
        lives = functools.partial(sweep_local.lives, folder=out / FOLDER)
        return Launcher(name, executor, sweep_local.slots(jobs), lambda number: None, "ps -p ", "kill", 1.0, lives)
    if options is None:
        raise ValueError(f"--launcher=slurm needs SLURM in the sweep's file; add SLURM = {EXAMPLE}.")
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise ValueError(
            "--launcher=slurm needs the commands sbatch and srun; run it where Slurm is, or give --launcher=local."
        )
    executor = submitit.SlurmExecutor(out / FOLDER, max_num_timeout=_TIME_LIMITS)
    executor.update_parameters(**options.parameters())

    def find(number: str) -> Any | None:
        job = submitit.SlurmJob(executor.folder, number)
        return None if job.done() or job.state == "UNKNOWN" else job

    return Launcher(name, executor, None, find, "squeue --jobs=", "scancel", 10.0)


def run(sweep: Sweep, out: Path, code: Sequence[str], launcher: Launcher) -> dict[str, str]:
    """Submits the open cells and waits for their jobs; prints a line for each event. Returns states by name.

    Raises:
      Preempted: the process was asked to stop; its jobs go on.
      ValueError: Slurm refuses the jobs.
    """
    jobs = Jobs(sweep, out, tuple(code), launcher)
    with Preemption().listening() as request, contextlib.suppress(Preempted):
        while not request.requested:
            with request.waiting():  # so that no job is submitted without being noted
                more = jobs.advance()
            if not more:
                return jobs.end()
            time.sleep(launcher.seconds)
    raise Preempted(f"stopped by {request.requested}; {jobs.farewell()}")


class Jobs:
    """The cells of a sweep: those that wait, those with jobs, and the states of those that have ended."""

    def __init__(self, sweep: Sweep, out: Path, code: tuple[str, ...], launcher: Launcher) -> None:
        self._sweep, self._out, self._code, self._launcher = sweep, out, code, launcher
        self._titles = {cell.name: f"[{n}/{len(sweep.cells)}] {cell.name}" for n, cell in enumerate(sweep.cells, 1)}
        self._states: dict[str, str] = {}
        self._waiting: list[Cell] = []
        self._jobs: dict[str, Any] = {}
        self._reported: dict[str, int] = {}
        self._told = False  # that all slots are used by others
        self._named = _named(sweep, out)
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        self._waiting = [cell for cell in sweep.cells if self._is_open(cell)]

    def advance(self) -> bool:
        """Submits what may be submitted and reports events; returns whether there is more to wait for."""
        with alone(self._out / FOLDER):
            # Slots are looked up only if a cell could use one: it takes the events of all cells.
            if ready := self._ready():
                slots = self._free(len(ready))
                self._submit([cell for cell in ready[: len(slots)] if self._is_open(cell)], slots)
        for name, job in list(self._jobs.items()):
            self._report_events(name)
            if job.done():
                self._report_events(name)  # written since
                self._conclude(name, job)
        return bool(self._jobs or self._ready())

    def end(self) -> dict[str, str]:
        """The states by name, once nothing is left to wait for."""
        for cell in self._waiting:
            self._states[cell.name] = "waiting"
            self._print(cell.name, f"waits for {', '.join(self._needed(cell))}; give the same command again later")
        return self._states

    def farewell(self) -> str:
        """What becomes of the jobs, and the commands to look at them and to stop them."""
        numbers = [str(job.job_id) for job in self._jobs.values()]
        if not numbers:
            return "no job is left. The same command continues."
        look, stop = f"{self._launcher.look}{','.join(numbers)}", f"{self._launcher.stop} {' '.join(numbers)}"
        return f"its jobs go on (see them: {look}; stop them: {stop}). The same command continues."

    def _is_open(self, cell: Cell) -> bool:
        """Whether a cell may be submitted; one that is finished, at work or ended by another sweep waits no longer."""
        name, folder, known = cell.name, self._out / cell.name, self._reported.get(cell.name)
        events = self._reported[name] = len(noted(self._events(name)))
        number, _ = self._last_job(name) or ("", None)
        try:
            if sweep_cell.finished(self._sweep, cell, self._out):
                self._states[name] = "finished"
            elif number and (job := self._launcher.find(number)):
                self._jobs[name] = job
                self._print(name, f"submitted before as job {job.job_id}")
            elif sweep_cell.at_work(folder):
                self._states[name] = "running"
                self._print(name, "another process is at it")
            elif number and self._launcher.lives(number):
                self._states[name] = "running"
                self._print(name, f"job {number} is at it; it is left alone")
            elif known not in (None, events):  # submitted by another command since this one looked
                self._states[name] = "failed"
                self._print(name, f"job {number} of another sweep has failed, log {sweep_cell.log_of(folder)}")
            else:
                return True
        except ValueError as error:
            self._states[name] = "failed"
            self._print(name, str(error))
        self._waiting = [other for other in self._waiting if other is not cell]
        return False

    def _events(self, name: str) -> Path:
        return self._out / FOLDER / f"{name}.events"

    def _last_job(self, name: str) -> tuple[str, str | None] | None:
        """Number and GPU of the job that was last submitted for a cell."""
        pattern = rf"submitted to {self._launcher.name} as job (\S+?)(?: on GPU (.*))?"
        matches = [match for line in noted(self._events(name)) if (match := re.fullmatch(pattern, line))]
        return (matches[-1][1], matches[-1][2]) if matches else None

    def _needed(self, cell: Cell) -> list[str]:
        """Cells that a cell waits for."""
        return [name for name in self._named[cell.name] if self._states.get(name) not in ("finished", "failed")]

    def _ready(self) -> list[Cell]:
        """The cells that may be submitted as soon as there are slots for them."""
        return [cell for cell in self._waiting if not self._needed(cell)]

    def _free(self, count: int) -> Sequence[str | None]:
        """Slots that no job in the sweep's folder has, of whichever command; without a limit `count` of them."""
        if self._launcher.slots is None:
            return [None] * count
        taken = {}  # by number, which the system may have used before: the newest file is that of the job which lives
        files = (self._out / FOLDER).glob("*.events")
        for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            if (last := self._last_job(path.stem)) and (path.stem in self._jobs or self._launcher.lives(last[0])):
                taken[last[0]] = last[1]
        free = list(self._launcher.slots)
        for slot in taken.values():
            if slot in free:  # another command may use other GPUs, or have more slots
                free.remove(slot)
        if not free and not self._jobs and not self._told:
            self._told = True
            numbers = ",".join(taken)
            print(f"All slots are used by jobs of other commands ({self._launcher.look}{numbers}); waits.", flush=True)
        return free

    def _submit(self, cells: list[Cell], slots: Sequence[str | None]) -> None:
        """Submits cells to the first of these slots, on Slurm as one array."""
        if not cells:
            return
        slots, local = slots[: len(cells)], self._launcher.slots is not None
        tasks = []
        for cell, slot in zip(cells, slots, strict=True):
            bare = dataclasses.replace(self._sweep, cells=())
            events = self._events(cell.name).absolute()
            environment = sweep_local.environment(slot) if local else {}
            tasks.append(CellJob(bare, cell, self._out / cell.name, self._code, events, environment))
        with _apart():
            submitted = self._launcher.executor.submit_array(tasks)
        for cell, job, slot in zip(cells, submitted, slots, strict=True):
            where = "" if slot is None else f" on GPU {slot}"
            note(self._events(cell.name), f"submitted to {self._launcher.name} as job {job.job_id}{where}")
            self._jobs[cell.name] = job
        self._waiting = [cell for cell in self._waiting if cell not in cells]

    def _report_events(self, name: str) -> None:
        """Prints the events of a cell that were not printed yet."""
        events = noted(self._events(name))
        for event in events[self._reported[name] :]:
            self._print(name, event)
        self._reported[name] = len(events)

    def _conclude(self, name: str, job: Any) -> None:
        """Takes the state of a cell from its job, which has ended."""
        error = job.exception()
        state = "failed" if error else job.result()
        log = sweep_cell.log_of(self._out / name)
        if error:  # the job itself; the cell's log may hold nothing about it
            log = job.paths.stderr
        text = {"failed": f"failed, log {log}:\n{sweep_cell.last_lines(log)}", "running": "another process is at it"}
        self._print(name, text.get(state, state))
        self._states[name] = state
        del self._jobs[name]

    def _print(self, name: str, text: str) -> None:
        print(f"{self._titles[name]}: {text}", flush=True)


def _named(sweep: Sweep, out: Path) -> dict[str, list[str]]:
    """For each cell, the earlier ones whose folders its changes name: it starts from what they have trained."""
    result: dict[str, list[str]] = {}
    for cell in sweep.cells:
        paths = [Path(value) for value in cell.changes.values() if isinstance(value, str)]
        folders = {folder for path in paths for folder in (path, *path.parents)}
        result[cell.name] = [name for name in result if out / name in folders]
    return result


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """Jobs submitted within survive Ctrl-C and the end of the terminal, and take nothing over from a job around them.

    Raises:
      ValueError: Slurm refuses the jobs.
    """
    helpers = importlib.import_module("submitit.helpers")
    errors = importlib.import_module("submitit.core.utils")
    path = {key: value for key, value in sweep_cell.environment().items() if key == "PYTHONPATH"}
    # Local jobs inherit what is ignored.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        with helpers.clean_env(), helpers.environment_variables(**path):
            yield
    except (errors.FailedJobError, errors.FailedSubmissionError) as error:
        raise ValueError(f"the jobs cannot be submitted: {' '.join(str(error).split())}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
