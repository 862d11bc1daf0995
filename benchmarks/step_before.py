"""A training step of this checkout and of another one, in turn: whether a change made the step slower.

    python benchmarks/step_before.py --before=CHECKOUT [--network=small_resnet] [--method=at_bsl] [--batch=128]
        [--policies=base,randaugment] [--devices=1] [--steps=10]

Each checkout has one process, which compiles its step and then waits; they take turns, so that only one computes. CPU
seconds are those of all threads: they depend less on what else the machine does than seconds do.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from typing import Any

import measure

PROCESS = """
import json, resource, sys, time
root, settings = sys.argv[1], json.loads(sys.argv[2])
sys.path[:0] = [root, root + "/benchmarks"]
import jax

jax.config.update("jax_num_cpu_devices", settings["devices"])
import training
from ltrobust.training import devices

config = training.configuration(settings["network"], settings["method"], settings["batch"], **settings["changes"])
subject = training.prepare(config, devices.make_mesh(jax.devices()), steps_at_once=settings["steps"])
program = subject.lower().compile()

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

for line in sys.stdin:
    began, before = time.perf_counter(), cpu()
    jax.block_until_ready(subject.run(program, settings["steps"]))
    spent = [time.perf_counter() - began, cpu() - before]
    print("FOUND" + json.dumps([one / settings["steps"] for one in spent]), flush=True)
"""


def main() -> None:
    """Times a step with each augmentation, and prints one row for each."""
    given = flags().parse_args()
    path = measure.begin(given, "step_before")
    commit = subprocess.run(
        ["git", "-C", str(given.before), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    rows = [compare(given, policy) for policy in given.policies.split(",")]
    measure.finish(path, given, rows, before=commit)


def flags() -> argparse.ArgumentParser:
    """The flags of this script."""
    parser = measure.parser(__doc__)
    parser.add_argument("--before", type=pathlib.Path, required=True, help="another checkout of this project")
    parser.add_argument("--network", default="small_resnet")
    parser.add_argument("--method", default="at_bsl")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--attack_steps", type=int, default=10)
    parser.add_argument("--policies", default="base", help="augmentations, by commas; all but base need colours")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices that the batch is divided over")
    parser.add_argument("--steps", type=int, default=10, help="steps in one timed dispatch")
    return parser


def compare(given: argparse.Namespace, policy: str) -> dict[str, Any]:
    """Seconds of a step of both checkouts, and how many times ours the other's takes in the same round."""
    changes = {"student__augmentation__policy": policy, "student__attack__steps": given.attack_steps}
    names = ("network", "method", "batch", "steps", "devices")
    settings = json.dumps({name: getattr(given, name) for name in names} | {"changes": changes})
    roots = {"now": measure.ROOT, "before": given.before.resolve()}
    processes = {name: _start(root, settings) for name, root in roots.items()}
    times: dict[str, list[list[float]]] = {name: [] for name in roots}
    # The first round warms up, and does not count.
    for repeat in range(given.repeats + 1):
        for name in list(roots)[:: 1 if repeat % 2 else -1]:
            spent = _ask(processes[name])
            if repeat:
                times[name].append(spent)
    for process in processes.values():
        process.communicate()
    row: dict[str, Any] = {"network": given.network, "augmentation": policy, "devices": given.devices}
    for position, unit in enumerate(("seconds", "cpu_seconds")):
        now, before = ([one[position] for one in times[name]] for name in ("now", "before"))
        row[f"{unit}_a_step"] = measure.spread(now)
        row[f"{unit} before over these"] = measure.spread([b / a for a, b in zip(now, before, strict=True)])
    return row


def _start(root: pathlib.Path, settings: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(root), settings]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


def _ask(process: subprocess.Popen[str]) -> list[float]:
    """Lets a process make its steps; seconds and CPU seconds of one."""
    assert process.stdin is not None
    assert process.stdout is not None
    print("go", file=process.stdin, flush=True)
    for line in process.stdout:
        if line.startswith("FOUND"):
            return json.loads(line.removeprefix("FOUND"))
    sys.exit(f"a process ended with {process.wait()}.")


if __name__ == "__main__":
    main()
