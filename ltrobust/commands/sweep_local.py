"""Local jobs of a sweep: how many run at a time, on which GPUs, and whether one still runs."""

import os
import time
from pathlib import Path

from ltrobust.runtime import cores


def slots(jobs: int | None) -> tuple[str | None, ...]:
    """CUDA_VISIBLE_DEVICES of local jobs that run at a time: one for each NVIDIA GPU, else one for two cores.

    Jobs use the GPUs that this process' CUDA_VISIBLE_DEVICES lists, or all, in turn. submitit hides all GPUs from local
    jobs, so each job gets the variable back.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        devices = sorted((path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")), key=int)
    else:
        devices = [name for name in given.split(",") if name not in ("", "-1")]
    count = jobs or len(devices) or max(1, cores.usable() // 2)
    return tuple(devices[index % len(devices)] if devices else given for index in range(count))


def lives(number: str, folder: Path) -> bool:
    """Whether the process of a local job of this folder of submitit's runs on this machine."""
    try:
        if Path("/proc/self").exists():  # another program, or a job of another folder, may have got the number since
            command = Path("/proc", number, "cmdline")
            if not command.read_bytes():  # it begins just now, or has ended
                time.sleep(0.1)
            words = command.read_text(errors="surrogateescape").split("\0")
            return words[-3:-2] == ["submitit.local._local"] and os.path.samefile(words[-2], folder)
        os.kill(int(number), 0)
    except OSError:
        return False
    return True
