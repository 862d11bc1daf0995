"""Checkpoints of a phase, by orbax: numbered folders under `<workdir>/checkpoints/<phase>/`, written atomically.

Each holds the last `weights`, the moving average `averaged` where there is one, `selection` (the best weights so far
and what the rule needs), `rest` (everything else that training needs) and `about` (JSON: configuration, split
fingerprints, class counts), so that one folder is enough to evaluate or to go on.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from ltrobust.training.state import Selection, TrainState, Weights, create_selection

FORMAT = 1


def folder_in(path: Path) -> Path | None:
    """The folder of checkpoints that a path means: a workdir's student's, or itself; None where there is neither."""
    return next((folder for folder in (path / "checkpoints" / "student", path) if folder.is_dir()), None)


class Checkpoints:
    """The checkpoints of one phase: a thin, typed front of orbax's manager.

    Args:
      folder: `<workdir>/checkpoints/<phase>`.
      keep: how many of the newest are kept.
      read_only: for evaluation; nothing is created.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int = 2, read_only: bool = False):
        self.folder = epath.Path(folder).absolute()
        if read_only and not self.folder.is_dir():
            raise FileNotFoundError(
                f"no checkpoints in {self.folder}; train first, or give eval.checkpoint another path."
            )
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=not read_only, read_only=read_only)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, selection: Selection, about: Mapping[str, Any]) -> None:
        """Copies the state to the host and writes it while training goes on."""
        items: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in _items(state, selection).items()}  # pyright: ignore
        items["about"] = ocp.args.JsonSave({"format": FORMAT, **about})  # pyright: ignore[reportCallIssue]
        self._manager.save(int(state.step), args=ocp.args.Composite(**items))

    def about(self) -> dict[str, Any]:
        """The newest checkpoint's JSON part.

        Raises:
          FileNotFoundError: there is no complete checkpoint.
          ValueError: it was written by a newer version.
        """
        step = self.latest()
        if step is None:
            raise FileNotFoundError(f"no complete checkpoint in {self.folder}; train first.")
        about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about  # pyright: ignore
        if about["format"] > FORMAT:
            raise ValueError(
                f"checkpoint {self.folder / str(step)} has format {about['format']}, this version reads up to {FORMAT};"
                " install the version of ltrobust that wrote it."
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
        found = {"last": restored["weights"]}
        if int(restored["selection"].epoch) > 0:
            found["selected"] = restored["selection"].weights
        if "averaged" in restored:
            found["averaged"] = restored["averaged"]
        return found

    def _restore(self, items: Mapping[str, Any]) -> Any:
        """The named items of the newest checkpoint, shaped and placed like the given ones."""
        step = self.latest()
        for name, item in items.items():
            self._check_same_tree(step, name, item)
        wanted = {name: ocp.args.StandardRestore(item) for name, item in items.items()}  # pyright: ignore
        return self._manager.restore(step, args=ocp.args.Composite(**wanted))

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and releases the manager's threads."""
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


def _items(state: TrainState, selection: Selection) -> dict[str, Any]:
    """The parts that a checkpoint stores under names of their own."""
    rest = dataclasses.replace(state, weights=None, averaged=None)
    items = {"weights": state.weights, "selection": selection, "rest": rest}
    return items if state.averaged is None else {**items, "averaged": state.averaged}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Flat names and shapes of every array in a tree, the same for dataclasses and for the dicts that orbax stores."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {".".join(_key(part) for part in path): tuple(leaf.shape) for path, leaf in flat}


def _key(part: Any) -> str:
    """One step of a path, whichever container it goes through."""
    for attribute in ("name", "key", "idx"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)
