"""What separates the classes: `python -m ltrobust.diagnose RUN [RUN ...] [--column=NAME] [--out=DIR]`.

A RUN is a verdict store, a workdir (its student's last weights), or WORKDIR:NETWORK, as in `ltrobust.commands.compare`;
evaluations under the protocol `diagnose` come before others. Several models must have been evaluated on the same images
under the same protocol and threat; the first is the others' baseline. Nothing is evaluated, no JAX: `main.py
--mode=diagnose` evaluates a checkpoint first.

Writes `DIR/diagnosis.json` and `DIR/diagnosis.html`, or `diagnosis-2` and so on where one of them exists.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ltrobust.analysis import diagnose_runs
from ltrobust.report import diagnosis as page
from ltrobust.runtime.files import write_new_json, write_text
from ltrobust.runtime.preemption import Preemption
from ltrobust.runtime.terminal import accept_all_characters


def write(found: Mapping[str, Any], folder: Path) -> Path:
    """Writes a diagnosis as JSON and as a page, under the first number that is free; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = write_new_json(folder / "diagnosis.json", found, beside=".html")
    path = numbers.with_suffix(".html")
    write_text(path, page.render(found), new=True)
    return path


def evaluate_first(config: Any, workdir: Path, preemption: Preemption | None = None, *, adopt: bool = False) -> Path:
    """Evaluates a checkpoint under the protocol `diagnose`, then writes the diagnosis of its last weights.

    Returns the path of the page, in `workdir/diagnosis`. Arguments are those of `run.evaluate`.

    Raises:
      ValueError, FileNotFoundError: as `run.evaluate`.
    """
    from ltrobust import run as runs
    from ltrobust.runtime import processes  # with JAX, which the diagnosis does not need

    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.protocol = diagnose_runs.PROTOCOL
    runs.evaluate(config, workdir, preemption, adopt=adopt)
    path = None
    with processes.all_or_none():
        if processes.first():
            path = run([workdir], workdir / "diagnosis")
    return processes.share(path)


def main(arguments: list[str] | None = None) -> None:
    """Writes the diagnosis and prints its tables."""
    accept_all_characters()
    parser = argparse.ArgumentParser(prog="python -m ltrobust.diagnose", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a verdict store, a workdir, or WORKDIR:NETWORK")
    parser.add_argument("--column", help="an attack or a combination, shown in full; default: the protocol's headline")
    parser.add_argument("--out", type=Path, default=Path("diagnosis"), help="where to write; default: %(default)s")
    given = parser.parse_args(arguments)
    try:
        run(given.runs, given.out, given.column)
    except (ValueError, OSError) as error:
        sys.exit(f"ltrobust: {error}")


def run(arguments: Sequence[str | Path], out: Path, column: str | None = None) -> Path:
    """Diagnoses, writes, prints; returns the page's path.

    Raises:
      ValueError: see `diagnose`.
    """
    found = diagnose_runs.diagnose(arguments, column)
    path = write(found, out)
    print(f"{page.text(found)}\n\ndiagnosis: {path}")
    return path


if __name__ == "__main__":
    main()
