"""Local jobs of a sweep: how many run at a time, on which GPUs, and whether one still runs."""

import itertools
import os
import re
import time
from pathlib import Path

from ltrobust.runtime import cores

# How many local jobs may be asked for.
MOST = 1000
# Numbers and names of GPUs. CUDA hides what comes after anything else, such as -1.
_GPU = re.compile(r"\d+|(GPU|MIG)-.+")


def slots(jobs: int | None) -> tuple[str | None, ...]:
    """GPUs of the local jobs that run at a time: one job for each NVIDIA GPU, else one for two cores.

    Jobs use the GPUs that this process' CUDA_VISIBLE_DEVICES lists, or all, in turn; None where there is none.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        # CUDA counts from 0 what there is; the files of a container may have other numbers.
        devices = [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
    else:
        devices = list(itertools.takewhile(_GPU.fullmatch, (name.strip() for name in given.split(","))))
    count = jobs or len(devices) or max(1, cores.usable() // 2)
    return tuple(devices[index % len(devices)] if devices else None for index in range(count))


def environment(gpu: str | None) -> dict[str, str | None]:
    """Variables of a job's run; None removes one. submitit hides all GPUs from local jobs."""
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES") if gpu is None else gpu}


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
