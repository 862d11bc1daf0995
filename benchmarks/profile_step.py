"""Where the time of a training step goes: every operation of the compiled program, summed by kind.

    python benchmarks/profile_step.py [--network=resnet18] [--method=at_bsl] [--batch=32] [--top=25]

One step is traced by JAX's profiler. Operations are named by layer and by the last operation that a
fusion contains, and by where it stands: in the attack or in the update, forward or backward. Seconds are those of an
operation itself, over all threads: on one thread (--threads=1) they add up to the step's, but for what is between them.
"""

import collections
import re
import tempfile
from pathlib import Path
from typing import Any

import jax
import measure
import training

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = [^\n]*?(?:metadata=\{op_name=\"([^\"]*)\"|$)", re.MULTILINE)
_CONTAINERS = ("while", "call", "conditional")  # their time is that of what they contain


def main() -> None:
    """Compiles, runs twice, traces the second run."""
    parser = measure.parser(__doc__)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--method", default="at_bsl")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--attack_steps", type=int, default=10)
    parser.add_argument("--top", type=int, default=25, help="rows; the others are summed")
    given = parser.parse_args()
    path = measure.begin(given, "profile_step")
    measure.finish(path, given, rows(given.network, given.method, given.batch, given.attack_steps, given.top))


def rows(
    network: str, method: str, batch: int, attack_steps: int, top: int, *, dtype: str = "float32"
) -> list[dict[str, Any]]:
    """The table of one step."""
    settings = {"student__attack__steps": attack_steps, "model__dtype": dtype}
    result = training.prepare(training.configuration(network, method, batch, **settings))
    program = result.lower().compile()
    jax.block_until_ready(result.run(program))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(result.run(program))
        (trace,) = Path(folder).rglob("*.xplane.pb")
        events = read(jax.profiler.ProfileData.from_file(str(trace)))
    return summed(events, program.as_text(), top)


def read(profile: Any) -> dict[str, tuple[int, float]]:
    """How often each instruction ran, and seconds in all.

    On the CPU an event has the instruction's name. On a GPU it has its kernel's, and the instruction stands beside it;
    where several lines of a device show the same instruction, the line with most seconds counts.
    """
    result: dict[str, tuple[int, float]] = {}
    devices = [plane for plane in profile.planes if plane.name.startswith("/device:GPU")]
    for plane in devices or profile.planes:
        lines = []
        for line in plane.lines:
            events: dict[str, tuple[int, float]] = {}
            for event in line.events:
                name = dict(event.stats).get("hlo_op", event.name) if devices else event.name
                calls, seconds = events.get(name, (0, 0.0))
                events[name] = (calls + 1, seconds + event.duration_ns / 1e9)
            lines.append(events)
        for events in lines:
            for name, (calls, seconds) in events.items():
                known = result.get(name, (0, 0.0))
                if devices:
                    result[name] = max(known, (calls, seconds), key=lambda one: one[1])
                else:
                    result[name] = (known[0] + calls, known[1] + seconds)
    return result


def summed(events: dict[str, tuple[int, float]], program: str, top: int) -> list[dict[str, Any]]:
    """Rows of the instructions of a program that occur among the events, by place and kind, the longest first."""
    calls: collections.Counter[tuple[str, str]] = collections.Counter()
    seconds: collections.Counter[tuple[str, str]] = collections.Counter()
    for name, path in _INSTRUCTION.findall(program):
        if name in events and not name.startswith(_CONTAINERS):
            calls[kind(path)] += events[name][0]
            seconds[kind(path)] += events[name][1]
    whole = sum(seconds.values())
    rows = [
        {"where": where, "operation": what, "calls": calls[where, what], "ms": 1e3 * took, "share": took / whole}
        for (where, what), took in seconds.most_common(top)
    ]
    rest = whole - sum(row["ms"] for row in rows) / 1e3
    rows.append({"where": "", "operation": "others", "calls": 0, "ms": 1e3 * rest, "share": rest / whole})
    return rows


def kind(path: str) -> tuple[str, str]:
    """Place and kind of an instruction by the name that JAX gives it: loops, the pass, layers, the operation.

    A chunk is a loop over steps, and an attack a loop inside of it.
    """
    if not path:
        return "", "copies and other operations without a name"
    parts = path.split("/")
    layer = re.search(r"/(stem|shortcut|conv|norm|linear)[a-z_]*\d*/", path)
    first = next((index for index, part in enumerate(parts) if "jvp(" in part), len(parts))
    where = "attack" if parts[:first].count("while") > 1 else "update"
    backward = ", backward" if any("transpose(" in part for part in parts[:-1]) else ""
    inner = " (Winograd)" if "while" in parts[first:] else ""
    return where + backward, f"{layer[1] + ': ' if layer else ''}{parts[-1]}{inner}"


if __name__ == "__main__":
    main()
