"""Reads the Python file of a sweep (its form: `sweep.py`)."""

import dataclasses
import itertools
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltrobust import recipes
from ltrobust.report import grid
from ltrobust.runtime import workdir


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run: its variant, its place on the axes, and what it changes in the configuration."""

    variant: str
    place: Mapping[str, Any]
    changes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`at_bsl-imbalance_ratio50.0-seed0`: the name of its folder."""
        return "-".join([self.variant, *(f"{key.rsplit('.')[-1]}{value}" for key, value in self.place.items())])


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The cells of a sweep in their order: all variants at the first place on the axes, then at the next."""

    config: str
    protocol: str
    cells: tuple[Cell, ...]
    primary: tuple[str, str] = grid.PRIMARY

    def config_of(self, cell: Cell) -> Any:
        """The configuration of a cell's run."""
        return _configure(self.config, cell)


def read(file: Path, out: Path) -> Sweep:
    """The sweep that a file describes.

    Raises:
      ValueError: no such file, a missing name in it, a key that the configuration does not have, a value of another
        type, or two cells of one name.
    """
    if not file.is_file():
        raise ValueError(f"there is no sweep {file}; give a Python file with CONFIG, VARIANTS and AXES.")
    result = runpy.run_path(str(file))
    missing = [name for name in ("CONFIG", "VARIANTS", "AXES") if name not in result]
    if missing:
        raise ValueError(f"sweep {file} lacks {', '.join(missing)}; a sweep names CONFIG, VARIANTS and AXES.")
    cells = []
    for values in itertools.product(*result["AXES"].values()):
        place = dict(zip(result["AXES"], values, strict=True))
        names = {"out": out, **{key.rsplit(".")[-1]: value for key, value in place.items()}}
        for variant, given in result["VARIANTS"].items():
            changes: Any = given(place) if callable(given) else given
            filled = {key: v.format(**names) if isinstance(v, str) else v for key, v in changes.items()}
            cells.append(Cell(variant, place, place | filled))
    if len({cell.name for cell in cells}) < len(cells):
        raise ValueError(f"sweep {file} has cells of the same name; the last parts of the axes' keys must differ.")
    protocols = {_configure(result["CONFIG"], cell).eval.protocol for cell in cells}
    if len(protocols) > 1:
        raise ValueError(f"sweep {file} evaluates by {', '.join(sorted(protocols))}; one table has one protocol.")
    primary, variants = result.get("PRIMARY", grid.PRIMARY), {cell.variant for cell in cells}
    if "PRIMARY" in result and not (len(primary) == 2 and set(primary) <= variants):
        raise ValueError(f"sweep {file} has PRIMARY {primary!r}; give two variants: {', '.join(sorted(variants))}.")
    return Sweep(result["CONFIG"], protocols.pop(), tuple(cells), tuple(primary))


def _configure(file: str, cell: Cell) -> Any:
    """The configuration with the cell's changes."""
    config: Any = recipes.load(file)
    config.eval.also = ()  # one table has one evaluation of each run
    for key, value in cell.changes.items():
        try:
            value = _of_type(config, key, value)
            config.update_from_flattened_dict({key: value})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{cell.name}: {key} cannot be {value!r} in {file}: {error}") from error
    return config


def _of_type(config: Any, key: str, value: Any) -> Any:
    """A number for a filled text such as `"{seed}"`, where the configuration has a number."""
    result: Any = workdir.flatten(config.to_dict()).get(key)
    number = isinstance(result, int | float) and not isinstance(result, bool)
    return type(result)(value) if number and isinstance(value, str) else value
