"""A million verdicts: seconds and memory of opening a store, of the page of its run, and of a comparison of two.

    python benchmarks/store.py [--images=200] [--overwrite]

Two runs on noise are drawn (`tests/fabricated.py`): 1,000 classes, `--images` test images each, protocol `quick`, one
network. Each task is a separate process, which imports the package too: CPU seconds, and the most memory that it held.
Writes results/store-<machine>.json.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measure

CLASSES = 1000


def do(task: str, run: Path, other: Path) -> None:
    """One task."""
    # Each process imports what its task needs.
    if task == "open":
        from ltrobust.evaluation import store

        store.read(next(run.glob("verdicts/*")))
    elif task == "report":
        from ltrobust.report import run_page

        run_page.write(run)
    elif task == "compare":
        from ltrobust.analysis import compare_runs

        compare_runs.compare_all([str(run), str(other)])


def row(task: str, runs: list[Path], repeats: int) -> dict[str, object]:
    """One task's row: seconds are the median."""
    seconds, memory = [], []
    for _ in range(repeats):
        before = os.times()
        memory.append(measure.process_memory([__file__, f"--task={task}", *map(str, runs)]))
        after = os.times()
        user, system = (getattr(after, kind) - getattr(before, kind) for kind in ("children_user", "children_system"))
        seconds.append(user + system)
    return {"task": task, "cpu_seconds": statistics.median(seconds), "peak_bytes": max(memory)}


def draw(folder: Path, images: int) -> list[Path]:
    """The two runs."""
    sys.path.insert(0, str(measure.ROOT / "tests"))
    import fabricated

    runs = [folder / "run", folder / "other"]
    for path, skill in zip(runs, (0.75, 0.7), strict=True):
        fabricated.write_run(path, classes=CLASSES, test_images=images, skills={"student/last": skill})
    return runs


def main() -> None:
    """Draws the runs and measures the tasks; or does one task."""
    parser = measure.parser(__doc__)
    parser.add_argument("--images", type=int, default=200, help="test images of each class")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("runs", type=Path, nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        do(given.task, *given.runs)
        return
    path = measure.begin(given, "store")
    with tempfile.TemporaryDirectory() as folder:
        runs = draw(Path(folder), given.images)
        verdicts = next(runs[0].glob("verdicts/*/verdicts.jsonl"))
        with verdicts.open("rb") as file:
            number = sum(1 for _ in file)
        rows = [row(task, runs, given.repeats) for task in ("nothing", "open", "report", "compare")]
        del given.task, given.runs
        measure.finish(path, given, rows, seed=0, verdicts=number, verdict_bytes=verdicts.stat().st_size)


if __name__ == "__main__":
    main()
