"""The process that does a job's parts, one after another, and leaves what each one found.

    python -m benchmarks.accelerator part JOB ...

`run.py` starts it. It ends when its standard input closes, so that nothing works on after whoever started it is gone.
"""

import argparse
import dataclasses
import datetime
import importlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
import zipfile
import zlib
from pathlib import Path
from typing import Any

from benchmarks.accelerator import inputs, jobs, provenance

# A job's results are meant to be committed.
MOST_BYTES = 1_000_000
# How a process tells its runner that a part failed, behind the part's name.
FAILED = "failed: "


@dataclasses.dataclass(frozen=True)
class Context:
    """What a part works with.

    Attributes:
      job: its name.
      folder: where it leaves its files, all of which become results.
      work: scratch of the part, kept for the next attempt.
      out: the folder of all results; only weights go there directly.
      packs: data set -> folder.
      golden: the folder that holds `golden/`.
      dry: whether to do the same in toy sizes on the CPU.
      deadline: when the part has had its time, by `time.monotonic`: twice what is expected, or when all time is up.
      clock: of this part.
      preemption: hears requests to stop.
      weights: whether trained weights are left in `out`.
    """

    job: str
    folder: Path
    work: Path
    out: Path
    packs: dict[str, Path]
    golden: Path | None
    dry: bool
    deadline: float
    clock: Any
    preemption: Any
    weights: bool = False

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


def main(given: argparse.Namespace) -> int:
    """Does every part of the job that is not skipped and fits into the seconds at hand.

    A part that fails is printed, and the next one is done. Returns the exit status: 1 if one failed.

    Raises:
      ValueError: there is no accelerator, or it has too little memory.
      Preempted: SIGTERM, as when the time is up; what can be resumed was saved.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import jax

    from benchmarks.accelerator.clock import Clock
    from ltrobust.runtime.preemption import Preempted, Preemption

    job, deadline = jobs.get(given.job), time.monotonic() + given.seconds
    about = {
        "job": job.name,
        "dry": given.dry,
        "device": provenance.device(),
        "numerics": provenance.numerics(),
        "sources_sha256": provenance.sources_digest(),
    }
    check_device(job, about["device"], dry=given.dry)
    work = given.work / environment_name(about["device"]["kind"], dry=given.dry)
    jax.config.update("jax_compilation_cache_dir", str(work / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    module = importlib.import_module(f"benchmarks.accelerator.{job.module}")
    archive = given.out / f"{job.name}.zip"
    packs, golden = inputs.find_packs(given.inputs, job.packs), inputs.golden_of(given.inputs)
    failed = 0
    with Preemption().listening() as preemption:
        for part in job.parts:
            expected, left = part.seconds(given.tflops), deadline - time.monotonic()
            if part.name in given.skip:
                continue
            if expected > left and not given.dry and not given.unfinished:
                print(f"{job.name}/{part.name}: left out; {expected:.0f} s expected, {left:.0f} s left", flush=True)
                continue
            print(f"{job.name}/{part.name}: begins, {expected:.0f} s expected", flush=True)
            scratch = work / job.name / part.name
            folder = scratch / "results"
            resumed = folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            clock = Clock()
            context = Context(
                job=job.name,
                folder=folder,
                work=scratch,
                out=given.out,
                packs=packs,
                golden=golden,
                dry=given.dry,
                deadline=min(deadline, time.monotonic() + (left if given.dry else 2 * expected)),
                clock=clock,
                preemption=preemption,
                weights=given.weights,
            )
            try:
                summary = module.run(context, part)
                result = about | {
                    "part": part.name,
                    "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "software": _software(),
                    "seconds_expected": round(expected, 1),
                    # Of a resumed part, those since it was resumed.
                    "seconds": clock.seconds(),
                    "resumed": resumed,
                    "peak_memory_gib": peak_memory(),
                    "summary": summary,
                }
                add(archive, part.name, result, folder)
            except (Preempted, KeyboardInterrupt):
                raise
            except Exception as error:
                failed = 1
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                print(f"{traceback.format_exc()}\n{job.name}/{part.name}: {FAILED}{reason[:500]}", flush=True)
                continue
            print(f"{job.name}/{part.name}: done, {archive.stat().st_size:,} bytes; {spent(result)}", flush=True)
    return failed


def environment_name(kind: str, *, dry: bool) -> str:
    """Folder of what only the same device and software may resume: results would bear the names of others."""
    import jax

    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{'dry-' * dry}{slug(kind)}-jax{jax.__version__}-python{python}"


def slug(device: str) -> str:
    """A device's name as a folder's; `unknown` where nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"


def check_device(job: jobs.Job, device: dict[str, Any], *, dry: bool) -> None:
    """Refuses a CPU, unless this is a dry run, and a device without the memory that the job needs.

    Raises:
      ValueError: says what there is and what is needed.
    """
    if device["platform"] == "cpu" and not dry:
        raise ValueError("JAX finds no accelerator, only the CPU. Install its plugin, or give --dry.")
    if device["memory_gib"] is not None and device["memory_gib"] < job.memory:
        raise ValueError(
            f"{job.name} needs {job.memory:g} GiB of device memory; {device['kind']} offers {device['memory_gib']:g}. "
            "End other programs on it, or use a larger device."
        )


def peak_memory() -> float | None:
    """GiB that this process has held on the first device at most; None where the device does not say."""
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None if peak is None else round(peak / 2**30, 2)


def spent(found: dict[str, Any]) -> str:
    """`62 s: compiling 20, training 30, idle 12`."""
    seconds = dict(found["seconds"])
    total = seconds.pop("total")
    return f"{total:.0f} s: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())


def add(archive: Path, part: str, found: dict[str, Any], folder: Path) -> None:
    """Puts a part's record and files into the job's archive, which is replaced as a whole.

    An archive that is larger than what may be committed is written all the same, with a line that says so.
    """
    members = read(archive) if archive.exists() else {}
    members = {name: content for name, content in members.items() if not name.startswith(f"{part}/")}
    members[f"{part}/part.json"] = (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()
    for path in sorted(folder.iterdir()):
        members[f"{part}/{path.name}"] = path.read_bytes()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in sorted(members.items()):
            file.writestr(name, data)
    size = content.tell()
    if size > MOST_BYTES:
        print(f"{archive.name} has {size:,} bytes with {part}; {MOST_BYTES:,} may be committed", flush=True)
    partial = archive.with_name(f"{archive.name}.{os.getpid()}.partial")
    partial.write_bytes(content.getvalue())
    partial.replace(archive)


def read(archive: Path) -> dict[str, bytes]:
    """Names and contents of an archive's members.

    Raises:
      ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            return {name: file.read(name) for name in file.namelist()}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{archive} is damaged ({error}); move it away, and its parts are done again.") from error


def _software() -> dict[str, str]:
    """Versions, PyTorch's too where it took part."""
    from ltrobust.analysis import cards

    torch = sys.modules.get("torch")
    return cards.software() | ({"torch": str(torch.__version__)} if torch else {})


def _end_with_parent() -> None:
    """Waits until standard input closes, then asks this process to stop."""
    while os.read(0, 1024):  # not through sys.stdin, whose lock this thread would hold at the end of the process
        pass
    os.kill(os.getpid(), signal.SIGTERM)
