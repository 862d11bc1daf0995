"""Does many runs, one after the other or as jobs, and makes one table of them.

    ltrobust sweep configs/sweeps/digits.py --out=DIR [--only=VARIANT,...] [--table] [--code=FILE.py]
    ltrobust sweep configs/sweeps/digits.py --out=DIR --launcher=local|slurm [--jobs=N]

A sweep is a Python file that names three things, and may declare its primary comparison and what jobs ask Slurm for:

    CONFIG = "configs/digits.py"                                           the configuration of every run
    VARIANTS = {"pgd_at": {"student.method": "pgd_at"}, ...}               changes under a name, one row each
    AXES = {"data.imbalance_ratio": (10.0, 50.0), "seed": (0, 1, 2)}       every variant with every combination
    PRIMARY = ("self_distillation", "at_bsl")      first minus second, the default: tail accuracy under `standard`
    SLURM = {"time": 240, "partition": "gpu", "gpus_per_node": 1}          minutes, partition and GPUs of each job

Changes may also be a function of the place on the axes, which gives them. In a changed value, {out} is the sweep's
folder and {seed} (the last part of an axis' key) that axis' value, so that a run can name the folder of an earlier one;
"{seed}" is a number where the key's value is one. Every cell is `ltrobust train` in a separate process and folder; one
that fails is reported and skipped. The same command again resumes: finished cells are skipped, begun ones resumed.
A second sweep with the same folder works beside the first on other cells.

With `--launcher`, every cell is a job (the extra `slurm` installs submitit). A job that is asked to stop saves, is
requeued and resumes. Jobs survive this command: the same command again continues. Further keys of SLURM: cpus_per_task,
mem, array_parallelism (jobs at a time), setup (lines of shell), and sbatch, a dict of all other options.
"""

import dataclasses
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ltrobust import recipes
from ltrobust.analysis import cards
from ltrobust.analysis.schema.card import Card
from ltrobust.commands import sweep_cell, sweep_jobs
from ltrobust.commands.parser import Parser, load_code
from ltrobust.commands.sweep_file import Sweep, read
from ltrobust.report import grid
from ltrobust.runtime.files import write_text
from ltrobust.runtime.names import nearest
from ltrobust.runtime.preemption import Preemption

# A cell's states; `running`: another process trains it.
STATES = ("finished", "failed", "running")


def run(sweep: Sweep, out: Path, code: Sequence[str] = ()) -> dict[str, str]:
    """Works through the cells; prints a line for each. Returns states by name.

    `code` are files or modules that every run imports first.

    Raises:
      Preempted: the process was asked to stop; the cell at work has saved.
    """
    states: dict[str, str] = {}
    began, worked = time.monotonic(), 0
    with Preemption().listening():
        for number, cell in enumerate(sweep.cells, start=1):
            folder = out / cell.name
            title = f"[{number}/{len(sweep.cells)}] {cell.name}"
            try:
                if sweep_cell.finished(sweep, cell, out):
                    states[cell.name] = "finished"
                    continue
            except ValueError as error:
                states[cell.name] = "failed"
                print(f"{title}: {error}", flush=True)
                continue
            if sweep_cell.at_work(folder):
                states[cell.name] = "running"
                print(f"{title}: another process is at it", flush=True)
                continue
            print(f"{title}: begins{_left(sweep, out, number, began, worked)}", flush=True)
            states[cell.name] = sweep_cell.train(sweep, cell, folder, code)
            worked += 1
            print(f"{title}: {states[cell.name]}", flush=True)
    return states


def _left(sweep: Sweep, out: Path, number: int, began: float, worked: int) -> str:
    """When the rest may be done, by the cells that this process has worked on."""
    if not worked:
        return ""
    open_cells = sum(sweep_cell.card_of(out / cell.name, sweep.protocol) is None for cell in sweep.cells[number - 1 :])
    minutes = (time.monotonic() - began) / worked * open_cells / 60
    return f"; {open_cells} left, about {minutes:.0f} minutes"


def labelled_cards(sweep: Sweep, out: Path, reported: Collection[str] = ()) -> Iterator[tuple[tuple[str, ...], Card]]:
    """The cards of finished cells, each with its row: the variant, and its place on the axes other than the seed.

    Prints why a cell of another configuration is left out, except for those in `reported`.
    """
    for cell in sweep.cells:
        try:
            card = sweep_cell.finished(sweep, cell, out)
        except ValueError as error:
            if cell.name not in reported:
                print(f"{cell.name} is not in the table: {error}", flush=True)
            continue
        if card is not None:
            yield (
                (cell.variant, *(str(value) for key, value in cell.place.items() if key != "seed")),
                cards.read(card),
            )


def _only(sweep: Sweep, names: str | None) -> Sweep:
    """The cells of some variants, by names with commas between; the sweep itself for None.

    Raises:
      ValueError: an unknown variant, or no name.
    """
    if names is None:
        return sweep
    wanted, known = [name.strip() for name in names.split(",") if name.strip()], {cell.variant for cell in sweep.cells}
    if not wanted:
        raise ValueError(f"--only={names} names no variant; variants: {', '.join(sorted(known))}.")
    for name in wanted:
        if name not in known:
            raise ValueError(f"--only has {name!r}; {nearest(name, known)}variants: {', '.join(sorted(known))}.")
    return dataclasses.replace(sweep, cells=tuple(cell for cell in sweep.cells if cell.variant in wanted))


def _table(sweep: Sweep, axes: Sequence[str], labelled: Sequence[tuple[tuple[str, ...], Card]]) -> str:
    """The tables of the finished cells, and the primary comparison, if there is one, at each place on the axes."""
    if not labelled:
        return f"0 of {_cells(len(sweep.cells))} {'is' if len(sweep.cells) == 1 else 'are'} finished\n"
    parts = [grid.render(("variant", *axes), labelled)]
    if sweep.primary is None:
        return parts[0]
    for place in dict.fromkeys(names[1:] for names, _ in labelled):
        where = ", ".join(f"{axis} {value}" for axis, value in zip(axes, place, strict=True))
        found = grid.render_primary([(names[0], card) for names, card in labelled if names[1:] == place], sweep.primary)
        parts.append(f"{where}: {found}" if where else found)
    return "\n".join(parts)


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def main(arguments: Sequence[str], program: str) -> None:
    """Works through a sweep and prints its table, which is also written to `DIR/table.md`.

    `--table` with `--only` prints a part of the table and writes nothing.

    Raises:
      ValueError: a mistake in the sweep.
      Preempted: the process was asked to stop.
      SystemExit: status 1, a cell failed.
    """
    parser = Parser(program, __doc__)
    parser.add_argument("sweep", type=Path, metavar="FILE", help="Python file with CONFIG, VARIANTS and AXES")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument("--only", metavar="VARIANT,...", help="variants to run, or to print; default: all")
    parser.add_argument("--table", action="store_true", help="only the table of what is finished")
    parser.add_argument("--launcher", metavar="local|slurm", help="run cells as jobs; default: one after the other")
    parser.add_argument("--jobs", type=int, metavar="N", help="local jobs in DIR at a time; default: by GPUs or cores")
    parser.add_code()
    given = parser.parse_args(arguments)
    recipes.importable()
    load_code(given.code)
    sweep = read(Path(recipes.find(str(given.sweep))), given.out)
    chosen = _only(sweep, given.only)
    if given.table:
        states = {}
    elif given.launcher is None and given.jobs is None:
        states = run(chosen, given.out, given.code)
    else:
        launcher = sweep_jobs.make(given.launcher, given.out, sweep.slurm, given.jobs)
        states = sweep_jobs.run(chosen, given.out, given.code, launcher)
    axes = [key for key in sweep.cells[0].place if key != "seed"]
    printed = chosen if given.table else sweep
    table = _table(sweep, axes, list(labelled_cards(printed, given.out, states)))
    if printed is sweep:  # a part does not replace the whole table
        given.out.mkdir(parents=True, exist_ok=True)
        write_text(given.out / "table.md", table)
    print(f"\n{table}")
    names = (*STATES, "waiting") if "waiting" in states.values() else STATES
    counts = ", ".join(f"{sum(state == name for state in states.values())} {name}" for name in names)
    if not given.table:
        print(f"{_cells(len(states))}: {counts}; table: {given.out / 'table.md'}")
    if "failed" in states.values():
        sys.exit(1)
