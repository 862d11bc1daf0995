"""Measures where the test suite spends its time: a pytest plugin, and the tables that it makes.

    python -m pytest -n 2 --dist worksteal -p tools.test_times --times=times.jsonl
    python -m tools.test_times times.jsonl

Per case and stage (setup, call, teardown) it records wall-clock seconds, and of these the seconds in which JAX traced,
lowered and compiled (read from the cache counts as compiled), and the CPU seconds of child processes that ended.
A session fixture counts for the case that needed it first.
"""

import collections
import json
import pathlib
import resource
import sys
import time
from collections.abc import Iterator

import jax.monitoring
import pytest

STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
COLUMNS = ("seconds", *STAGES.values(), "children")

_intervals: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)


def _record(event: str, duration: float, **_) -> None:
    if event in STAGES:
        now = time.perf_counter()
        _intervals[STAGES[event]].append((now - duration, now))


def union(intervals: list[tuple[float, float]]) -> float:
    """Seconds covered by intervals; a function traced inside another one counts once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", metavar="FILE", help="write seconds per case and stage to FILE, one JSON object a line")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--times"):
        jax.monitoring.register_event_duration_secs_listener(_record)
        if not hasattr(config, "workerinput"):
            pathlib.Path(config.getoption("--times")).write_text("")


def _measured(item: pytest.Item, stage: str) -> Iterator[None]:
    _intervals.clear()
    start, children = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = yield
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"case": item.nodeid, "stage": stage, "seconds": time.perf_counter() - start}
    found |= {name: union(_intervals[name]) for name in STAGES.values()}
    found["children"] = ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime
    item.user_properties.append(("times", found))
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    return (yield from _measured(item, "setup"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from _measured(item, "call"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    return (yield from _measured(item, "teardown"))


class _Writer:
    """Writes what reports carry, on the controller of the workers."""

    def __init__(self, path: str):
        self.path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A report's properties are all of its case so far; the last stage has them all.
        if report.when == "teardown":
            with open(self.path, "a") as file:
                for name, value in report.user_properties:
                    if name == "times":
                        file.write(json.dumps(value) + "\n")


def pytest_sessionstart(session: pytest.Session) -> None:
    path = session.config.getoption("--times")
    if path and not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Writer(path))


def tables(lines: list[dict], slowest: int = 40) -> str:
    """Markdown tables of seconds by folder, by file and of the slowest cases."""
    parts = []
    for title, key, limit in (
        ("Folder", lambda case: "/".join(case.split("::")[0].split("/")[:2]), 100),
        ("File", lambda case: case.split("::")[0], slowest),
        ("Case", lambda case: case.split("tests/", 1)[1], slowest),
    ):
        sums: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        cases: dict[str, set] = collections.defaultdict(set)
        for line in lines:
            sums[key(line["case"])].update({name: line[name] for name in COLUMNS})
            cases[key(line["case"])].add(line["case"])
        order = sorted(sums, key=lambda name: -sums[name]["seconds"])[:limit]
        parts.append(
            "\n".join(
                [
                    f"| {title} | cases | {' | '.join(COLUMNS)} |",
                    "|---|---:|" + "---:|" * len(COLUMNS),
                    *(
                        f"| {name} | {len(cases[name])} | {' | '.join(f'{sums[name][column]:.1f}' for column in COLUMNS)} |"
                        for name in order
                    ),
                ]
            )
        )
    total = sum(line["seconds"] for line in lines)
    number = len({line["case"] for line in lines})
    return "\n\n".join([f"{number} cases, {total:.0f} s of wall-clock time summed over the workers.", *parts]) + "\n"


if __name__ == "__main__":
    text = pathlib.Path(sys.argv[1]).read_text()
    print(tables([json.loads(line) for line in text.splitlines()]))
