"""The queue: runs the next parts that are not done and fit into the seconds at hand, one job's process at a time.

The runner itself never touches the device. It stops the job at work when the time is up; what that job had saved stays
in the scratch folder, and the same command resumes there.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.accelerator import ROOT, filing, inputs, jobs, provenance
from benchmarks.accelerator.part import FAILED, slug
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import EXIT_STATUS

# Seconds that a job is given to save its work when the time is up.
GRACE = 20.0
# Seconds between the lines that say what the runner does.
_HEARTBEAT = 20.0
# The process of a job; its name and flags follow.
COMMAND = (sys.executable, "-m", "benchmarks.accelerator", "part")
# Exit status of a job that was stopped and can be resumed.
_STOPPED = EXIT_STATUS
# So many jobs that fail without a result, one after the other, have a reason in common.
_MOST_FAILURES = 2
# A training that does not fit is not begun with less than this left.
_LEAST_TRAINING = 60.0
# A dry run's parts all take less than a minute; one is not begun with less than this left.
_DRY_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Task:
    """Parts of one job that are not done and fit."""

    job: jobs.Job
    open: tuple[jobs.Part, ...]
    done: frozenset[str]


def main(given: argparse.Namespace) -> int:
    """Runs what fits and prints a table of all parts. Returns the exit status: 1 if a part failed, 0 otherwise.

    Raises:
      ValueError: an unknown job, damaged or missing inputs, too few seconds for every open part or for the job that is
        to be the first, or another run that uses the same scratch folder.
    """
    deadline = time.monotonic() + given.seconds
    given.out, given.inputs = given.out.resolve(), given.inputs.resolve()
    queue = ordered(given.first)
    packs, golden = inputs.find_packs(given.inputs, ["cifar10"]), inputs.golden_of(given.inputs)
    wheels = inputs.check_wheels(given.inputs)
    lacking = {job.name: inputs.lacking(job, packs, golden) for job in queue}
    states = {name: f"needs {missing}" for name, missing in lacking.items() if missing}
    if given.first in states:
        raise ValueError(f"--first={given.first} {states[given.first]} in {given.inputs}.")
    ready = [job for job in queue if job.name not in states]
    check_seconds(given, ready)
    given.out.mkdir(parents=True, exist_ok=True)
    scratch = given.work.resolve() if given.work else given.out.with_name(f"{given.out.name}.work")
    # What other sources have begun is not resumed.
    work = scratch / provenance.sources_digest()[:12]
    work.mkdir(parents=True, exist_ok=True)
    with hold(scratch):
        failed = run_queue(given, ready, work, wheels, deadline, states)
    print("\n" + table(given, queue, states), flush=True)
    return int(failed)


def run_queue(
    given: argparse.Namespace,
    queue: Sequence[jobs.Job],
    work: Path,
    wheels: list[str],
    deadline: float,
    states: dict[str, str],
) -> bool:
    """Runs jobs until nothing fits; fills `states`, by job and by `job/part`. Returns whether a part failed."""
    in_a_row, failed = 0, False
    while in_a_row < _MOST_FAILURES:
        left = deadline - time.monotonic()
        task = next_task(given, [job for job in queue if job.name not in states], left)
        if task is None:
            return failed
        job = task.job
        names = ", ".join(f"{part.name} ({expected(given, part):.0f} s)" for part in task.open)
        say(f"{job.name}: the next that is not done, {left:.0f} s left at {rate(given):.0f} TFLOP/s: {names}")
        status, reasons = work_on(given, task, work, wheels, left)
        states |= {f"{job.name}/{part}": f"failed: {reason[:100]}" for part, reason in reasons.items()}
        failed |= bool(reasons) or status not in (0, _STOPPED)
        further = done_parts(given, job) > task.done
        in_a_row = in_a_row + 1 if status not in (0, _STOPPED) and not further else 0
        if status == _STOPPED:
            states[job.name] = "stopped; the same command resumes it"
            return failed
        states[job.name] = f"failed with exit status {status}" if status and not reasons else "no time left"
        if not status and further:
            del states[job.name]  # another part of it may still fit
    say(f"{in_a_row} jobs in a row failed, so the others would too; nothing more is tried")
    for job in queue:
        states.setdefault(job.name, "not tried")
    return failed


def rate(given: argparse.Namespace) -> float:
    """TFLOP/s of a training step to plan with: given, measured by `speed` on this device, or the lower assumption."""
    if given.tflops:
        return given.tflops
    record = filing.records_in(given.out / "speed.zip").get("steps")
    filed = given.results / slug(provenance.nvidia("name") or "") / "speed" / "steps" / "part.json"
    if record is None and filed.is_file() and not given.dry:
        record = json.loads(filed.read_text())
    return (record or {}).get("summary", {}).get("at_bsl_tflops") or jobs.RATES[0]


def ordered(first: str) -> list[jobs.Job]:
    """The queue, with the job of that name in front."""
    queue = list(jobs.every())
    if first:
        front = jobs.get(first)
        queue = [front, *(job for job in queue if job is not front)]
    return queue


def done_parts(given: argparse.Namespace, job: jobs.Job) -> frozenset[str]:
    """Parts that the results at hand hold, and unless this is a dry run those that are filed."""
    here = filing.parts_in(given.out / f"{job.name}.zip", dry=given.dry)
    return here if given.dry or given.first == job.name else here | filing.filed_parts(given.results, job.name)


def tasks(given: argparse.Namespace, queue: Sequence[jobs.Job]) -> Iterator[Task]:
    """Each job that has an open part."""
    for job in queue:
        done = done_parts(given, job)
        left = tuple(part for part in job.parts if part.name not in done)
        if left:
            yield Task(job, left, done)


def next_task(given: argparse.Namespace, queue: Sequence[jobs.Job], left: float) -> Task | None:
    """The first job with a part that fits into the seconds left.

    Where none fits and unfinished trainings are welcome, the first training, of which the next run finds checkpoints.
    """
    unfinished = None
    for task in tasks(given, queue):
        fitting = tuple(part for part in task.open if fits(given, part, left))
        if fitting:
            return dataclasses.replace(task, open=fitting)
        if given.unfinished and unfinished is None and task.open[0].run and left >= _LEAST_TRAINING:
            unfinished = dataclasses.replace(task, open=task.open[:1])
    return unfinished


def fits(given: argparse.Namespace, part: jobs.Part, left: float) -> bool:
    """Whether a part is expected to end in time."""
    return expected(given, part) <= left


def expected(given: argparse.Namespace, part: jobs.Part) -> float:
    """Seconds that a part may take."""
    return _DRY_SECONDS if given.dry else part.seconds(rate(given))


def check_seconds(given: argparse.Namespace, queue: Sequence[jobs.Job]) -> None:
    """Refuses a time in which nothing that is open can be done.

    Raises:
      ValueError: names the shortest open part and what it needs.
    """
    task = next_task(given, queue, given.seconds)
    if task is not None and given.first in ("", task.job.name):
        return
    if task is not None and any(other.job.name == given.first for other in tasks(given, queue)):
        raise ValueError(f"--seconds={given.seconds:g} is too little for any open part of --first={given.first}.")
    if task is not None:
        return
    result = [
        (expected(given, part), f"{task.job.name}/{part.name}") for task in tasks(given, queue) for part in task.open
    ]
    if result:
        needed, name = min(result)
        raise ValueError(
            f"--seconds={given.seconds:g} is too little for any open part; the shortest, {name}, needs {needed:.0f}."
        )


def work_on(
    given: argparse.Namespace, task: Task, work: Path, wheels: list[str], seconds: float
) -> tuple[int, dict[str, str]]:
    """Runs one job's process until it ends or the time is up.

    Returns:
      Its exit status, and why parts failed, by part.
    """
    fitting = {part.name for part in task.open}
    command = [*COMMAND, task.job.name, f"--out={given.out}", f"--work={work}", f"--inputs={given.inputs}"]
    command += [f"--seconds={seconds:.0f}", f"--tflops={rate(given)}"]
    command += [f"--skip={part.name}" for part in task.job.parts if part.name not in fitting]
    command += ["--dry"] * given.dry + ["--weights"] * given.weights
    command += ["--unfinished"] * (not fits(given, task.open[0], seconds))
    log = work / f"{task.job.name}.log"
    with log.open("ab") as output:
        heard = log.stat().st_size
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(given, task.job, wheels),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
        ) as process:
            stopped, reasons = watch(process, task.job, log, heard, seconds)
    if stopped or process.returncode == _STOPPED:
        return _STOPPED, reasons
    if process.returncode and not reasons:
        say(f"{task.job.name} failed. The end of its log:\n" + "\n".join(f"  {line}" for line in end_of(log)))
    return process.returncode, reasons


def watch(
    process: subprocess.Popen, job: jobs.Job, log: Path, heard: int, seconds: float
) -> tuple[bool, dict[str, str]]:
    """Waits for the process and prints what it says of its parts.

    Where it says nothing for a while, the last line of its log is printed with the seconds left.

    Returns:
      Whether it had to be stopped, and why parts failed, by part.
    """
    end, printed, stopped, reasons = time.monotonic() + seconds, time.monotonic(), False, {}
    running = True
    while running:
        running = process.poll() is None
        content = log.read_bytes()[heard:]
        whole = content[: content.rfind(b"\n") + 1]
        heard += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith(f"{job.name}/"):
                say(line)
                printed = time.monotonic()
                part, _, reason = line.removeprefix(f"{job.name}/").partition(f": {FAILED}")
                reasons |= {part: reason} if reason else {}
        if running and time.monotonic() >= end:
            stop(process)
            stopped = True
        elif time.monotonic() - printed >= _HEARTBEAT:
            say(f"{job.name}: {end - time.monotonic():.0f} s left: {last_line(log)}")
            printed = time.monotonic()
        if running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(1.0, max(end - time.monotonic(), 0.0)))
    return stopped, reasons


def environment(given: argparse.Namespace, job: jobs.Job, wheels: list[str]) -> dict[str, str]:
    """The process's environment: wheels on the path, the commit where there is no history, what JAX may take."""
    result = dict(os.environ)
    result["PYTHONPATH"] = os.pathsep.join(filter(None, (*wheels, result.get("PYTHONPATH", ""))))
    result["PYTHONUNBUFFERED"] = "1"
    if given.commit:
        result["LTROBUST_COMMIT"] = given.commit
    if job.shares_device:
        result["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if given.dry:
        # PyTorch would compile for longer than everything else takes.
        result |= {"JAX_PLATFORMS": "cpu", "TORCH_COMPILE_DISABLE": "1"}
    return result


def stop(process: subprocess.Popen) -> None:
    """Asks a process to save and stop, and ends it if it does not."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_of(log: Path, lines: int = 30) -> list[str]:
    """The last lines of a log; of a progress bar its last state."""
    result = [line.rpartition("\r")[2] for line in log.read_text(errors="replace").splitlines()]
    return [line for line in result if line.strip()][-lines:]


def last_line(log: Path) -> str:
    """The last line of a log, or that there is none."""
    return (end_of(log, 1) or ["starting"])[0][:160]


def table(given: argparse.Namespace, queue: Sequence[jobs.Job], states: dict[str, str]) -> str:
    """One row for each part: its state, seconds expected, and seconds spent by what they were spent on."""
    spans = ("total", "compiling", "training", "evaluating", "measuring", "idle")
    rows = [["part", "state", "expected", *spans]]
    for job in queue:
        records = filing.records_in(given.out / f"{job.name}.zip")
        filed = frozenset() if given.dry else filing.filed_parts(given.results, job.name)
        for each in job.parts:
            state, seconds = states.get(f"{job.name}/{each.name}", states.get(job.name, "no time left")), {}
            if each.name in filed:
                state = "filed"
            if record := records.get(each.name):
                state, seconds = "done, resumed" if record.get("resumed") else "done", record["seconds"]
            shown = [f"{seconds[name]:.0f}" if name in seconds else "" for name in spans]
            rows.append([f"{job.name}/{each.name}", state, f"{expected(given, each):.0f}", *shown])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def say(text: str) -> None:
    """A line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
