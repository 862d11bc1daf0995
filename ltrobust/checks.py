"""What is refused before anything is trained or evaluated: settings, processes and checkpoints that do not fit.

Each function raises a ValueError that names the values and what to do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath

from ltrobust.analysis import cards
from ltrobust.data.run_data import RunData, other_images
from ltrobust.evaluation import protocols
from ltrobust.methods import TEACHER
from ltrobust.runtime import processes
from ltrobust.runtime import workdir as workdirs
from ltrobust.training import phases, records, teachers

SAME_DATA = "every process reads the data set from its own data.dir, and the copies must be equal."


def settings(config: Any) -> None:
    """Refuses values that make no sense, and evaluation settings, before anything is trained."""
    workdirs.check_values(config)
    if config.checkpoint.keep < 1 or config.checkpoint.minutes < 0:
        raise ValueError(
            f"checkpoint.keep is {config.checkpoint.keep} and checkpoint.minutes is {config.checkpoint.minutes}; they "
            "must be at least 1 and 0."
        )
    protocols.check_threat(protocols.get(config.eval.protocol), phases.make_threat(config))
    if config.eval.batch_size < 1 or config.eval.limit < 0:
        raise ValueError(
            f"eval.batch_size is {config.eval.batch_size} and eval.limit is {config.eval.limit}; "
            "they must be at least 1 and 0."
        )


def phases_to_run(config: Any) -> list[str]:
    """The student, after the teacher where the student's settings need one."""
    wanted, elsewhere = phases.make_method(config, "student").teachers, teachers.outside(config)
    for name in wanted:
        if name not in elsewhere and name != TEACHER:
            raise ValueError(f"student.method {config.student.method} needs a {name}; give teachers.{name}.path.")
    if config.student.initialize == "teacher" and TEACHER in elsewhere:
        raise ValueError(
            "student.initialize is 'teacher', which is the run's own teacher phase, but teachers.teacher.path names "
            "another; use 'scratch', or leave the path empty."
        )
    if config.student.initialize != "teacher" and (TEACHER not in wanted or TEACHER in elsewhere):
        return ["student"]
    teacher, student = (phases.make_method(config, name) for name in phases.NAMES)
    if config.student.initialize == "teacher" and teacher.head != student.head:
        raise ValueError(
            f"student.initialize is 'teacher', but {student.name} has another head than {teacher.name}; use 'scratch'."
        )
    if teacher.teachers or config.teacher.initialize == "teacher":
        raise ValueError(
            f"teacher.method is {config.teacher.method!r}, which needs a teacher of its own; choose one that does not, "
            "such as pgd_at."
        )
    return ["teacher", "student"]


def warn_of_no_selection(config: Any, planned: Mapping[str, phases.Phase], run_data: RunData) -> None:
    """Says which phases select no weights although there is a validation part."""
    for name, phase in planned.items():
        if len(run_data.validation.labels) and not phase.selects:
            logging.warning(
                "%s: no weights are selected: validation images of the rarest class: %d, %s.selection_floor: %d.",
                *(name, run_data.validation_counts.min(), name, config[name].selection_floor),
            )


def same_start(config: Any, run_data: RunData) -> None:
    """Refuses processes of other settings, programs or images than the first one's."""
    if not processes.several():
        return
    local = ("data.dir", "data.cache_dir")
    values = {
        f"value of {key}": value for key, value in workdirs.flatten(workdirs.plain(config)).items() if key not in local
    }
    processes.check_same({"software": cards.software()} | values, "start all of them with the same version and flags.")
    processes.check_same({"training or validation part": run_data.fingerprints["pixels"]}, SAME_DATA)


def same_run(about: Mapping[str, Any], config: Any, folder: epath.Path) -> None:
    """Refuses checkpoints of another configuration, which a folder outside of the workdir may hold."""
    if found := workdirs.differences(about["config"], workdirs.plain(config)):
        raise ValueError(
            f"{folder} holds checkpoints of another configuration:\n"
            + "\n".join(f"  {line}" for line in found)
            + "\nGive another checkpoint.dir, or start with the values on the left to go on with that run."
            + workdirs.how_to_extend(found, f"{folder.parent / 'student'}", folder.parent / "teacher")
        )


def same_images(about: Mapping[str, Any], run_data: RunData, folder: epath.Path) -> None:
    """Refuses a checkpoint that was trained on other images than those found now."""
    there, here = about["data"]["fingerprints"], run_data.fingerprints
    if differing := other_images(there, here):
        part = differing[0]
        title = "training part" if part == "train" else f"part {part!r}"
        raise ValueError(
            f"checkpoint {folder} was trained on other images than those found now (SHA-256 of the {title} "
            f"{there[part][:12]}, now {here[part][:12]}); use the copy of the data set "
            "that it was trained on."
        )


def same_teachers(about: Mapping[str, Any], taught: Mapping[str, Any], folder: epath.Path) -> None:
    """Refuses to go on with another teacher than the one that has taught so far."""
    for name, there in about.get("teachers", {}).items():
        if there["params_sha256"] != taught[name]["params_sha256"]:
            raise ValueError(
                f"checkpoint {folder} was taught by another {name} than the one found now (SHA-256 of its parameters "
                f"{there['params_sha256'][:12]}, now {taught[name]['params_sha256'][:12]}); give that one, or start "
                "in a new workdir."
            )


def checkpoints_are_there(workdir: Path, checkpoints: epath.Path, wanted: list[str]) -> None:
    """Refuses to train phases again that are finished by the workdir's records: their checkpoints are elsewhere."""
    file = workdir / "metrics.jsonl"
    recorded = {record["phase"] for record in records.read(file)} if file.is_file() else set()
    # A phase begins when the one before it is finished, the evaluation when all are.
    finished = wanted if any((workdir / "results").glob("*.json")) else wanted[:-1] if wanted[-1] in recorded else []
    missing = [name for name in finished if name in recorded and not any((checkpoints / name).glob("[0-9]*"))]
    if missing:
        raise ValueError(
            f"{workdir} has records of a finished {missing[-1]} phase, but there is no checkpoint in "
            f"{checkpoints / missing[-1]}. Give its checkpoint.dir, or train anew in another workdir."
        )


def teacher_is_there(checkpoints: epath.Path, wanted: list[str]) -> None:
    """Refuses to go on with a student whose teacher is gone: a teacher trained again may be another network."""
    folders = {name: checkpoints / name for name in wanted}
    missing = [name for name in wanted if not any(folders[name].glob("[0-9]*"))]
    if missing == ["teacher"]:
        raise ValueError(
            f"{folders['student']} holds checkpoints, but the teacher's folder {folders['teacher']} is gone or empty. "
            "Put it back; or evaluate the student without it (--mode=evaluate); or train both anew in another workdir."
        )
