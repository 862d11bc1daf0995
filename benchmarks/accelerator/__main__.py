"""Minutes on an accelerator: packs the data, runs the next jobs, collects results (docs/project/accelerator.md).

python -m benchmarks.accelerator pack --data_dir=DIR --out=FOLDER [--data=cifar10] [--imbalance_ratio=50]
python -m benchmarks.accelerator wheels --out=FOLDER
python -m benchmarks.accelerator jobs
python -m benchmarks.accelerator run --seconds=540 --out=FOLDER [--first=JOB] [--dry]
python -m benchmarks.accelerator collect FOLDER
"""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.accelerator import RESULTS, ROOT, filing, inputs, jobs, run

_INPUTS = ROOT / ".accelerator"


def main() -> int:
    """Does what the first word says; a mistake in what was given is one line and exit status 2."""
    given = parser().parse_args()
    try:
        return given.do(given)
    except (ValueError, OSError) as error:
        print(f"accelerator: {error}", file=sys.stderr)
        return 2


def parser() -> argparse.ArgumentParser:
    """All commands with their flags."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description=(__doc__ or "").split("\n")[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("pack", help="write the images of a long-tailed split as a few lossless files")
    one.add_argument("--data_dir", type=Path, required=True, help="TFDS folder with the complete data set")
    one.add_argument("--out", type=Path, required=True, help="folder of the pack; must be new")
    one.add_argument("--data", default="cifar10", help="cifar10 or cifar100")
    one.add_argument("--imbalance_ratio", type=float, default=None, help="default: that of the jobs")
    one.set_defaults(do=do_pack)

    one = commands.add_parser("wheels", help="download what a bare machine lacks")
    one.add_argument("--out", type=Path, default=_INPUTS / "wheels")
    one.set_defaults(do=do_wheels)

    one = commands.add_parser("jobs", help="list the queue")
    one.set_defaults(do=do_jobs)

    one = commands.add_parser("run", help="run the next jobs that are not done and fit")
    add_run_flags(one)
    one.add_argument("--first", default="", help="this job first, even if its results are filed")
    one.add_argument("--commit", default="", help="what the results name where the checkout came without its history")
    one.add_argument("--results", type=Path, default=RESULTS, help="where filed results are looked up")
    one.add_argument(
        "--unfinished", action="store_true", help="begin a training that does not fit; the same --work resumes it"
    )
    one.set_defaults(do=do_run)

    one = commands.add_parser("part")  # used by `run`: do parts of one job in this process
    one.add_argument("job")
    one.add_argument("--skip", action="append", default=[], help="a part that is not to be done")
    one.add_argument("--unfinished", action="store_true", help="begin parts that do not fit")
    add_run_flags(one)
    one.set_defaults(do=do_part)

    one = commands.add_parser("collect", help="file the results of a folder in the repository")
    one.add_argument("folder", type=Path)
    one.add_argument("--results", type=Path, default=RESULTS)
    one.set_defaults(do=do_collect)
    return top


def add_run_flags(one: argparse.ArgumentParser) -> None:
    """What `run` hands on to a job's process."""
    one.add_argument("--seconds", type=float, required=True, help="time at hand, everything included")
    one.add_argument("--out", type=Path, required=True, help="folder of the results, JOB.zip each")
    one.add_argument("--work", type=Path, default=None, help="scratch, kept for resuming; default: <out>.work")
    one.add_argument("--inputs", type=Path, default=_INPUTS, help="folder with packs, wheels/ and golden/")
    one.add_argument("--tflops", type=float, default=0.0, help="what a training step reaches; 0: as measured by speed")
    one.add_argument("--dry", action="store_true", help="the same jobs on the CPU in toy sizes")
    one.add_argument(
        "--weights", action="store_true", help="leave the students' weights too, 16 bit, in two files each"
    )


def do_pack(given: argparse.Namespace) -> int:
    """Writes a pack."""
    from ltrobust.data import pack

    ratio = given.imbalance_ratio if given.imbalance_ratio is not None else jobs.ratio_of(given.data)
    folder, cache = given.out, "~/.cache/ltrobust"
    pack.write(folder, name=given.data, data_dir=given.data_dir, cache_dir=cache, imbalance_ratio=ratio)
    size = sum(path.stat().st_size for path in given.out.iterdir())
    print(f"{given.out}: {given.data}, imbalance ratio {ratio:g}, {size:,} bytes")
    return 0


def do_wheels(given: argparse.Namespace) -> int:
    """Collects wheels."""
    for path in inputs.collect_wheels(given.out):
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def do_jobs(given: argparse.Namespace) -> int:
    """Prints the queue with its expected seconds."""
    del given
    rates = " / ".join(f"{rate:g}" for rate in jobs.RATES)
    print(f"seconds expected where a training step reaches {rates} TFLOP/s; results: JOB.zip")
    for job in jobs.every():
        total = " / ".join(f"{job.seconds(rate):.0f}" for rate in jobs.RATES)
        needs = [f"pack {name}" for name in job.packs] + ["golden/"] * job.golden + [f"{job.memory:g} GiB"]
        print(f"\n{job.name}: {total} s; needs {', '.join(needs)}\n  {job.summary}")
        for part in job.parts:
            print(f"  {part.name}: {' / '.join(f'{part.seconds(rate):.0f}' for rate in jobs.RATES)} s")
    return 0


def do_run(given: argparse.Namespace) -> int:
    """Runs the queue."""
    if not given.seconds > 0 or not given.tflops >= 0:
        raise ValueError(
            f"--seconds is {given.seconds:g}, --tflops {given.tflops:g}; give more than 0, and at least 0."
        )
    try:
        return run.main(given)
    except KeyboardInterrupt:
        print("accelerator: interrupted; the same command resumes.", file=sys.stderr)
        return 128 + signal.SIGINT


def do_part(given: argparse.Namespace) -> int:
    """Does parts of one job."""
    from benchmarks.accelerator import part
    from ltrobust.runtime.preemption import EXIT_STATUS, Preempted

    try:
        return part.main(given)
    except Preempted as request:
        print(f"{given.job}: {request}", flush=True)
        return EXIT_STATUS


def do_collect(given: argparse.Namespace) -> int:
    """Files results."""
    result = filing.collect(given.folder, given.results, default=RESULTS)
    for path in result.new:
        print(f"filed: {path}")
    for path in result.conflicts:
        print(f"left alone: {path} holds another result of this part; move it away, or give another --results")
    print(f"{len(result.new)} new result(s)")
    return int(bool(result.conflicts))


if __name__ == "__main__":
    sys.exit(main())
