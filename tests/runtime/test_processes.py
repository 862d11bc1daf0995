"""Two processes on this machine, with sockets between them, end as one process with as many devices; or both end."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import jax
import numpy as np
import pytest

from ltrobust.runtime import processes
from ltrobust.runtime.files import hold
from ltrobust.runtime.preemption import EXIT_STATUS
from ltrobust.training import compatibility, devices

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 30
# Both phases, without the methods that are slow to compile.
SETTINGS = {
    "data.imbalance_ratio": 4.0,
    "model.name": "own:Normed",  # with BatchNorm, and soon traced
    "teacher.epochs": 2,
    "teacher.attack.steps": 1,
    "student.epochs": 2,
    "student.attack.steps": 1,
    "student.method": "at_bsl",
    "student.initialize": "teacher",
    "eval.protocol": "validation",
    "eval.limit": 2,
    "eval.also": (),
}


def free_port() -> int:
    """A port that nobody listens on; a skip where even this machine's own network is closed."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
            return server.getsockname()[1]
    except OSError as error:
        pytest.skip(f"needs sockets on 127.0.0.1: {error}")


class Run:
    """The processes of one run, two devices in all; their output in files beside the workdir."""

    alive: ClassVar[list[subprocess.Popen]] = []

    def __init__(self, workdir: pathlib.Path, number: int, changes: Mapping[int, list[str]] = MappingProxyType({})):
        self.logs, self.processes, port = [], [], free_port()
        for process in range(number):
            command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={workdir}"]
            command += [f"--config.{key}={value}" for key, value in SETTINGS.items()]
            if number > 1:
                command += [f"--coordinator=127.0.0.1:{port}", f"--num_processes={number}", f"--process_id={process}"]
                command += [f"--patience={PATIENCE}"]
            command += changes.get(process, [])
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(2 // number)}
            environment["PYTHONPATH"] = str(ROOT / "tests")
            self.logs.append(workdir.with_name(f"{workdir.name}.{time.monotonic_ns()}.log"))
            with self.logs[-1].open("w") as log:
                self.processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        self.alive += self.processes

    def wait_for(self, path: pathlib.Path) -> None:
        """Until a file is there."""
        deadline = time.monotonic() + 300
        while not path.exists():
            assert all(process.poll() is None for process in self.processes), self.text()
            assert time.monotonic() < deadline, f"{path} did not appear\n{self.text()}"
            time.sleep(0.02)

    def end(self, seconds: float = 400) -> list[int]:
        """Exit statuses; a process that lasts longer fails the test."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0, deadline - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f"not over after {seconds} s\n{self.text()}")

    def text(self) -> str:
        return "\n".join(log.read_text() for log in self.logs)

    def finish(self) -> None:
        assert self.end() == [0] * len(self.processes), self.text()


@pytest.fixture(autouse=True, scope="module")
def none_is_left_behind():
    yield
    for process in Run.alive:
        process.kill()
        process.wait()


def outcome(workdir: pathlib.Path) -> dict:
    """The only card's networks and their hashes, and the only records, without what a clock says."""
    assert [path.name for path in (workdir / "results").iterdir()] == ["validation.json"]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    stores = (workdir / "verdicts").glob("*/verdicts.jsonl")
    card = json.loads((workdir / "results" / "validation.json").read_text())
    # The digest of the verdicts' file also depends on the order in which they came.
    networks = {name: {**network, "verdicts": None} for name, network in card["networks"].items()}
    return {
        "networks": networks,
        "records": [{**line, "seconds": None} for line in lines],
        "verdicts": {path.parent.name: sorted(path.read_text().splitlines()) for path in stores},
    }


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The workdir of a run of two processes that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    Run(workdir, 2).finish()
    return workdir


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes_write_once(together):
    card = json.loads((together / "results" / "validation.json").read_text())
    assert (card["numerics"]["processes"], card["numerics"]["devices"]) == (2, 2)
    assert len(outcome(together)["records"]) == SETTINGS["teacher.epochs"] + SETTINGS["student.epochs"]


@pytest.mark.slow
@pytest.mark.ci
def test_two_processes_that_send_their_shares_of_the_images_end_as_those_that_hold_all(together, tmp_path):
    flags = ["--config.data.residence=host"]
    Run(tmp_path / "run", 2, {0: flags, 1: flags}).finish()
    assert outcome(tmp_path / "run") == outcome(together)


@pytest.mark.slow
@pytest.mark.ci
def test_stopped_with_one_process_then_with_two_and_ended_with_one_it_has_the_bits_of_two(together, tmp_path):
    workdir = tmp_path / "run"
    for number, mark in ((1, "metrics.jsonl"), (2, "checkpoints/student")):
        run = Run(workdir, number)
        run.wait_for(workdir / mark)
        run.processes[-1].send_signal(signal.SIGTERM)
        assert run.end(120) == [EXIT_STATUS] * number, run.text()
        reported = "stopped by SIGTERM in process 1: student saved at step" if number == 2 else "stopped by SIGTERM"
        assert run.text().count(reported) == number
    Run(workdir, 1).finish()
    assert outcome(workdir) == outcome(together)


@pytest.mark.slow
@pytest.mark.ci
def test_a_process_that_dies_ends_the_other_in_bounded_time(tmp_path):
    run = Run(tmp_path / "run", 2)
    run.wait_for(tmp_path / "run" / "checkpoints" / "teacher")
    began = time.monotonic()
    run.processes[1].kill()
    statuses = run.end(3 * PATIENCE)
    assert statuses[0] not in (0, EXIT_STATUS), run.text()
    assert statuses[1] == -signal.SIGKILL
    assert time.monotonic() - began < 2 * PATIENCE
    text = run.logs[0].read_text()
    assert "process 0 of 2" in text or "another task died" in text


@pytest.mark.slow
@pytest.mark.ci
def test_a_mistake_in_one_process_is_told_by_all(tmp_path):
    with hold(tmp_path):
        run = Run(tmp_path, 2)
        assert run.end(120) == [1, 1], run.text()
    assert all(
        f"process 0 of 2: {tmp_path} is being written to by another process" in log.read_text() for log in run.logs
    )


def test_processes_that_start_from_other_things_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(processes, "gather", lambda value: [value, value, {**value, "test set": "ab"}])
    with pytest.raises(ValueError, match="process 2 of 3 has another test set than process 0: ab instead of cd; copy"):
        processes.check_same({"software": "1", "test set": "cd"}, "copy it.")


def test_the_key_that_differs_between_processes_is_named(monkeypatch):
    from configs import digits

    config = digits.get_config()
    config.data.dir = "/elsewhere"  # may differ
    other = config.copy_and_resolve_references()
    other.student.epochs, other.data.dir = 7, "/somewhere"
    with other.student.optimizer.options.unlocked():
        other.student.optimizer.options.b1 = 0.9
    asked = []
    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes, "gather", lambda value: asked.append(value) or [value, value])
    run_data = types.SimpleNamespace(fingerprints={"pixels": "0"})
    compatibility.same_start(config.to_dict(), run_data)
    compatibility.same_start(other.to_dict(), run_data)
    mine, _, theirs, _ = asked
    monkeypatch.setattr(processes, "gather", lambda value: [mine, theirs])
    with pytest.raises(ValueError, match=r"value of student\.epochs than process 0: 7 instead of \d+; start all"):
        compatibility.same_start(config.to_dict(), run_data)
    theirs["value of student.epochs"] = mine["value of student.epochs"]
    with pytest.raises(ValueError, match=r"options\.b1 than process 0: 0\.9 instead of nothing; start all"):
        compatibility.same_start(config.to_dict(), run_data)


def test_a_coordinators_port_that_is_in_use_is_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=rf"process 0 cannot listen on port {port} \(Address already in use\)"):
            processes.start(f"127.0.0.1:{port}", 2, 0)


@pytest.mark.slow
@pytest.mark.ci
def test_a_coordinator_that_does_not_answer_ends_the_process_in_time():
    began = time.monotonic()
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from ltrobust.runtime import processes; processes.start('127.0.0.1:{free_port()}', 2, 1, 2)",
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "did not meet at 127.0.0.1" in result.stderr
    assert "within 2 s" in result.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("10.0.0.2:8476",), "coordinator is 10.0.0.2:8476, but --num_processes and --process_id is missing"),
        (("10.0.0.2:8476", 2), "--process_id is missing.*one process none"),
        (("", 2, 0), "--num_processes is 2 and --process_id is 0, but --coordinator is missing"),
        (("", None, 1), "--process_id is 1, but --coordinator and --num_processes is missing"),
        (("10.0.0.2:8476", 2, 2), "--process_id is 2; 2 processes have the numbers 0 to 1"),
        (("10.0.0.2:8476", 2, -1), "--process_id is -1"),
        (("10.0.0.2:8476", 0, 0), "--num_processes is 0; give the number of processes of the run, at least 1"),
        (("10.0.0.2", 2, 1), "'10.0.0.2'; give HOST:PORT"),
        (("10.0.0.2:84760", 2, 1), "'10.0.0.2:84760'; give HOST:PORT"),
        (("auto", 2), "--coordinator=auto finds out --num_processes itself"),
        (("", None, None, 0), "--patience is 0"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        processes.start(*arguments)


def test_the_coordinator_may_come_from_jaxs_environment_variable(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.2:8476")
    with pytest.raises(ValueError, match=r"variable JAX_COORDINATOR_ADDRESS is 10.0.0.2:8476, but --num_processes"):
        processes.start()


def test_one_process_is_not_joined_to_anything(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: pytest.fail("joined"))
    processes.start()
    processes.start("10.0.0.2:8476", 1, 0)
    assert not processes.several()
    assert processes.first()


def test_a_tpu_is_joined_to_its_slice_and_a_tpu_without_a_slice_is_one_process(monkeypatch):
    calls = []

    def initialize(**arguments):
        calls.append(arguments)
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    before = {name: getattr(jax.config, name) for name in ("jax_platforms", "jax_enable_preemption_service")}
    jax.config.update("jax_platforms", "tpu,cpu")
    try:
        processes.start(patience=7)
        assert calls[0]["heartbeat_timeout_seconds"] == 7
        assert "coordinator_address" not in calls[0]
        with pytest.raises(ValueError, match="should be defined"):
            processes.start("auto")
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_with_one_process_values_pass_unchanged():
    value = {"a": np.arange(3)}
    assert processes.share(value) is value
    assert processes.gather(value) == [value]
    with pytest.raises(OSError, match="disk"), processes.all_or_none():
        raise OSError("disk")
    placed = processes.put(value, devices.sharding(devices.make_mesh(jax.devices()), devices.REPLICATED))
    np.testing.assert_array_equal(processes.fetch(placed)["a"], value["a"])
