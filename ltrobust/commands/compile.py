"""Compiles the programs of a configuration for TPUs or GPUs that need not exist, and prints the compiler's estimates.

    ltrobust compile --config=FILE --topology=v5e:2x4 [--phase=PHASE] [--protocol=NAME] [--batch=N] [--json=FILE]

Nothing is trained and no data set is needed. Compiled are the chunks of training steps of both phases and the programs
of validation and evaluation, from shapes alone. The table says for each of them whether it compiles and fits, the
memory of a chip, the compiler's estimate of cycles and milliseconds, and what chips send to each other.

TPU programs need the extra `tpu-compile`, GPU programs `cuda-compile`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltrobust.analysis import cards
from ltrobust.commands.launch import launch
from ltrobust.commands.parser import UsageError, taken_all
from ltrobust.compilation import chips, record, render
from ltrobust.runtime.workdir import PHASES

FLAGS = {
    "topology": ("NAME", "what to compile for, such as v5e:1x1, v5e:2x4, v4:2x2x1, v5p:2x2x1, v6e:2x4, h100:8"),
    "phase": ("PHASE", "teacher or student; default: those that the configuration trains"),
    "protocol": ("NAME", "of the evaluation, such as standard; default: eval.protocol"),
    "batch": ("N", "batch size of both phases, over all chips; default: the configuration's"),
    "json": ("FILE", "where to write the numbers too, with the configuration and versions; must not exist"),
}


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the table.

    Raises:
      UsageError: a mistake in the words.
    """
    given, words = taken_all(arguments, FLAGS)
    helps = {"-h", "-help", "--help"} & set(words)
    if not given["topology"] and not helps:
        raise UsageError(f"--topology is missing, such as --topology=v5e:2x4; {program} --help lists the flags.")
    if given["phase"] and given["phase"] not in PHASES:
        raise UsageError(f"--phase is {given['phase']!r}; give {' or '.join(PHASES)}.")
    if given["batch"] and not (given["batch"].isdecimal() and int(given["batch"]) > 0):
        raise UsageError(f"--batch is {given['batch']!r}; give a number of images, at least 1.")

    def work(config: Any, workdir: Path) -> None:
        run(config, workdir, **given)

    launch(words, program, __doc__, work, trains=True, computes=False, more=FLAGS)


def run(config: Any, workdir: Path, *, topology: str, phase: str, protocol: str, batch: str, json: str) -> None:
    """Compiles every program and prints as it goes.

    Raises:
      ValueError: unknown topology, a batch that does not divide over it, a file that cannot be written, a compiler that
        is missing or of another version, a setting that a run would refuse, or a program that does not compile or fit,
        after the table.
    """
    target = Path(json) if json else None
    if target is not None and target.exists():
        raise ValueError(f"{target} exists; nothing is overwritten.")
    if target is not None and not target.parent.is_dir():
        raise ValueError(f"--json is {json}, but there is no folder {target.parent}; make it first.")
    wanted, rows = chips.parse(topology), []
    if batch and int(batch) % wanted.size:
        raise ValueError(
            f"--batch is {batch}, which does not divide over the {wanted.size} chips of {wanted.name}; use a multiple "
            f"of {wanted.size}."
        )
    from ltrobust.compilation import rows as compiling  # with JAX, which help does not need
    from ltrobust.compilation import topologies
    from ltrobust.plan import make_plan

    # First, because JAX is not to look for accelerators.
    topologies.make_devices(wanted)
    with config.unlocked():
        config.eval.protocol = protocol or config.eval.protocol
        for name in PHASES:
            config[name].batch_size = int(batch) if batch else config[name].batch_size
    plan = make_plan(config, workdir)
    for row in compiling.compile_rows(plan, wanted, phase):
        rows.append(row)
        print(f"{row.program}: {'no' if row.problem else 'compiles'}, {row.compile_seconds:.0f} s", flush=True)
    print(f"\n{wanted.name}, {wanted.size} chip(s)\n\n{render.table(rows, wanted)}")
    if target is not None:
        record.write(target, compiling.make_record(plan, wanted, cards.commit(), rows), new=True)
    if problems := [row.problem for row in rows if row.problem]:
        raise ValueError(problems[0])
