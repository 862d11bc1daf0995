"""Checks that a start agrees with its other processes, and with the checkpoints that it resumes from.

Each function raises a ValueError that names the values and what to do.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from ltrobust.analysis import cards
from ltrobust.data.run_data import RunData, other_images
from ltrobust.runtime import processes
from ltrobust.runtime import workdir as workdirs
from ltrobust.runtime.files import read_json
from ltrobust.training import records
from ltrobust.training.metadata import Metadata

SAME_DATA = "every process reads the data set from its own data.dir, and the copies must be equal."


def same_start(recorded: Mapping[str, Any], run_data: RunData) -> None:
    """Refuses processes whose settings (`recorded`), programs or images differ from the first process."""
    if not processes.several():
        return
    local = ("data.dir", "data.cache_dir", "data.lists.", "data.workers")
    values = {
        f"value of {key}": value for key, value in workdirs.flatten(recorded).items() if not key.startswith(local)
    }
    processes.check_same({"software": cards.software()} | values, "start all of them with the same version and flags.")
    processes.check_same({"training or validation part": run_data.fingerprints["pixels"]}, SAME_DATA)


def same_run(metadata: Metadata, recorded: Mapping[str, Any], folder: epath.Path) -> None:
    """Refuses checkpoints of another configuration; a folder outside of the workdir may hold such ones."""
    if result := workdirs.differences(metadata.config, recorded):
        workdirs.refuse(
            f"{folder} holds checkpoints of another configuration",
            result,
            "Give another checkpoint.dir, or start with the values on the left to continue with that run."
            + workdirs.how_to_extend(result, f"{folder.parent / 'student'}", folder.parent / "teacher"),
        )


def same_images(metadata: Metadata, run_data: RunData, folder: epath.Path) -> None:
    """Refuses a checkpoint that was trained on other images than those found now."""
    there, here = metadata.fingerprints, run_data.fingerprints
    if differing := other_images(there, here):
        part = differing[0]
        title = "training part" if part == "train" else f"part {part!r}"
        raise ValueError(
            f"checkpoint {folder} was trained on other images than those found now (SHA-256 of the {title} "
            f"{there[part][:12]}, now {here[part][:12]}); use the copy of the data set "
            "that it was trained on."
        )


def same_teachers(recorded: Mapping[str, Any], taught: Mapping[str, Any], folder: epath.PathLike) -> None:
    """Refuses to resume with another teacher than the one that has taught so far, by a checkpoint's `teachers`."""
    for name, there in recorded.items():
        for key, what in (("params_sha256", "parameters"), ("batch_stats_sha256", "running statistics")):
            if there[key] != taught[name][key]:
                raise ValueError(
                    f"checkpoint {folder} was taught by another {name} than the one found now (SHA-256 of its {what} "
                    f"{there[key][:12]}, now {taught[name][key][:12]}); give that one, or start in a new workdir."
                )


def checkpoints_are_there(workdir: Path, checkpoints: epath.Path, wanted: Sequence[str]) -> None:
    """Refuses to train a phase that the workdir's records show as finished: its checkpoints are in another folder."""
    file = workdir / "metrics.jsonl"
    recorded = {record["phase"] for record in records.read(file)} if file.is_file() else set()
    # A phase begins when the one before it is finished, the evaluation when all are.
    finished = wanted if any((workdir / "results").glob("*.json")) else wanted[:-1] if wanted[-1] in recorded else []
    missing = [name for name in finished if name in recorded and not any((checkpoints / name).glob("[0-9]*"))]
    if missing:
        raise ValueError(
            f"{workdir} has records of a finished {missing[-1]} phase, but there is no checkpoint in "
            f"{checkpoints / missing[-1]}. Give its checkpoint.dir, or train again in another workdir."
        )


def teacher_is_there(checkpoints: epath.Path, wanted: Sequence[str]) -> None:
    """Refuses to resume a student whose teacher is missing, because a retrained teacher may be another network."""
    folders = {name: checkpoints / name for name in wanted}
    missing = [name for name in wanted if not any(folders[name].glob("[0-9]*"))]
    if missing == ["teacher"]:
        raise ValueError(
            f"{folders['student']} holds checkpoints, but the teacher's folder {folders['teacher']} is gone or empty. "
            "Put it back; or evaluate the student without it (ltrobust evaluate); or train both again in another "
            "workdir."
        )


def same_workdir(workdir: Path, metadata: Metadata, folder: epath.Path) -> None:
    """Refuses to write a checkpoint's numbers into another run's workdir: their networks have the same names."""
    if not workdirs.is_run(workdir):
        return
    lines = workdirs.differences(read_json(workdir / "config.json"), metadata.config)
    # The threat is the evaluation's own.
    if result := [line for line in lines if not line.startswith("threat.")]:
        workdirs.refuse(
            f"workdir {workdir} holds another run than that of checkpoint {folder}",
            result,
            "Evaluate the checkpoint in another folder with --workdir=DIR.",
        )


def same_network(metadata: Metadata, recorded: Mapping[str, Any], folder: epath.Path) -> None:
    """Refuses to evaluate a checkpoint with another architecture or on other data."""
    if result := workdirs.differences(metadata.config, recorded, only=("model.", "data.")):
        workdirs.refuse(
            f"checkpoint {folder} was made with other settings",
            result,
            "Evaluate it with the configuration that made it.",
        )
