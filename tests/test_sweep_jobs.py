"""Cells of a sweep as jobs: what is submitted when, what is printed, and how a job is requeued."""

import collections
import os
import pathlib
import re
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest
from submitit.helpers import DelayedSubmission

from ltrobust.commands import sweep_cell, sweep_jobs, sweep_local, sweep_slurm
from ltrobust.commands.sweep_file import Cell, Sweep
from ltrobust.commands.sweep_job import CellJob, alone, note, noted
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import EXIT_STATUS, Preempted

FILE = pathlib.Path("sweep.py")
SLURM = {"time": 240, "partition": "gpu", "gpus_per_node": 2}


class Job:
    """A job that does one step of its script each time that somebody asks whether it has ended."""

    def __init__(self, number, task, script):
        self.job_id, self.task, self.script = number, task, collections.deque(script)
        self.paths = task and task.events.parent / "paths"

    def done(self):
        if len(self.script) > 1:
            step = self.script.popleft()
            step() if callable(step) else note(self.task.events, step)
            return False
        return True

    def exception(self):
        return None

    def result(self):
        return self.script[0]


class Executor:
    """Takes arrays of jobs; their scripts by the names of cells, `finished` at once without one."""

    def __init__(self, **scripts):
        self.scripts, self.arrays, self.jobs = scripts, [], []

    def submit_array(self, tasks):
        number = len(self.arrays) + 7
        self.arrays.append([task.cell.name for task in tasks])
        jobs = [
            Job(f"{number}_{place}", task, self.scripts.get(task.cell.name, ["finished"]))
            for place, task in enumerate(tasks)
        ]
        self.jobs += jobs
        return jobs


def sweep_of(*names, **changes):
    return Sweep("configs/digits.py", "validation", tuple(Cell(name, {}, changes.get(name, {})) for name in names))


def go(executor, sweep, out, slots=None, find=lambda number: None):
    return sweep_jobs.run(sweep, out, (), launcher_of(executor, slots, find))


def launcher_of(executor, slots=None, find=lambda number: None, lives=lambda number: False):
    return sweep_jobs.Launcher("slurm", executor, slots, find, "squeue --jobs=", "scancel", 0.0, lives)


def test_cells_are_one_array_and_a_failed_one_is_named_with_its_log(tmp_path, capsys):
    (tmp_path / "b.log").write_text("no luck\n")
    executor = Executor(b=["running on n1", "failed"], c=["running on n2", "requeued", "running on n3", "finished"])
    states = go(executor, sweep_of("a", "b", "c"), tmp_path)
    assert executor.arrays == [["a", "b", "c"]]
    assert states == {"a": "finished", "b": "failed", "c": "finished"}
    printed = capsys.readouterr().out
    assert f"[2/3] b: failed, log {tmp_path / 'b.log'}:\n  no luck\n" in printed
    lines = [line.removeprefix("[3/3] c: ") for line in printed.splitlines() if line.startswith("[3/3] c")]
    assert lines == [
        "submitted to slurm as job 7_2", "running on n2", "requeued", "running on n3", "finished"
    ]  # fmt: skip


def test_at_most_as_many_jobs_as_slots_run_at_a_time(tmp_path):
    executor = Executor(a=["running", "running", "running", "finished"])
    states = go(executor, sweep_of("a", "b", "c"), tmp_path, ("3", "5"))
    assert executor.arrays == [["a", "b"], ["c"]]
    assert [job.task.environment["CUDA_VISIBLE_DEVICES"] for job in executor.jobs] == ["3", "5", "5"]
    assert set(states.values()) == {"finished"}


def test_a_cell_waits_for_the_earlier_one_whose_folder_it_names(tmp_path):
    teacher = {"teachers.teacher.path": f"{tmp_path}/b/checkpoints/teacher", "data.dir": f"{tmp_path}/bc/x"}
    executor = Executor(b=["running", "failed"])
    go(executor, sweep_of("a", "b", "c", "bc", a=teacher, c=teacher), tmp_path)
    assert executor.arrays == [["a", "b", "bc"], ["c"]], "a comes before b, and so does not wait for it"


def test_cells_in_other_hands_are_left_alone_and_named(tmp_path, capsys):
    executor = Executor(c=["running"])
    (tmp_path / "a").mkdir()
    with hold(tmp_path / "a"):
        states = go(executor, sweep_of("a", "b", "c", b={"student.initialize": f"{tmp_path}/a"}), tmp_path)
    assert states == {"a": "running", "b": "waiting", "c": "running"}
    assert executor.arrays == [["c"]]
    printed = capsys.readouterr().out
    assert "[1/3] a: another process is at it" in printed
    assert "[2/3] b: waits for a; give the same command again later" in printed
    assert "[3/3] c: another process is at it" in printed


def test_finished_cells_are_not_submitted_and_others_of_that_name_have_failed(tmp_path, monkeypatch, capsys):
    def finished(sweep, cell, out):
        if cell.name == "b":
            raise ValueError("holds a finished run of another configuration")
        return out if cell.name == "a" else None

    monkeypatch.setattr(sweep_cell, "finished", finished)
    executor = Executor()
    states = go(executor, sweep_of("a", "b", "c"), tmp_path)
    assert (states, executor.arrays) == ({"a": "finished", "b": "failed", "c": "finished"}, [["c"]])
    assert "[2/3] b: holds a finished run" in capsys.readouterr().out


def test_jobs_go_on_when_the_command_is_stopped_and_are_found_again(tmp_path, capsys):
    def stop():
        os.kill(os.getpid(), signal.SIGTERM)

    executor = Executor(a=["running on n1", stop, "running", "finished"])
    message = r"stopped by SIGTERM; its jobs go on \(see them: squeue --jobs=7_0; stop them: scancel 7_0\)"
    with pytest.raises(Preempted, match=message):
        go(executor, sweep_of("a"), tmp_path)
    capsys.readouterr()

    again = Executor()
    states = go(again, sweep_of("a", "b"), tmp_path, find={"7_0": executor.jobs[0]}.get)
    assert (states, again.arrays) == ({"a": "finished", "b": "finished"}, [["b"]])
    printed = capsys.readouterr().out
    assert "[1/2] a: submitted before as job 7_0" in printed
    assert "running on n1" not in printed, "events are printed once"


def test_a_second_sweep_leaves_the_jobs_of_the_first_alone(tmp_path, capsys):
    """It starts while the first holds one slot, looks again before each job, and trains no failed cell again."""
    sweep, alive, second, state = sweep_of("a", "b", "c"), {"7_0"}, Executor(), {}

    def start():
        other = launcher_of(second, (None,), lives=alive.__contains__)
        state["jobs"] = sweep_jobs.Jobs(sweep, tmp_path, (), other)

    first = Executor(a=["running", start, alive.clear, "failed"], b=["failed"], c=["failed"])
    go(first, sweep, tmp_path, (None,))
    while state["jobs"].advance():
        pass
    assert state["jobs"].end() == {"a": "running", "b": "failed", "c": "failed"}
    assert (first.arrays, second.arrays) == ([["a"], ["b"], ["c"]], [])
    printed = capsys.readouterr().out
    assert "[1/3] a: job 7_0 is at it; it is left alone" in printed
    assert f"[2/3] b: job 8_0 of another sweep has failed, log {tmp_path / 'b.log'}" in printed


@pytest.mark.parametrize(
    ("slots", "ends", "free_after", "slot"),
    [
        ([None], ["7_0", "7_1"], "7_1", None),  # two jobs run, one may
        ([None] * 2, ["7_0"], "7_0", None),
        ([None] * 3, [], None, None),
        (["0"], ["7_1", "7_0"], "7_0", "0"),
        (["0", "1"], ["7_1"], "7_1", "1"),
        (["2", "3"], [], None, "2"),  # other GPUs
        (["5", "0", "1"], [], None, "5"),
        (["0", "0"], [], None, "0"),  # two jobs a GPU, of which one runs
    ],
)
def test_slots_are_those_of_the_folder_whichever_command_uses_them(
    tmp_path, monkeypatch, capsys, slots, ends, free_after, slot
):
    """As after Ctrl-C and the same command again, or beside another one: jobs of two other cells run."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "left alone")
    used, alive, executor = [None, None] if None in slots else ["0", "1"], {"7_0", "7_1"}, Executor()
    with pytest.raises(Preempted):
        go(Executor(a=[lambda: os.kill(os.getpid(), signal.SIGTERM), ""]), sweep_of("a", "b"), tmp_path, tuple(used))
    again = launcher_of(executor, tuple(slots), lives=alive.__contains__)
    jobs = sweep_jobs.Jobs(sweep_of("c"), tmp_path, (), again)
    capsys.readouterr()
    for ended in (None, *ends):
        alive.discard(ended)
        more = jobs.advance()
        if ended == free_after:
            break
        assert (executor.arrays, more) == ([], True), "it waits for a slot"
    assert executor.arrays == [["c"]]
    assert executor.jobs[0].task.environment == {"CUDA_VISIBLE_DEVICES": "left alone" if slot is None else slot}
    told = "All slots are used by jobs of other commands (squeue --jobs=7_0,7_1); waits."
    assert capsys.readouterr().out.count(told) == (free_after is not None), "once"


def test_a_number_that_came_back_is_one_job(tmp_path):
    """An ended job of cell b had the number that cell a's job has now."""
    (tmp_path / ".jobs").mkdir()
    for age, (name, slot) in enumerate({"a": "1", "b": "0"}.items()):
        events = tmp_path / ".jobs" / f"{name}.events"
        note(events, f"submitted to slurm as job 7_0 on GPU {slot}")
        os.utime(events, (1e9 - age, 1e9 - age))
    executor = Executor()
    jobs = sweep_jobs.Jobs(sweep_of("c"), tmp_path, (), launcher_of(executor, ("0", "1"), lives={"7_0"}.__contains__))
    jobs.advance()
    assert executor.jobs[0].task.environment == {"CUDA_VISIBLE_DEVICES": "0"}


def test_sweeps_wait_for_each_other_before_they_submit(tmp_path):
    executor, held, seen = Executor(), threading.Event(), []
    jobs = sweep_jobs.Jobs(sweep_of("a"), tmp_path, (), launcher_of(executor))

    def other():
        with alone(tmp_path / ".jobs"):
            held.set()
            time.sleep(0.1)
            seen.extend(executor.arrays)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    jobs.advance()
    thread.join()
    assert (seen, executor.arrays) == ([], [["a"]])


def test_a_local_job_lives_as_long_as_its_process(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    own, other = ["submitit.local._local", str(tmp_path / "link")], ["submitit.local._local", str(tmp_path / "other")]
    for words in ([], other, own):  # another program, or a job of another folder, may have got its number
        with subprocess.Popen([sys.executable, "-S", "-c", "input()", *words], stdin=subprocess.PIPE) as process:
            assert sweep_local.lives(str(process.pid), tmp_path) == (words is own)
    assert not sweep_local.lives(str(process.pid), tmp_path)


def test_a_job_that_ends_without_a_result_has_failed(tmp_path, capsys):
    executor = Executor()
    log = tmp_path / "job.err"
    log.write_text("killed\n")

    class Ended(Job):
        def exception(self):
            self.paths = type("Paths", (), {"stderr": log})
            return RuntimeError("no output")

    executor.submit_array = lambda tasks: [Ended("1", tasks[0], ["finished"])]
    assert go(executor, sweep_of("a"), tmp_path) == {"a": "failed"}
    assert f"a: failed, log {log}:\n  killed\n" in capsys.readouterr().out


# What a job does.


def job_of(tmp_path, monkeypatch, program):
    """A job whose run is a program, and what a signal to requeue raises in place of submitit."""
    monkeypatch.setattr(sweep_cell, "PROGRAM", (sys.executable, "-S", "-c", program))

    def requeue(number, frame):
        assert isinstance(job.checkpoint(), DelayedSubmission)
        sys.exit(144)

    signal.signal(signal.SIGUSR2, requeue)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sweep = sweep_of("a")
    job = CellJob(sweep, sweep.cells[0], tmp_path / "a", (), tmp_path / "a.events", {"TWO": "2", "GONE": None})
    return job


@pytest.fixture
def handlers():
    before = [(number, signal.getsignal(number)) for number in (signal.SIGUSR2, signal.SIGTERM)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


ASKED = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(STATUS))
while True:
    os.kill(os.getppid(), signal.SIGNAL)
    time.sleep(0.05)
"""


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("program", "status", "last"),
    [
        ("import sys; sys.exit(75)", 144, "requeued"),
        (ASKED.replace("STATUS", "75").replace("SIGNAL", "SIGUSR2"), 144, "requeued"),
        (ASKED.replace("STATUS", "-15").replace("SIGNAL", "SIGUSR2"), 144, "requeued"),
        (ASKED.replace("STATUS", "75").replace("SIGNAL", "SIGTERM"), EXIT_STATUS, "stopped"),
    ],
    ids=["run asked", "job asked", "run died of it", "job ended"],
)
def test_a_job_that_is_asked_to_stop_waits_for_its_run_and_is_requeued(tmp_path, monkeypatch, program, status, last):
    job = job_of(tmp_path, monkeypatch, program)
    with pytest.raises(SystemExit) as ended:
        job()
    assert ended.value.code == status
    events = noted(tmp_path / "a.events")
    assert events[0].startswith("running on ")
    assert events[1:] == [last]


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, f"signal {signal.SIGRTMIN + 1}")]
)
def test_the_log_of_a_run_that_is_killed_says_so(tmp_path, monkeypatch, number, name):
    monkeypatch.setenv("TWO", "1")
    assert job_of(tmp_path, monkeypatch, f"import os; os.kill(os.getpid(), {number})")() == "failed"
    assert (tmp_path / "a.log").read_text() == f"a: ended by {name}\n"


@pytest.mark.usefixtures("handlers")
def test_a_run_that_fails_is_not_requeued_and_has_the_environment_of_its_job(tmp_path, monkeypatch):
    monkeypatch.setenv("GONE", "1")
    monkeypatch.setenv("TWO", "1")
    program = 'import os, sys; sys.exit(f\'TWO {os.environ.get("TWO")} GONE {os.environ.get("GONE")}\')'
    assert job_of(tmp_path, monkeypatch, program)() == "failed"
    assert (tmp_path / "a.log").read_text() == "TWO 2 GONE None\n"


# Launchers.


def test_local_jobs_have_the_numbers_of_cuda_where_it_lists_none(monkeypatch):
    """Where a container has one GPU of several, its file keeps its number, and CUDA calls it 0."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pathlib.Path, "glob", lambda path, pattern: [path / "nvidia3", path / "nvidia7"])
    assert sweep_local.slots(3) == ("0", "1", "0")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2,5", ["2", "5"]),
        ("0", ["0"]),
        ("0, 1,-1,2", ["0", "1"]),
        ("GPU-8932f937,MIG-1/2", ["GPU-8932f937", "MIG-1/2"]),
        *((none, [None] * 4) for none in ("", "-1", "-1,0", "NoDevFiles")),
    ],
)
def test_local_jobs_have_a_gpu_each_or_two_cores(monkeypatch, given, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(sweep_local.cores, "usable", lambda: 8)
    assert list(sweep_local.slots(None)) == expected
    assert len(sweep_local.slots(3)) == 3
    assert sweep_local.environment(None) == {"CUDA_VISIBLE_DEVICES": given}
    assert sweep_local.environment("2") == {"CUDA_VISIBLE_DEVICES": "2"}


def fake_slurm(folder, monkeypatch):
    """Commands of Slurm that take every job and know nothing of it."""
    folder.mkdir()
    for name, text in {"sbatch": "echo Submitted batch job 123", "srun": "", "sacct": ""}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_sbatch_is_given(tmp_path, monkeypatch):
    fake_slurm(tmp_path / "bin", monkeypatch)
    options = sweep_slurm.read(
        FILE,
        SLURM
        | {"array_parallelism": 2, "cpus_per_task": 8, "mem": "32GB", "setup": ["module load cuda"]}
        | {"sbatch": {"account": "lab", "mail-type": "END", "exclusive": True}},
    )
    launcher = sweep_jobs.make("slurm", tmp_path / "out", options, None)
    sweep = sweep_of("a", "b", "c")
    tasks = [CellJob(sweep, cell, tmp_path / cell.name, (), tmp_path / "events", {}) for cell in sweep.cells]
    jobs = launcher.executor.submit_array(tasks)
    assert [job.job_id for job in jobs] == ["123_0", "123_1", "123_2"]
    assert [DelayedSubmission.load(job.paths.submitted_pickle).function for job in jobs] == tasks
    text = (tmp_path / "out" / ".jobs" / "123_submission.sh").read_text()
    options = set(re.findall(r"^#SBATCH --(\S+)", text, re.MULTILINE))
    assert {option for option in options if not option.startswith(("output", "error"))} == {
        "array=0-2%2",
        "account=lab",
        "cpus-per-task=8",
        "exclusive",
        "gpus-per-node=2",
        "job-name=ltrobust",
        "mail-type=END",
        "mem=32GB",
        "nodes=1",
        "open-mode=append",
        "partition=gpu",
        "requeue",
        "signal=USR2@90",
        "time=240",
    }
    assert "\nmodule load cuda\n" in text
    assert re.search(r"^srun .*-m submitit\.core\._submit", text, re.MULTILINE)
    assert launcher.find("123_0") is None, "unknown to sacct"


def test_jobs_that_slurm_refuses_are_an_error(tmp_path, monkeypatch):
    fake_slurm(tmp_path / "bin", monkeypatch)
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho invalid partition specified: gpu >&2\nexit 1\n")
    launcher = sweep_jobs.make("slurm", tmp_path / "out", sweep_slurm.read(FILE, SLURM), None)
    with pytest.raises(ValueError, match=r"the jobs cannot be submitted: .*invalid partition specified: gpu"):
        sweep_jobs.run(sweep_of("a", "b"), tmp_path / "out", (), launcher)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["gpu"], r"has SLURM \['gpu'\]; give a dict such as"),
        ({"tme": 3}, r"has 'tme' in SLURM; did you mean time\? keys: time, partition, .*, sbatch, which takes"),
        ({}, r"lacks time in SLURM; give the minutes"),
        ({"time": "4h"}, r"has '4h' for time in SLURM; give minutes, a whole number of at least 1"),
        ({"time": 0}, r"has 0 for time in SLURM"),
        ({"time": True}, r"has True for time in SLURM"),
        ({"time": 3, "partition": "a\nb"}, r"has 'a\\nb' for partition in SLURM; give a name"),
        ({"time": 3, "gpus_per_node": -1}, r"has -1 for gpus_per_node in SLURM; give a whole number"),
        ({"time": 3, "array_parallelism": 0}, r"has 0 for array_parallelism in SLURM"),
        ({"time": 3, "setup": "module load"}, r"has 'module load' for setup in SLURM; give a tuple of lines"),
        ({"time": 3, "sbatch": {"x": False}}, r"has {'x': False} for sbatch in SLURM; give a dict of names"),
        ({"time": 3, "sbatch": {"array": "0-9"}}, r"has 'array' for sbatch in SLURM; the launcher or another key"),
        *(
            ({"time": 3, "sbatch": {key: "x"}}, rf"has '{key}' for sbatch in SLURM; the launcher or another key")
            for key in ("Time", "job_name", "Job-Name", "wckey")
        ),
        ({"time": 3, "sbatch": {"gpus-per-node": 1}}, r"has 'gpus-per-node' for sbatch in SLURM; .*leave it out"),
    ],
)
def test_mistakes_in_slurm_options_name_key_and_what_is_allowed(given, message):
    with pytest.raises(ValueError, match=rf"^sweep sweep\.py {message}"):
        sweep_slurm.read(FILE, given)


@pytest.mark.parametrize(
    ("name", "jobs", "message"),
    [
        ("slrm", None, r"--launcher=slrm is unknown; did you mean slurm\? give one of local, slurm"),
        ("slurm", None, r"needs the commands sbatch and srun"),
        ("slurm", 3, r"^--jobs needs --launcher=local; for Slurm, give array_parallelism"),
        (None, 3, r"^--jobs needs --launcher=local\.$"),
        ("local", 0, r"^--jobs=0 is not allowed; give 1 to 1000"),
    ],
)
def test_launchers_that_cannot_be(tmp_path, monkeypatch, name, jobs, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=message):
        sweep_jobs.make(name, tmp_path, sweep_slurm.read(FILE, SLURM), jobs)
    assert not list(tmp_path.iterdir())


def test_slurm_needs_its_options_and_submitit(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"--launcher=slurm needs SLURM in the sweep's file; add SLURM = {\"time\""):
        sweep_jobs.make("slurm", tmp_path, None, None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(
        ValueError, match=r"submitit is not installed; run: pip install -c constraints\.txt -e '\.\[slurm\]'"
    ):
        sweep_jobs.make("local", tmp_path, None, None)
