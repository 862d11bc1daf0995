"""Compiles the recipes for TPU and GPU topologies without a device, and keeps what the compilers say.

    python benchmarks/compile_ahead.py [--only=digits] [--topologies=v5e:1x1,h100:1] [--program=student] [--again]

One case, a recipe for a topology, after another, each in a separate process, and of each case the programs of training,
validation and the protocol `standard`. Files: `<out>/<recipe>-<topology>.json`, in the form of `ltrobust compile`
(`ltrobust/compilation/record.py`).

A file is of one compiler, one configuration and one state of the sources. The same command resumes an interrupted file.
A file of another compiler, configuration or sources is left as it is, and named: `--again`
compiles it anew. Sources that are not committed are refused, because no commit would name them.

Small networks take seconds a program, ResNet-18 minutes on TPUs, ImageNet's the longest. A batch that is smaller than
the number of chips is raised to it.
"""

import argparse
import dataclasses
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # or an installed ltrobust would be compiled, and named by this checkout's commit

import ltrobust  # noqa: E402
from ltrobust.compilation import chips, record  # noqa: E402
from ltrobust.compilation.record import Compilation  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "compile_ahead"
# What programs depend on.
SOURCES = ("ltrobust", "configs")
TOPOLOGIES = ("v5e:1x1", "v5e:2x4", "h100:8", "v5e:16x16", "v4:2x2x1", "v5p:2x2x1", "v6e:2x4", "h100:1")
# Where ImageNet's recipe is meant to run.
IMAGENET = ("v5e:8x8", "h100:8")
# Recipe -> configuration and changes.
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "digits": ("digits", {}),
    "cifar10": ("cifar10", {}),
    "tiny_imagenet": ("tiny_imagenet", {}),
    "cifar100": ("cifar100", {}),
    "cifar10_bfloat16": ("cifar10", {"model.dtype": "bfloat16"}),
    "wrn_34_10": ("cifar10", {"model.name": "wrn_34_10", "model.dtype": "bfloat16"}),
    "imagenet_lt": ("imagenet_lt", {}),
}


def main() -> int:
    """Runs every case that is not complete; 1 if one failed."""
    given = flags().parse_args()
    source = commit()
    if given.case:
        compile_case(*given.case, given, source)
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for recipe, topology in cases(given.only, given.topologies):
        words = [*sys.argv[1:], "--case", recipe, topology]
        status = subprocess.run([sys.executable, __file__, *words], check=False).returncode
        print(f"{recipe} for {topology}: {'done' if status == 0 else f'ended with {status}'}", flush=True)
        failed |= status != 0
    return int(failed)


def flags() -> argparse.ArgumentParser:
    """The flags of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--only", default="", help="recipes, separated by commas; default: all")
    parser.add_argument("--topologies", default="", help="separated by commas; default: all")
    parser.add_argument("--program", default="", help="only programs whose names begin so; default: all")
    parser.add_argument("--again", action="store_true", help="replace files of other compilers or sources")
    parser.add_argument("--case", nargs=2, metavar=("RECIPE", "TOPOLOGY"), help="one, in this process")
    return parser


def cases(recipes: str, topologies: str) -> list[tuple[str, str]]:
    """Recipe and topology, of those that are named. ImageNet's recipe is compiled for `IMAGENET` alone.

    Raises:
      SystemExit: a recipe or topology is unknown, or none is left.
    """
    for name in filter(None, recipes.split(",")):
        if name not in RECIPES:
            sys.exit(f"--only names {name}; recipes are {', '.join(RECIPES)}.")
    for name in filter(None, topologies.split(",")):
        try:
            chips.parse(name)
        except ValueError as error:
            sys.exit(f"--topologies: {error}")
    result = [
        (recipe, topology)
        for recipe in (recipes.split(",") if recipes else RECIPES)
        for topology in (IMAGENET if recipe == "imagenet_lt" else TOPOLOGIES)
        if not topologies or topology in topologies.split(",")
    ]
    if not result:
        sys.exit(f"--only={recipes} has no case for --topologies={topologies}; see IMAGENET and TOPOLOGIES.")
    return result


def path_of(recipe: str, topology: str, out: pathlib.Path) -> pathlib.Path:
    """The file of a case."""
    return out / f"{recipe}-{topology.replace(':', '-')}.json"


def compile_case(recipe: str, topology: str, given: argparse.Namespace, source: str) -> None:
    """Compiles the programs of a case that its file does not have, and adds each to the file.

    Raises:
      SystemExit: the file is of another compiler, configuration or sources, the compiler is missing, or no program's
        name begins as `--program` says.
    """
    from ltrobust.compilation import rows, topologies
    from ltrobust.plan import make_plan

    wanted, path, found = chips.parse(topology), path_of(recipe, topology, given.out), False
    try:
        topologies.make_devices(wanted)  # first, because JAX is not to look for accelerators
    except ValueError as error:
        sys.exit(str(error))
    plan = make_plan(configuration(recipe, wanted.size), given.out / "none")
    result = resume(path, rows.make_record(plan, wanted, source), given.again)
    for program in rows.programs_for(plan, wanted):
        known = {row.program for row in result.rows}
        found |= program.name.startswith(given.program)
        if program.name in known or not program.name.startswith(given.program):
            continue
        row = rows.compile_row(program, wanted)
        result = dataclasses.replace(result, rows=(*result.rows, row))
        record.write(path, result)
        print(f"  {recipe} for {topology}, {row.program}: {row.cpu_seconds} CPU seconds {row.problem}", flush=True)
    if not found:
        sys.exit(f"no program of {recipe} for {topology} begins with {given.program!r}, as --program says.")


def configuration(recipe: str, chips: int) -> Any:
    """A recipe's configuration, with at least one image for each chip."""
    from ltrobust import recipes

    name, changes = RECIPES[recipe]
    config: Any = recipes.load(name)
    config.update_from_flattened_dict({"eval.protocol": "standard"} | changes)
    for phase in (config.teacher, config.student):
        phase.batch_size = max(phase.batch_size, chips)
    return config


def resume(path: pathlib.Path, fresh: Compilation, again: bool) -> Compilation:
    """The record that rows are added to.

    Args:
      path: of the file.
      fresh: what the file would be now, without rows.
      again: whether a file of other programs may be replaced.

    Raises:
      SystemExit: there is such a file, and it may not be.
    """
    if not path.exists():
        return fresh
    result = record.read(path)
    if dataclasses.replace(result, commit=fresh.commit, rows=()) == fresh and same_sources(result.commit, fresh.commit):
        return result
    if not again:
        sys.exit(
            f"{path.name} is left as it is: commit {result.commit[:12]}, {result.compiler} and its configuration are "
            f"not those of {fresh.commit[:12]}, {fresh.compiler}. --again compiles it anew."
        )
    return fresh


def commit(*scripts: str) -> str:
    """The commit of this checkout, from which `ltrobust` is imported.

    Args:
      scripts: further files that what is compiled depends on, from the root.

    Raises:
      SystemExit: the sources are not those of the commit, or there is none, or `ltrobust` is of another folder.
    """
    if pathlib.Path(ltrobust.__file__).resolve().parents[1] != ROOT:
        sys.exit(
            f"ltrobust is imported from {pathlib.Path(ltrobust.__file__).parent}, not from {ROOT}; set PYTHONPATH."
        )
    changed = _git("status", "--porcelain", "--", *SOURCES, *scripts)
    head = _git("rev-parse", "HEAD")
    if changed.returncode or head.returncode:
        sys.exit(f"{ROOT.name} is no checkout with commits, so rows could not name theirs: {head.stderr.strip()}")
    if changed.stdout:
        sys.exit(
            f"{' and '.join((*SOURCES, *scripts))} have changes; commit them first, or rows would name the wrong "
            "commit."
        )
    return head.stdout.strip()


def same_sources(old: str, new: str) -> bool:
    """Whether two commits have the same `SOURCES`; False where one is not known."""
    return _git("diff", "--quiet", old, new, "--", *SOURCES).returncode == 0


def _git(*words: str) -> Any:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
