"""The options of Slurm in a sweep's file: `SLURM = {"time": 240, "partition": "gpu", "gpus_per_node": 1}`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltrobust.runtime.names import nearest

EXAMPLE = '{"time": 240, "partition": "gpu", "gpus_per_node": 1}'
# What the launcher sets itself: one process a cell, logs and signals where they are looked for.
_SET = {
    "array",
    "error",
    "job_name",
    "nodes",
    "ntasks",
    "ntasks_per_node",
    "open_mode",
    "output",
    "requeue",
    "signal",
    "wckey",
}


@dataclasses.dataclass(frozen=True)
class Slurm:
    """What each job of a sweep asks Slurm for. Zero and empty values are left to the cluster.

    Attributes:
      time: minutes until a job is stopped; it is then requeued and resumes.
      partition: where jobs wait.
      gpus_per_node: GPUs of a job.
      cpus_per_task: cores of a job.
      mem: memory of a job, such as `32GB`.
      array_parallelism: jobs that run at a time, at most.
      setup: lines of shell before each run, such as `module load cuda`.
      sbatch: further options of sbatch by name, such as `{"account": "lab"}`; True for one without a value.
    """

    time: int
    partition: str = ""
    gpus_per_node: int = 0
    cpus_per_task: int = 0
    mem: str = ""
    array_parallelism: int = 256
    setup: tuple[str, ...] = ()
    sbatch: Mapping[str, str | int] = dataclasses.field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """Parameters of submitit's `SlurmExecutor`."""
        given = {key: value for key, value in vars(self).items() if value and key != "sbatch"}
        further = {"requeue": True} | {key.replace("-", "_"): value for key, value in self.sbatch.items()}
        result = {"job_name": "ltrobust", "wckey": None, **given, "additional_parameters": further}
        return result | ({"setup": list(self.setup)} if self.setup else {})


def read(file: Path, given: Any) -> Slurm:
    """The options that the file of a sweep gives as SLURM.

    Raises:
      ValueError: no dict, an unknown key, no time, a value that is not allowed, or an option of sbatch that the
        launcher sets. The message names the file.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"sweep {file} has SLURM {given!r}; give a dict such as {EXAMPLE}.")
    known = [field.name for field in dataclasses.fields(Slurm)]
    for key in given:
        if key not in known:
            raise ValueError(
                f"sweep {file} has {key!r} in SLURM; {nearest(str(key), known)}keys: {', '.join(known)}, which takes "
                "all other options."
            )
    if "time" not in given:
        raise ValueError(f"sweep {file} lacks time in SLURM; give the minutes that a job may take, as in {EXAMPLE}.")
    for key, value in given.items():
        if not _ALLOWED[key][0](value):
            raise ValueError(f"sweep {file} has {value!r} for {key} in SLURM; give {_ALLOWED[key][1]}.")
    for key in given.get("sbatch", ()):
        if key.replace("-", "_").lower() in {*_SET, *known}:
            raise ValueError(
                f"sweep {file} has {key!r} for sbatch in SLURM; the launcher or another key of SLURM sets it, so "
                "leave it out."
            )
    return Slurm(**{**given, "setup": tuple(given.get("setup", ()))})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_line(value: Any) -> bool:
    """A text that cannot begin another line of the file for sbatch."""
    return isinstance(value, str) and value.isprintable()


def _is_option(key: Any, value: Any) -> bool:
    return _is_line(key) and (value is True or _is_count(value) or _is_line(value))


# Key -> whether a value is allowed, and what is.
_ALLOWED = {
    "time": (lambda value: _is_count(value) and value > 0, "minutes, a whole number of at least 1"),
    "partition": (_is_line, "a name"),
    "gpus_per_node": (_is_count, "a whole number"),
    "cpus_per_task": (_is_count, "a whole number"),
    "mem": (_is_line, "a text such as '32GB'"),
    "array_parallelism": (lambda value: _is_count(value) and value > 0, "a whole number of at least 1"),
    "setup": (lambda value: isinstance(value, list | tuple) and all(map(_is_line, value)), "a tuple of lines of shell"),
    "sbatch": (
        lambda value: isinstance(value, Mapping) and all(_is_option(*item) for item in value.items()),
        "a dict of names and texts, whole numbers or True",
    ),
}
