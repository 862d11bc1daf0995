"""Finds what separates the classes of evaluated networks, and writes it as a page and as JSON.

    ltrobust diagnose RUN [RUN ...] [--column=NAME] [--out=DIR]
    ltrobust diagnose --workdir=DIR [--config=FILE] [--config.KEY=VALUE ...]

The first line evaluates nothing. A RUN is a verdict store, a workdir (its student's last weights), or WORKDIR:NETWORK;
evaluations under the protocol diagnose come before others. Several must have been evaluated on the same images under
the same protocol and threat; the first is the baseline of the others.

The second line evaluates a checkpoint under the protocol diagnose, then diagnoses it in DIR/diagnosis; its flags are
those of `ltrobust evaluate`.

Written are diagnosis.json and diagnosis.html, or diagnosis-2 and so on where one of them exists.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltrobust.analysis import diagnose_runs
from ltrobust.analysis.schema.diagnosis import Diagnosis
from ltrobust.commands.parser import Parser
from ltrobust.report import diagnosis
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import write_new_json, write_text
from ltrobust.runtime.preemption import Preemption


def write(found: Diagnosis, folder: Path) -> Path:
    """Writes a diagnosis as JSON and as a page, under the first number that is free; returns the page's path."""
    from ltrobust.report import diagnosis_page  # Altair takes a second to import

    folder.mkdir(parents=True, exist_ok=True)
    numbers = write_new_json(folder / "diagnosis.json", typed_json.plain(found), beside=".html")
    path = numbers.with_suffix(".html")
    write_text(path, diagnosis_page.render(found), new=True)
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


def main(arguments: Sequence[str], program: str) -> None:
    """Writes the diagnosis and prints its tables.

    Raises:
      ValueError: runs that cannot be diagnosed.
    """
    if any(re.match(r"--?(no)?(config|workdir)\b", word) for word in arguments):
        main_of_checkpoint(arguments, program)
        return
    parser = Parser(program, __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="verdict store, workdir, or WORKDIR:NETWORK")
    parser.add_argument("--column", help="attack or combination, shown in full; default: the protocol's headline")
    parser.add_argument(
        "--out", type=Path, default=Path("diagnosis"), metavar="DIR", help="where to write; default: %(default)s"
    )
    given = parser.parse_args(arguments)
    run(given.runs, given.out, given.column)


def main_of_checkpoint(arguments: Sequence[str], program: str) -> None:
    """Evaluates a checkpoint, then writes its diagnosis."""
    from ltrobust.commands.launch import launch

    launch(arguments, program, __doc__, evaluate_first, trains=False)


def run(arguments: Sequence[str | Path], out: Path, column: str | None = None) -> Path:
    """Diagnoses, writes, prints; returns the page's path.

    Raises:
      ValueError: see `diagnose`.
    """
    result = diagnose_runs.diagnose(arguments, column)
    path = write(result, out)
    print(f"{diagnosis.text(result)}\n\ndiagnosis: {path}")
    return path
