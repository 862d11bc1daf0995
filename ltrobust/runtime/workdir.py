"""The folder of one run: what lies where, and the check that a second start is the same run.

config.json                    the configuration that the run was started with
checkpoints/{teacher,student}  see `training/checkpoints.py`
metrics.jsonl, metrics.csv, tensorboard/, wandb/
                               see `training/records.py`
results/                       result cards
verdicts/                      see `evaluation/store.py`
report.html                    see `report/run_page.py`
diagnosis/                     see `commands/diagnose.py`
exports/                       see `exporter.py`
"""

import copy
import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ml_collections import ConfigDict

from ltrobust.runtime.files import is_lock, is_partial, read_json, write_json

# Phases of a run, in order; each has a folder of checkpoints.
PHASES = ("teacher", "student")
WEIGHTS = ("last", "selected", "averaged")  # of a phase
# May change between two starts of one run: where data lie and how they come to the devices, how results are looked at,
# how often is saved. What files are skipped and what classes are called is seen in the fingerprints of the data.
_FREE = (
    *("data.dir", "data.cache_dir", "data.cache_check", "data.skip_unreadable", "data.lists."),
    *("data.residence", "data.workers"),
    *("eval.", "log.", "checkpoint."),
)
# What is changed to train longer.
_LENGTH = ("student.epochs:", "student.steps:", "student.optimizer.")
# Of every configuration: they distinguish a `config.json` from other programs' files of that name.
_KEYS = {"data", "seed", "student"}
# What a run writes besides its `config.json` and `lock`.
_WRITTEN = (
    "metrics.jsonl",
    "metrics.csv",
    "tensorboard",
    "wandb",
    "checkpoints",
    "verdicts",
    "results",
    "report.html",
    "diagnosis",
    "exports",
)
# Keys whose paths are recorded as absolute ones: the run may be continued from another folder.
_PLACES = (("data", "dir"), ("data", "cache_dir"), ("checkpoint", "dir"))


def claim(workdir: Path, config: Mapping[str, Any], *, adopt: bool = False) -> None:
    """Makes the folder this configuration's (plain values), or checks that it is already.

    Raises:
      ValueError: the folder belongs to another configuration (lists the differences), or as `enter`.
    """
    enter(workdir, config, adopt=adopt)
    result = differences(read_json(workdir / "config.json"), config)
    if result:
        external = config.get("checkpoint", {}).get("dir", "")
        student = f"{external}/student" if external else f"{workdir}"
        refuse(
            f"workdir {workdir} holds a run of another configuration",
            result,
            "Give another workdir (--workdir=DIR), or start with the values on the left to continue with that run."
            + how_to_extend(result, student, Path(external or workdir / "checkpoints") / "teacher"),
        )


def refuse(title: str, lines: Sequence[str], remedy: str) -> NoReturn:
    """Raises a ValueError with lines of `differences`, one below the other."""
    raise ValueError("\n".join([f"{title}:", *(f"  {line}" for line in lines), remedy]))


def how_to_extend(found: list[str], student: str, teacher: Any) -> str:
    """Lines with the flags that train a finished student further, where differences are of its length or rates alone.

    Args:
      found: lines of `differences`.
      student: what `student.initialize` is to be.
      teacher: where the run's own teacher phase lies, if it has one.
    """
    if not all(line.startswith(_LENGTH) for line in found):
        return ""
    taught = f" --config.teachers.teacher.path={shlex.quote(str(teacher))}" if teacher.is_dir() else ""
    return (
        "\nTo train that student further, start a new run from its last weights; epochs and rates start from zero "
        "(in Python: a new workdir, and the same keys of the configuration):\n"
        f"  --workdir=NEW --config.student.initialize={shlex.quote(student)}{taught}"
    )


def enter(workdir: Path, config: Mapping[str, Any], *, adopt: bool = False) -> None:
    """Makes a folder a workdir, with this configuration in its `config.json`; one that is a workdir keeps its own.

    Args:
      workdir: the folder.
      config: plain values.
      adopt: whether files of others may be in the folder; they stay as they are.

    Raises:
      ValueError: without `adopt`, the folder holds files and none of them is the `config.json` of a run; with it, it
        holds files that a run would write to; its `config.json` is damaged or another program's; or it cannot be
        written.
    """
    try:
        file = workdir / "config.json"
        if file.exists():
            read_config(file)
            return
        if workdir.is_dir():
            _check_free(workdir) if adopt else _check_empty(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(file, _with_absolute_places(config), new=True)
    except OSError as error:
        if isinstance(error, FileExistsError) and file.exists():  # another process has just made it
            return
        raise ValueError(
            f"workdir {workdir} cannot be written ({error}); give another workdir (--workdir=DIR)."
        ) from error


def read_config(file: Path) -> dict[str, Any]:
    """The configuration in a run's `config.json`, as plain values.

    Raises:
      ValueError: the file is damaged, or another program's.
    """
    config = read_json(file)
    if not config.keys() >= _KEYS:
        raise ValueError(
            f"{file} is not the configuration of a run; give another workdir (--workdir=DIR), or the config.json of a "
            "run."
        )
    return config


def is_run(workdir: Path) -> bool:
    """Whether a folder has the `config.json` of a run.

    Raises:
      ValueError: the file is damaged.
    """
    file = workdir / "config.json"
    return file.is_file() and read_json(file).keys() >= _KEYS


def _check_empty(workdir: Path) -> None:
    """Refuses a folder that is not empty, except for the rest of a process that died while it created the workdir."""
    result = sorted(path.name for path in workdir.iterdir() if not (is_partial(path, "config.json") or is_lock(path)))
    if result and not (workdir / "config.json").exists():  # which another process may have just made
        raise ValueError(
            f"workdir {workdir} is not empty and has no config.json of a run (it holds {result[0]}"
            f"{f' and {len(result) - 1} more' if result[1:] else ''}); give another workdir (--workdir=DIR), or "
            "use this one (--adopt; in Python adopt=True)."
        )


def _check_free(workdir: Path) -> None:
    """Refuses a folder with files of the names that a run writes to."""
    lock = [] if is_lock(workdir / "lock") else ["lock"]
    taken = [name for name in (*_WRITTEN, *lock) if (workdir / name).exists()]
    if taken:
        raise ValueError(
            f"workdir {workdir} has no config.json of a run, and holds {', '.join(taken)}, which a run would write to; "
            "move them away, or give another folder."
        )


def checkpoint_dir(workdir: Path, given: str) -> str:
    """`checkpoint.dir` as an absolute path; empty for the workdir's own folder.

    A relative one is relative to the folder that the run was first started from: the place is recorded in the
    `config.json` of the workdir. It counts where it is still there and ends in the same name as the one given.
    """
    if not _is_relative(given):
        return given
    file = workdir / "config.json"
    there = read_json(file) if file.exists() else {}
    checkpoint = there.get("checkpoint", {}) if there.keys() >= _KEYS else {}  # else another program's file
    # The recorded place wins over the current folder, so that the same command finds its checkpoints from any folder.
    recorded = checkpoint.get("dir", "")
    # A folder of another name is a change that the user means.
    same = os.path.basename(os.path.normpath(recorded)) == os.path.basename(os.path.normpath(given))
    return recorded if same and os.path.isabs(recorded) and os.path.isdir(recorded) else os.path.abspath(given)


def _with_absolute_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with paths that do not depend on the current folder."""
    result = copy.deepcopy(dict(config))
    for group, key in _PLACES:
        if _is_relative(path := result[group][key]):
            result[group][key] = os.path.abspath(path)
    lists = result["data"].get("lists", {})  # of which others are found in the data's folder
    lists |= {key: os.path.abspath(path) for key, path in lists.items() if _is_relative(path) and os.path.isfile(path)}
    if "/" in (path := result["eval"]["checkpoint"]) and _is_relative(path):  # else the name of a phase
        result["eval"]["checkpoint"] = os.path.abspath(path)
    return result


def _is_relative(path: str) -> bool:
    """Whether a path means another place in another folder."""
    return bool(path) and not path.startswith(("/", "~")) and "://" not in path


def check_values(config: ConfigDict) -> None:
    """Refuses values of the right type that are invalid for every key.

    Raises:
      ValueError: no ConfigDict; None; a value that JSON does not have; a number that is not finite, or a whole one of
        2^31 or more; a seed below 0.
    """
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"the configuration is a {type(config).__name__}; give a ConfigDict, such as ltrobust.config(NAME)."
        )
    for key, value in flatten(config.to_dict()).items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise ValueError(
                f"{key} is {value!r}: {error}. Make a plain number of it by float(x) or int(x)."
            ) from error
        if ".options." in key:
            continue  # the optimiser's own
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # These values pass the type check of their key and fail deep inside JAX, where no message names the key.
        if value is None:
            raise ValueError(f"{key} is None; give it a value, or leave it out for the configuration's own.")
        if number and not (math.isfinite(value) and (isinstance(value, float) or abs(value) < 1 << 31)):
            raise ValueError(f"{key} is {value}; finite numbers are allowed, and whole ones below 2^31.")
        if key.endswith("seed") and value < 0:
            raise ValueError(f"{key} is {value}; a seed is at least 0.")


def plain(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON reads it back (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


def with_tuples(value: Any) -> Any:
    """A value of a configuration with tuples for lists, at any depth: what `plain` made lists of."""
    return tuple(with_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def differences(there: Mapping[str, Any], here: Mapping[str, Any], only: tuple[str, ...] = ("",)) -> list[str]:
    """Lines `key: value there -> value here` for every key that matters, under one of the prefixes `only`.

    Settings of a method or network that is registered on one side only do not matter if neither side uses it: a package
    that was installed in the meantime must not end a run.
    """
    flat_there, flat_here = flatten(used(there, here)), flatten(used(here, there))
    # Keys that exist on one side only count as differences: a newer version may have added a default that matters.
    keys = [key for key in sorted(flat_there.keys() | flat_here.keys()) if not key.startswith(_FREE)]
    return [
        f"{key}: {flat_there.get(key, 'absent')!r} -> {flat_here.get(key, 'absent')!r}"
        for key in keys
        if key.startswith(only) and flat_there.get(key, "absent") != flat_here.get(key, "absent")
    ]


def used(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without settings of methods and networks that neither side uses and `other` does not list."""
    names = [*_names(config), *_names(other)]
    result = dict(config)
    for group in ("methods", "model"):
        if isinstance(config.get(group), Mapping):
            listed = _group(other, group)
            result[group] = {
                key: value
                for key, value in config[group].items()
                if not isinstance(value, Mapping) or key in listed or key in names
            }
    return result


def _names(config: Mapping[str, Any]) -> Iterator[Any]:
    """The network, methods and wrappers that a configuration names; files may hold anything."""
    yield _group(config, "model").get("name")
    for phase in (_group(config, name) for name in PHASES):
        yield phase.get("method")
        wrappers = phase.get("wrappers")
        yield from wrappers if isinstance(wrappers, list | tuple) else ()


def _group(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The keys of a group; empty if there is no such group."""
    group = config.get(name)
    return group if isinstance(group, Mapping) else {}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested mapping by dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
