"""Checkpoints of a phase, by orbax: numbered folders under `<workdir>/checkpoints/<phase>/`, written atomically.

Each holds the last `weights`, the moving average `averaged` where there is one, `selection` (the best weights so far
and what the rule needs), `rest` (everything else that training needs) and `about` (JSON: configuration, split
fingerprints, class counts). So one folder is enough to evaluate or to resume, and no checkpoint is kept for being the
best. What `about` holds is defined in `metadata.py`.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from ltrobust.runtime import processes
from ltrobust.training import checksums
from ltrobust.training.state import Selection, TrainState, Weights, create_selection

# A checkpoint of another format is refused.
FORMAT = 3


def folder_in(path: epath.PathLike) -> epath.Path | None:
    """Folder of checkpoints for a path: that of a workdir's student, or the path itself; None if neither exists."""
    path = epath.Path(path)
    places = [path / "checkpoints" / "student", path]
    if (path / "config.json").is_file() and "student" in (run := json.loads((path / "config.json").read_text())):
        external = run.get("checkpoint", {}).get("dir", "")  # another place for the checkpoints, if it is not empty
        places[1:1] = [epath.Path(external) / "student"] if external else []
    return next((folder for folder in places if folder.is_dir()), None)


class Checkpoints:
    """Checkpoints of one phase: a thin, typed interface to orbax's manager.

    A checkpoint that cannot be written does not end training: the failure is reported when the next one is begun,
    and `wait` raises if none came after it. What is left of it has no number and is removed by the next writer.

    Args:
      folder: `<workdir>/checkpoints/<phase>`.
      keep: how many of the newest are kept. One is not enough where a damaged one is to be replaced.
      read_only: for evaluation; nothing is created, renamed or removed.

    Raises:
      FileNotFoundError: `read_only`, and there is no such folder.
      ValueError: there are checkpoints, and all are damaged (says how, and what to do).
    """

    def __init__(self, folder: epath.PathLike, *, keep: int = 2, read_only: bool = False):
        self.folder = epath.Path(folder).absolute()
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(
                f"no checkpoints in {self.folder}; train first, or give eval.checkpoint another path."
            )
        self._keep, self._read_only = keep, read_only
        with processes.all_or_none():  # the first process looks for all
            damaged = _pass_over_damaged(self.folder, rename=not read_only) if processes.first() else None
        self._damaged: set[int] = processes.share(damaged)
        # Of the save that was begun last.
        self._step, self._bytes = 0, 0
        self._failure: OSError | None = None
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        """Orbax's manager. One that writes removes first what an earlier one left half-written."""
        # Orbax itself would do that in a thread, and might remove the folder of a new save of the same step.
        if not self._read_only and processes.first():
            for half_written in self.folder.glob("*.orbax-checkpoint-tmp*"):
                with contextlib.suppress(OSError):  # a failed save may still write here; the next start removes it
                    half_written.rmtree()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            create=not self._read_only,
            read_only=self._read_only,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def _write_checksums(self) -> None:
        """Called by orbax, in its own thread, when the items are on disk and their folder has no number yet."""
        # They are there before the number, so a numbered folder without them is damaged. Orbax itself restores arrays
        # with flipped bits. In a bucket there is no renaming: the folder has its number, and is complete with a file
        # that is written last.
        checksums.write(next(self.folder.glob(f"{self._step}.orbax-checkpoint-tmp*"), self.folder / str(self._step)))

    def latest(self) -> int | None:
        """The newest sound checkpoint's step, or None."""
        return max((step for step in self._manager.all_steps() if step not in self._damaged), default=None)

    def save(self, state: TrainState, selection: Selection, about: Mapping[str, Any]) -> None:
        """Copies the state to the host and writes it while training continues. Existing steps are not overwritten."""
        if failure := self.settle():
            print(f"\n{failure} Training continues; this is the next attempt.")
        step, items = int(state.step), _items(state, selection)
        if step == self.latest():  # saved by an earlier start
            return
        self._step, self._bytes = step, sum(leaf.nbytes for leaf in jax.tree.leaves(items))
        args: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}  # pyright: ignore
        args["about"] = ocp.args.JsonSave({"format": FORMAT, **about})  # pyright: ignore[reportCallIssue]
        try:
            self._manager.save(step, args=ocp.args.Composite(**args))
        except Exception as error:  # training continues: its state is in memory, and a later save may succeed
            self._give_up(error)

    def settle(self) -> OSError | None:
        """Waits for the save in progress; returns the error of the last one, once, or None."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._give_up(error)
        failure, self._failure = self._failure, None
        return failure

    def wait(self) -> None:
        """Returns when the last save is on disk.

        Raises:
          OSError: it could not be written (says how much space there is, and how much it takes).
        """
        if failure := self.settle():
            raise OSError(f"{failure} Then give the same command again.") from failure.__cause__

    def _give_up(self, error: Exception) -> None:
        """Keeps the error of a failed save, and opens a new manager, which removes what the save left."""
        if processes.several():
            raise error  # the others wait for this one, and would not start over with it
        try:
            free = f"{shutil.disk_usage(self.folder).free / 1e6:.1f} MB were free there"
        except OSError:  # a bucket
            free = "it is not known how much is free there"
        with contextlib.suppress(Exception):
            self._manager.close()
        self._manager = self._open()
        reason = str(error).rpartition(": ")[2] if "os_error_code" in str(error) else str(error)
        newest = self.latest()
        self._failure = OSError(
            f"checkpoint {self.folder / str(self._step)} could not be written ({reason}): "
            f"{free}, and it takes about {self._size(newest) / 1e6:.1f} MB. "
            f"{'There is no older one' if newest is None else f'The newest one is still {self.folder / str(newest)}'}. "
            "Free space on that disk or raise the quota; checkpoint.keep says how many are kept."
        )
        self._failure.__cause__ = error

    def _size(self, step: int | None) -> int:
        """Bytes that a checkpoint takes: those of the given one on disk, or else those of the arrays."""
        if step is None:
            return self._bytes
        return sum(path.stat().length for path in checksums.files(self.folder / str(step)))

    def about(self) -> dict[str, Any]:
        """The newest checkpoint's JSON part, as it was given to `save`; `metadata.read` reads it as what it is.

        Raises:
          FileNotFoundError: there is no complete checkpoint.
          ValueError: it has another format.
        """
        step = self.latest()
        if step is None:
            raise FileNotFoundError(f"no complete checkpoint in {self.folder}; train first.")
        about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about  # pyright: ignore
        if (number := about.pop("format", None)) != FORMAT:
            raise ValueError(
                f"checkpoint {self.folder / str(step)} has format {number}, this version reads {FORMAT}; use the "
                "version of ltrobust that wrote it, or train again in another workdir."
            )
        return about

    def restore(self, state: TrainState, selection: Selection) -> tuple[TrainState, Selection]:
        """The newest checkpoint, shaped and placed like the given ones.

        Raises:
          ValueError: it belongs to another architecture, method or optimiser (names the first difference).
        """
        restored = self._restore(_items(state, selection))
        state = dataclasses.replace(restored["rest"], weights=restored["weights"], averaged=restored.get("averaged"))
        return state, restored["selection"]

    def restore_weights(self, template: Weights) -> dict[str, Weights]:
        """Only what evaluation needs: `last`, `selected` (if validation chose any) and `averaged` (if there is one).

        Raises:
          ValueError: another architecture than the template's.
        """
        items: dict[str, Any] = {"weights": template, "selection": create_selection(template)}
        if (self.folder / str(self.latest()) / "averaged").is_dir():
            items["averaged"] = template
        restored = self._restore(items)
        result = {"last": restored["weights"]}
        if int(restored["selection"].epoch) > 0:
            result["selected"] = restored["selection"].weights
        if "averaged" in restored:
            result["averaged"] = restored["averaged"]
        return result

    def _restore(self, items: Mapping[str, Any]) -> Any:
        """The named items of the newest checkpoint, shaped and placed like the given ones."""
        step = self.latest()
        # Another architecture is not damage: no older checkpoint is tried for it.
        for name, item in items.items():
            self._check_same_tree(step, name, item)
        wanted = {name: ocp.args.StandardRestore(item) for name, item in items.items()}  # pyright: ignore
        return self._manager.restore(step, args=ocp.args.Composite(**wanted))

    def close(self) -> None:
        """Waits, prints what could not be written, and releases the manager's threads."""
        if failure := self.settle():
            print(f"\n{failure}")
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_same_tree(self, step: int | None, name: str, item: Any) -> None:
        """Compares the names and shapes on disk with those expected, before orbax reads a byte."""
        stored = ocp.StandardCheckpointHandler().metadata(self.folder / str(step) / name)
        found = _shapes(getattr(stored, "item_metadata", stored) or stored)
        wanted = _shapes(item)
        for path in sorted(set(found) ^ set(wanted)) + sorted(
            p for p in set(found) & set(wanted) if found[p] != wanted[p]
        ):
            raise ValueError(
                f"checkpoint {self.folder / str(step)} does not fit: {name}.{path} is {found.get(path, 'absent')} there"
                f" and {wanted.get(path, 'absent')} in this configuration; it was written with another architecture, "
                "method or optimiser. Use the configuration that wrote it."
            )


def _pass_over_damaged(folder: epath.Path, *, rename: bool) -> set[int]:
    """Finds the newest undamaged checkpoint, prints what is wrong with newer ones, and renames them if asked.

    Returns the steps of those that still have their numbers. Nothing is renamed where no checkpoint is sound: a later
    start would take the folder for an empty one and train again.
    """
    steps = sorted((int(path.name) for path in folder.glob("*") if path.name.isdigit()), reverse=True)
    result: dict[int, str] = {}
    sound = None
    for step in steps:
        damage = checksums.find_damage(folder / str(step))
        if damage is None:
            sound = folder / str(step)
            break
        if (folder / str(step)).is_dir():  # else a run that is under way has just removed it
            result[step] = damage
    if result and sound is None:
        raise ValueError(
            f"all checkpoints in {folder} are damaged:\n"
            + "\n".join(f"  {step}: {damage}" for step, damage in result.items())
            + "\nPut an undamaged copy of one in its place, or move that folder away to begin the phase again."
        )
    for step, damage in result.items():
        folder_of_step = folder / str(step)
        kept = _set_aside(folder_of_step) if rename else folder_of_step
        print(
            f"checkpoint {folder_of_step} is damaged ({damage}); {sound} is used instead. "
            f"The damaged one is kept as {kept.name}."
        )
    return set() if rename else set(result)


def _set_aside(folder: epath.Path) -> epath.Path:
    """Renames a folder to `<name>.damaged`, or `.damaged-2` and so on; returns the new path."""
    number, path = 1, folder.with_name(folder.name + ".damaged")
    while path.exists():
        number += 1
        path = folder.with_name(f"{folder.name}.damaged-{number}")
    return folder.rename(path)


def _items(state: TrainState, selection: Selection) -> dict[str, Any]:
    """Parts that a checkpoint stores under separate names."""
    rest = dataclasses.replace(state, weights=None, averaged=None)
    items = {"weights": state.weights, "selection": selection, "rest": rest}
    return items if state.averaged is None else {**items, "averaged": state.averaged}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Flat names and shapes of every array in a tree, the same for dataclasses and for the dicts that orbax stores."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(_key(part) for part in path): tuple(leaf.shape) for path, leaf in flat}


def _key(part: Any) -> str:
    """One step of a path, whichever container it goes through."""
    return next(str(getattr(part, name)) for name in ("name", "key", "idx") if hasattr(part, name))
