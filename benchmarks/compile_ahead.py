"""Compiles the recipes for TPU and GPU topologies without a device, and keeps what the compilers say.

    python benchmarks/compile_ahead.py [--only=digits] [--out=DIR]

One case, a recipe for a topology, after another, each in a separate process; what is in its file already is left out,
so that the same command resumes after an interruption. Files: `<out>/<recipe>-<topology>.json`, the rows of
`ltrobust compile` (`ltrobust/compilation/rows.py`), each with the commit that it was compiled from. The protocol is
`standard`, which has the programs of `quick` too. Small networks take seconds a program, ResNet-18 minutes, more the
larger ones, ImageNet's the longest. A batch that is smaller than the number of chips is raised to it.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results" / "compile_ahead"
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
# Programs of a recipe that are compiled first, for all topologies.
FIRST = (
    ("cifar10", "student step"),
    ("digits", ""),
    ("tiny_imagenet", "student step"),
    ("cifar100", "student step"),
    ("cifar10", "teacher step"),
)
COMPILERS = {"tpu": "libtpu", "cuda": "jax-cuda13-plugin"}


def main() -> None:
    """Runs every case that is not complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--only", default="", help="recipes, separated by commas; default: all")
    parser.add_argument("--case", nargs=3, metavar=("RECIPE", "TOPOLOGY", "PROGRAM"), help="one, in this process")
    given = parser.parse_args()
    if given.case:
        compile_case(*given.case, given.out)
        return
    chosen = given.only.split(",") if given.only else [*RECIPES]
    given.out.mkdir(parents=True, exist_ok=True)
    for recipe, topology, program in cases(chosen):
        if program and program in programs_in(path_of(recipe, topology, given.out)):
            continue
        words = [sys.executable, __file__, f"--out={given.out}", "--case", recipe, topology, program]
        status = subprocess.run(words, check=False).returncode
        print(f"{recipe} for {topology}: {'done' if status == 0 else f'ended with {status}'}", flush=True)


def cases(chosen: list[str]) -> list[tuple[str, str, str]]:
    """Recipe, topology, and one program or all (empty). ImageNet's recipe is compiled for `IMAGENET` alone."""
    stages = dict.fromkeys([*FIRST, *((recipe, "") for recipe in RECIPES)])
    return [
        (recipe, topology, program)
        for recipe, program in stages
        if recipe in chosen
        for topology in (IMAGENET if recipe == "imagenet_lt" else TOPOLOGIES)
    ]


def programs_in(path: pathlib.Path) -> set[str]:
    """Names of the programs that a case's file has."""
    return {row["program"] for row in json.loads(path.read_text())["rows"]} if path.exists() else set()


def path_of(recipe: str, topology: str, out: pathlib.Path) -> pathlib.Path:
    """The file of a case."""
    return out / f"{recipe}-{topology.replace(':', '-')}.json"


def compile_case(recipe: str, topology: str, only: str, out: pathlib.Path) -> None:
    """Compiles the programs of a case, or one, that its file does not have, and adds each to the file."""
    from ltrobust import recipes
    from ltrobust.compilation import chips, rows
    from ltrobust.plan import make_plan
    from ltrobust.runtime.files import write_json

    wanted, path = chips.parse(topology), path_of(recipe, topology, out)
    name, changes = RECIPES[recipe]
    config: Any = recipes.load(name)
    changes = {"eval.protocol": "standard"} | changes
    config.update_from_flattened_dict(changes)
    for phase in (config.teacher, config.student):
        phase.batch_size = max(phase.batch_size, wanted.size)
    result: dict[str, Any] = {"rows": []}
    if path.exists():
        result = json.loads(path.read_text())
    result |= {
        "recipe": recipe,
        "config": name,
        "changes": changes,
        "topology": topology,
        "jax": importlib.metadata.version("jax"),
        "compiler": f"{COMPILERS[wanted.chip.platform]} {importlib.metadata.version(COMPILERS[wanted.chip.platform])}",
    }
    known = {(row["program"], row["images"]) for row in result["rows"]}
    for program in rows.programs_for(make_plan(config, out / "none"), wanted):
        if (program.name, program.images) in known or only not in ("", program.name):
            continue
        row = rows.compile_row(program, wanted)
        result["rows"].append(dataclasses.asdict(row) | {"commit": commit()})
        write_json(path, result)
        print(f"  {recipe} for {topology}, {row.program}: {row.cpu_seconds} CPU seconds {row.problem}", flush=True)


def commit() -> str:
    """The commit of this checkout."""
    words = ["git", "-C", str(pathlib.Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
