"""Measures where the test suite spends its time: a pytest plugin, and the tables that it makes.

    python -m pytest -n 2 --dist worksteal -p tools.test_times --times=times.jsonl
    python -m tools.test_times times.jsonl

Per case and stage (setup, call, teardown) it records wall-clock seconds, and of these the seconds in which JAX traced,
lowered and compiled (read from the cache counts as compiled); and CPU seconds, which other work on the machine changes
little: of this process with all its threads, and of child processes that ended. A session fixture counts for the case
that needed it first.
"""

import collections
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Generator

import pytest

STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
COLUMNS = ("seconds", *STAGES.values(), "CPU", "children")

_intervals: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)


def _record(event: str, duration_secs: float, **_: str | int) -> None:
    if event in STAGES:
        now = time.perf_counter()
        _intervals[STAGES[event]].append((now - duration_secs, now))


def union(intervals: list[tuple[float, float]]) -> float:
    """Seconds covered by intervals; a function traced inside another one counts once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _children() -> float:
    """CPU seconds of child processes that ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", metavar="FILE", help="write seconds per case and stage to FILE, one JSON object a line")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--times")
    if path:
        # Not before: JAX reads its environment variables when it is imported, and tests/conftest.py sets them.
        import jax.monitoring

        jax.monitoring.register_event_duration_secs_listener(_record)
        if not hasattr(config, "workerinput"):
            pathlib.Path(path).write_text("")


def _measured(item: pytest.Item, stage: str) -> Generator[None, object, object]:
    _intervals.clear()
    start, own, children = time.perf_counter(), time.process_time(), _children()
    result = yield
    found = {"case": item.nodeid, "stage": stage, "seconds": time.perf_counter() - start}
    found |= {name: union(_intervals[name]) for name in STAGES.values()}
    found |= {"CPU": time.process_time() - own, "children": _children() - children}
    item.user_properties.append(("times", found))
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _measured(item, "setup"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _measured(item, "call"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
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


def table(title: str, name_of: Callable[[str], str], lines: list[dict], rows: int) -> str:
    """A Markdown table of seconds, summed over the cases that `name_of` gives one name; the slowest names first."""
    sums: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    cases: dict[str, set[str]] = collections.defaultdict(set)
    for line in lines:
        name = name_of(line["case"])
        sums[name].update({column: line[column] for column in COLUMNS})
        cases[name].add(line["case"])
    text = [[title, "cases", *COLUMNS], ["---", *["---:"] * (1 + len(COLUMNS))]]
    for name in sorted(sums, key=lambda name: -sums[name]["seconds"])[:rows]:
        text.append([name, str(len(cases[name])), *(f"{sums[name][column]:.1f}" for column in COLUMNS)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in text)


def tables(lines: list[dict], rows: int = 40) -> str:
    """Tables by folder, by file and by case, at most `rows` of files and cases."""
    total, used = (sum(line[column] for line in lines) for column in ("seconds", "CPU"))
    used += sum(line["children"] for line in lines)
    number = len({line["case"] for line in lines})
    return "\n\n".join(
        [
            f"{number} cases, {total:.0f} s of wall-clock time summed over the workers, {used:.0f} CPU seconds in all.",
            table("folder", lambda case: "/".join(case.split("::")[0].split("/")[:2]), lines, len(lines)),
            table("file", lambda case: case.split("::")[0], lines, rows),
            table("case", lambda case: case.removeprefix("tests/"), lines, rows),
        ]
    )


if __name__ == "__main__":
    text = pathlib.Path(sys.argv[1]).read_text()
    print(tables([json.loads(line) for line in text.splitlines()]))
