"""Reads the Python file of a sweep (its form: `sweep.py`)."""

import dataclasses
import itertools
import runpy
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltrobust import recipes
from ltrobust.commands import sweep_slurm
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
    primary: tuple[str, str] | None = None
    slurm: sweep_slurm.Slurm | None = None

    def config_of(self, cell: Cell) -> Any:
        """The configuration of a cell's run."""
        return _configure(self.config, cell)


def read(file: Path, out: Path) -> Sweep:
    """The sweep that a file describes.

    Raises:
      ValueError: no such file, an error in it, a missing name, a name or value that is not allowed, a key that the
        configuration does not have, a value of another type, or two cells of one name or one experiment.
    """
    result = _execute(file)
    config, variants, axes = (result[name] for name in ("CONFIG", "VARIANTS", "AXES"))
    _check_names(file, config, variants, axes)
    cells = []
    for values in itertools.product(*axes.values()):
        place = dict(zip(axes, values, strict=True))
        for variant, given in variants.items():
            cells.append(Cell(variant, place, place | _changes(f"sweep {file}, variant {variant}", given, place, out)))
    for cell in cells:
        if set(cell.name) & set("/\\"):
            raise ValueError(f"sweep {file} has a cell {cell.name!r}; give axes values without slashes, or variants.")
    if len({cell.name for cell in cells}) < len(cells):
        raise ValueError(f"sweep {file} has cells of the same name; the last parts of the axes' keys must differ.")
    try:
        configs = {cell.name: _configure(config, cell) for cell in cells}
    except ValueError as error:
        raise ValueError(f"sweep {file}, {error}") from error
    _check_different(file, cells, {name: result.to_dict() for name, result in configs.items()})
    protocols = {result.eval.protocol for result in configs.values()}
    if len(protocols) > 1:
        raise ValueError(f"sweep {file} evaluates by {', '.join(sorted(protocols))}; one table has one protocol.")
    primary = _primary(file, result["PRIMARY"], variants) if "PRIMARY" in result else _default_primary(variants)
    slurm = sweep_slurm.read(file, result["SLURM"]) if "SLURM" in result else None
    return Sweep(config, protocols.pop(), tuple(cells), primary, slurm)


def _execute(file: Path) -> dict[str, Any]:
    """The names that a sweep's file defines."""
    if not file.is_file():
        raise ValueError(f"there is no sweep {file}; give a Python file with CONFIG, VARIANTS and AXES.")
    try:
        result = runpy.run_path(str(file))
    except (Exception, SystemExit) as error:  # a file is a program: anything may be raised in it
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        where = f" in line {lines[-1]}" if lines else ""
        raise ValueError(f"sweep {file} cannot be read: {_describe(error)}{where}.") from error
    missing = [name for name in ("CONFIG", "VARIANTS", "AXES") if name not in result]
    if missing:
        raise ValueError(f"sweep {file} lacks {', '.join(missing)}; a sweep names CONFIG, VARIANTS and AXES.")
    return result


def _describe(error: BaseException) -> str:
    """An error's type and text, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(".").removesuffix(":")


def _check_names(file: Path, config: Any, variants: Any, axes: Any) -> None:
    """Refuses CONFIG, VARIANTS and AXES of another form."""
    if not isinstance(config, str):
        raise ValueError(f"sweep {file} has CONFIG {config!r}; give a text, such as 'configs/digits.py'.")
    if not isinstance(variants, Mapping) or not variants:
        raise ValueError(f"sweep {file} has VARIANTS {variants!r}; give a dict of at least one name and its changes.")
    for name in variants:
        # A name begins the name of a folder in --out.
        if not isinstance(name, str) or not name.isprintable() or name[:1] in ("", ".") or set(name) & set("/\\"):
            raise ValueError(
                f"sweep {file} has a variant {name!r}; a name is a text without slashes that does not begin with a dot."
            )
    if not isinstance(axes, Mapping):
        raise ValueError(f"sweep {file} has AXES {axes!r}; give a dict of keys and their values: {{'seed': (0, 1)}}.")
    for key, values in axes.items():
        if not isinstance(key, str):
            raise ValueError(f"sweep {file} has {key!r} in AXES; give a key of the configuration, such as 'seed'.")
        if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
            raise ValueError(f"sweep {file} has {values!r} for {key} in AXES; give a tuple of at least one value.")


def _check_different(file: Path, cells: Sequence[Cell], configs: Mapping[str, Any]) -> None:
    """Refuses two cells of a variant with the same configuration, such as those of 1 and 1.0 on an axis."""
    for one, other in itertools.combinations(cells, 2):
        if one.variant == other.variant and configs[one.name] == configs[other.name]:
            raise ValueError(
                f"sweep {file} has cells {one.name} and {other.name} of the same configuration; leave one value out "
                "of AXES."
            )


def _changes(title: str, given: Any, place: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """A variant's changes at a place on the axes, with its texts filled. `title` begins messages."""
    try:
        changes: Any = given(dict(place)) if callable(given) else given
    except (Exception, SystemExit) as error:  # a function of the user's
        raise ValueError(f"{title}: its function fails at {dict(place)}: {_describe(error)}.") from error
    if not isinstance(changes, Mapping):
        raise ValueError(
            f"{title} has changes {changes!r}; give a dict of keys and values, or a function of the place on the axes "
            "that returns one."
        )
    names = {"out": out, **{key.rsplit(".")[-1]: value for key, value in place.items()}}
    result = {}
    for key, value in changes.items():
        if not isinstance(key, str):
            raise ValueError(f"{title} changes {key!r}; give a key of the configuration, such as 'student.method'.")
        try:
            result[key] = value.format(**names) if isinstance(value, str) else value
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            known = ", ".join(f"{{{name}}}" for name in names)
            raise ValueError(f"{title}: {key} is {value!r}; it may have {known}, and {{{{ for a brace.") from error
    return result


def _primary(file: Path, given: Any, variants: Mapping[str, Any]) -> tuple[str, str]:
    """The two variants of PRIMARY. Their order is the sign of the difference, and a set has none."""
    names = list(given) if isinstance(given, tuple | list) else []
    if len(names) == 2 and all(isinstance(name, str) and name in variants for name in names) and names[0] != names[1]:
        return names[0], names[1]
    raise ValueError(
        f"sweep {file} has PRIMARY {given!r}; give a tuple of two different variants: {', '.join(sorted(variants))}."
    )


def _default_primary(variants: Mapping[str, Any]) -> tuple[str, str] | None:
    """The comparison of a sweep that declares none; None where it lacks one of the two variants."""
    return grid.PRIMARY if set(grid.PRIMARY) <= set(variants) else None


def _configure(file: str, cell: Cell) -> Any:
    """The configuration with the cell's changes."""
    config: Any = recipes.load(file)
    config.eval.also = ()  # one table has one evaluation of each run
    for key, value in cell.changes.items():
        try:
            value = _of_type(config, key, value)
            config.update_from_flattened_dict({key: value})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{cell.name}: {_why(config, key, value, file, error)}") from error
    return config


def _why(config: Any, key: str, value: Any, file: str, error: Exception) -> str:
    """Why a key cannot have a value, as `ltrobust train` says it where the key does not exist."""
    try:
        recipes.check_override(config, key, str(value))
    except ValueError as reason:
        return str(reason)
    return f"{key} cannot be {value!r} in {file}: {error}"


def _of_type(config: Any, key: str, value: Any) -> Any:
    """A number for a filled text such as `"{seed}"`, where the configuration has a number."""
    if not isinstance(value, str):
        return value
    result: Any = workdir.flatten(config.to_dict()).get(key)
    number = isinstance(result, int | float) and not isinstance(result, bool)
    return type(result)(value) if number else value
