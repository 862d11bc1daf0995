"""Kills runs of `main.py` at random moments, starts them again, and compares what they end with.

    python tests/kill/harness.py --kills=20 --seed=0 [--folder=DIR] [--config=FILE] [--config.key=value ...]

One run goes undisturbed: the reference. The others get SIGKILL at moments drawn from the seed and are started again
with the same command until they finish; runs are added until there were as many kills as asked for. About half of the
kills come at a moment drawn uniformly from the reference's life, in seconds of processor time, so that it does not
matter how busy the machine is. The others wait for such a moment and then for the next write: of a checkpoint's folder,
a record, a verdict or a card. What each run ends with is compared with the reference
(`tools/run_digests.py`): all arrays of the last checkpoints, the records of all epochs, every verdict, and the card.

Prints where the kills fell and what differs. Exit status 0 if every run is identical and every stage was hit.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    os.environ["JAX_PLATFORMS"] = "cpu"

from tools import run_digests  # noqa: E402

STAGES = ("teacher", "student", "evaluation")
# Both phases with averaged weights, one attack that leaves some images right: about half a minute on one core.
CONFIG = [
    "--config=configs/digits.py",
    "--config.data.imbalance_ratio=4.0",
    "--config.model.width=4",
    "--config.teacher.epochs=6",
    "--config.student.epochs=6",
    "--config.teacher.attack.steps=2",
    "--config.student.attack.steps=2",
    "--config.teacher.ema_decay=0.9",
    "--config.student.ema_decay=0.9",
    "--config.eval.limit=20",
    "--config.eval.also=()",
    "--config.checkpoint.minutes=0.0",
]


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where a kill fell: the stage that the files show, what was being done, and after how much processor time."""

    stage: str
    doing: str
    seconds: float


def start(workdir: Path, config: list[str], cache: Path) -> subprocess.Popen:
    """The run's process, with its output in a file beside the workdir."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    with workdir.with_suffix(".log").open("a") as log:
        command = [sys.executable, "main.py", *config, f"--workdir={workdir}"]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(workdir: Path, config: list[str], cache: Path) -> float:
    """Runs to the end; returns the seconds of processor time that it took, without its workers'."""
    process, seconds = start(workdir, config, cache), 0.0
    while process.poll() is None:
        seconds = processor_seconds(process)
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"{workdir} ended with status {process.returncode}:\n{_end_of_log(workdir)}")
    return seconds


def processor_seconds(process: subprocess.Popen) -> float:
    """What a process has used until now, without processes that it started (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stage(workdir: Path) -> str:
    """How far the files say that the run is."""
    if (workdir / "verdicts").exists():
        return "evaluation"
    return "student" if (workdir / "checkpoints" / "student").exists() else "teacher"


def writes(workdir: Path) -> set[tuple[str, int]]:
    """What changes with every write of a checkpoint, a record, a verdict or a card."""
    patterns = ("checkpoints/*/*", "metrics.jsonl*", "verdicts/*/*", "results/*")
    result = set()
    for path in (path for pattern in patterns for path in workdir.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):
            result.add((str(path), path.stat().st_size if path.is_file() else 0))
    return result


def half_written(workdir: Path) -> dict[tuple[str, int], str]:
    """What bears the name of something unfinished: path and inode -> what was being written."""
    result = {}
    for pattern in ("checkpoints/*/*.orbax-checkpoint-tmp*", "verdicts/*/*.partial", "results/*.partial"):
        for path in workdir.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                what = "checkpoint" if pattern.startswith("checkpoints") else path.name.rsplit(".", 2)[0]
                result[str(path), path.stat().st_ino] = what
    return result


def kill(
    workdir: Path, config: list[str], cache: Path, moment: float, aimed: bool, reach: str = "teacher"
) -> Kill | None:
    """Starts the run and kills it after `moment` seconds of processor time, or at the next write after that.

    `reach` is the stage that has to be reached before the seconds count. None if the run finished before.
    """
    stale, before = half_written(workdir), writes(workdir)
    process, used = start(workdir, config, cache), 0.0
    while STAGES.index(stage(workdir)) < STAGES.index(reach) and process.poll() is None:
        time.sleep(0.005)
    reached = processor_seconds(process) if process.poll() is None else 0.0
    seen: set[tuple[str, int]] | None = None
    while process.poll() is None:
        used = processor_seconds(process)
        if used - reached >= moment:
            seen = writes(workdir) if seen is None else seen
            if not aimed or half_written(workdir).keys() - stale.keys() or writes(workdir) != seen:
                break
        time.sleep(0.001)
    if process.poll() is None:
        process.kill()
    if process.wait() == 0:
        return None
    if process.returncode != -9:
        sys.exit(f"{workdir} ended with status {process.returncode}:\n{_end_of_log(workdir)}")
    doing = [what for key, what in half_written(workdir).items() if key not in stale]
    if not doing and seen is not None and aimed:
        changed = {Path(name).relative_to(workdir).parts[0] for name, _ in writes(workdir) - seen}
        doing = [{"checkpoints": "checkpoint", "results": "card", "metrics.jsonl": "record"}.get(n, n) for n in changed]
    what = f"writing {doing[0]}" if doing else "between writes" if writes(workdir) != before else "starting up"
    return Kill(stage(workdir), what, used)


def _end_of_log(workdir: Path) -> str:
    """What the run's processes said last."""
    return workdir.with_suffix(".log").read_text()[-3000:]


def short(digests: Mapping[str, str]) -> str:
    """`arrays 0123456789ab, record ..., verdicts ..., card ...`: one digest of the parts of each kind."""
    kinds = run_digests.by_kind(digests)
    return ", ".join(f"{kind} {run_digests.of_json(parts)[:12]}" for kind, parts in kinds.items())


def until_finished(
    workdir: Path, config: list[str], cache: Path, draw: Callable[[], dict[str, Any] | None]
) -> list[Kill]:
    """Kills the run as often as `draw` gives a moment for it and it is not finished; then lets it finish."""
    kills = []
    while (settings := draw()) is not None:
        fell = kill(workdir, config, cache, **settings)
        if fell is None:
            return kills
        kills.append(fell)
    finish(workdir, config, cache)
    return kills


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the runs and the compiled programs; default: a temporary one")
    options, config = parser.parse_known_args(arguments)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ltrobust-kill-"))
    folder.mkdir(parents=True, exist_ok=True)
    config = config if any(word.startswith("--config=") for word in config) else CONFIG + config
    cache = folder / "compiled"
    finish(folder / "first", config, cache)  # fills the cache, so that the reference lasts as long as a later start
    seconds = finish(folder / "reference", config, cache)
    reference = run_digests.of_run(folder / "reference")
    changed = run_digests.differences(run_digests.of_run(folder / "first"), reference)
    if changed:
        print("two undisturbed runs differ:\n" + "\n".join(f"  {name}" for name in changed))
        return 1
    print(f"reference: {seconds:.1f} s of processor time, {len(reference)} parts: {short(reference)}", flush=True)
    generator, kills, failed, runs = random.Random(options.seed), [], [], 0

    while len(kills) < options.kills:
        left = options.kills - len(kills)

        def draw() -> dict[str, Any] | None:
            nonlocal left
            left -= 1
            return None if left < 0 else {"moment": generator.uniform(0, seconds), "aimed": generator.random() < 0.5}

        runs += 1
        workdir = folder / f"killed-{runs}"
        fell = until_finished(workdir, config, cache, draw)
        found = run_digests.of_run(workdir)
        changed = run_digests.differences(reference, found)
        failed += fell if changed else []
        kills += fell
        where = ", ".join(f"{kill.stage} ({kill.doing}, {kill.seconds:.1f} s)" for kill in fell) or "never"
        print(
            f"run {runs}, killed in: {where}: {'identical' if not changed else 'DIFFERS'}: {short(found)}", flush=True
        )
        print("".join(f"  {name}\n" for name in changed), end="")
    print(f"\n{_table(kills)}\n\n{len(kills) - len(failed)}/{len(kills)} identical")
    missed = [name for name in STAGES if not any(kill.stage == name for kill in kills)]
    if missed:
        print(f"no kill fell into: {', '.join(missed)}; give more --kills or another --seed.")
    return int(bool(failed or missed))


def _table(kills: list[Kill]) -> str:
    """Kills by stage and by what was under way."""
    counts = collections.Counter((kill.stage, kill.doing) for kill in kills)
    doings = sorted({kill.doing for kill in kills})
    rows = [["stage", *doings, "all"]]
    rows += [
        [name, *(str(counts[name, doing]) for doing in doings), str(sum(kill.stage == name for kill in kills))]
        for name in STAGES
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
