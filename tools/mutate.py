"""Mutation testing: which small changes of the source do the tests notice?

    pip install 'cosmic-ray>=8.7'
    python -m tools.mutate longtail --sample 60 --out mutants.jsonl
    python -m tools.mutate longtail --again mutants.jsonl --out again.jsonl

Each mutant is one change by cosmic-ray, made in a copy of the checkout. The tests of the matching folder run on it,
those of the changed file first, up to the first failure. A mutant survives if all of them pass. `--again` runs the
survivors of an earlier run once more. One line of JSON is written for each mutant, and the same command continues.
With `--own` only the tests of the changed file run, which is quick: run the survivors `--again` without it.

Tests that need the real data sets are skipped in the copy, so the score is a lower bound.
"""

import argparse
import collections
import concurrent.futures
import difflib
import json
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cosmic_ray import plugins  # pyright: ignore[reportMissingImports] - installed by hand
from cosmic_ray.ast import ast_nodes, get_ast  # pyright: ignore[reportMissingImports] - installed by hand
from cosmic_ray.mutating import mutate_code  # pyright: ignore[reportMissingImports] - installed by hand

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Name -> the source files, and the tests that are to notice.
TARGETS = {
    "attacks": (("ltrobust/attacks/*.py", "ltrobust/attacks/algorithms/*.py"), ("tests/attacks",)),
    "judge": (
        ("ltrobust/evaluation/judge.py",),
        ("tests/evaluation/test_judge.py", "tests/evaluation/test_evaluate.py", "tests/evaluation/test_public.py"),
    ),
    "longtail": (("ltrobust/data/longtail.py",), ("tests/data/test_longtail.py", "tests/fuzz/test_any_subset.py")),
    "intervals": (
        (
            "ltrobust/analysis/intervals.py",
            "ltrobust/analysis/metrics.py",
            "ltrobust/analysis/compare.py",
            "ltrobust/analysis/seeds.py",
        ),
        (
            "tests/analysis/test_intervals.py",
            "tests/analysis/test_metrics.py",
            "tests/analysis/test_compare.py",
            "tests/analysis/test_seeds.py",
            "tests/analysis/test_flips.py",
            "tests/fuzz/test_any_verdicts.py",
        ),
    ),
}
# Source files whose tests have another name.
_TESTED_BY = {"ball": "pgd", "cw_l2": "unbounded_l2", "deepfool": "unbounded_l2"}
# Replacements outside of a family raise a TypeError at once on arrays of floats; they would only flatter the score.
_FAMILIES = ({"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"}, {"BitOr", "BitAnd", "BitXor"})
_EXPRESSIONS = {"arith_expr", "term", "power", "expr", "and_expr", "xor_expr"}


class Mutant(NamedTuple):
    """The `occurrence`-th place in a file, from 0, at which the operator changes something."""

    file: str
    operator: str
    occurrence: int


def mutants(patterns: Sequence[str]) -> tuple[list[Mutant], int]:
    """The mutants that are considered, and how many cosmic-ray can make."""
    considered, number = [], 0
    for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
        nodes = list(ast_nodes(get_ast(path.read_text())))
        for name in sorted(plugins.operator_names()):
            kind = plugins.get_operator(name)
            if kind.arguments():  # operators that are asked for by name
                continue
            places = [node for node in nodes for _ in kind().mutation_positions(node)]
            number += len(places)
            file = path.relative_to(ROOT).as_posix()
            considered += [Mutant(file, name, index) for index, node in enumerate(places) if _counts(name, node)]
    return considered, number


def _counts(operator: str, node: Any) -> bool:
    """Whether a mutant says something about tests: no annotation, no syntax error, no certain TypeError."""
    before, after = ["", "", *operator.split("_")][-2:]
    if "ComparisonOperator" in operator and after in ("Is", "IsNot") and before not in ("Is", "IsNot"):
        return False
    if "UnaryOperator" in operator and after in ("Invert", "Not", "UAdd") and before != "Delete":
        return False
    if "BinaryOperator" in operator:
        alike = any({before, after} <= family for family in _FAMILIES)
        if not alike or node.parent.type not in _EXPRESSIONS:
            return False
    return not any(_annotates(child) for child in _ancestors(node))


def _ancestors(node: Any) -> Iterator[Any]:
    """The node, its parent, and so on."""
    while node.parent is not None:
        yield node
        node = node.parent


def _annotates(node: Any) -> bool:
    """Whether a node is the annotation of a parameter, a variable or a function."""
    siblings, kind = node.parent.children, node.parent.type
    if kind in ("tfpdef", "param", "annassign"):
        return siblings.index(node) > 0 and str(getattr(siblings[siblings.index(node) - 1], "value", "")) == ":"
    return kind == "funcdef" and str(getattr(siblings[siblings.index(node) - 1], "value", "")) == "->"


def command(file: str, options: argparse.Namespace) -> list[str]:
    """Pytest on the target's tests, those of one file first; without a file ("") all of them."""
    path = pathlib.Path(file)
    own = pathlib.Path("tests", *path.parts[1:2]).joinpath(f"test_{_TESTED_BY.get(path.stem, path.stem)}*.py")
    first = sorted(test.relative_to(ROOT).as_posix() for test in ROOT.glob(own.as_posix())) if file else []
    rest = [test for test in TARGETS[options.target][1] if (ROOT / test).exists()]
    tests = first if options.own and first else [*first, *rest]
    flags = ["-q", "-x", "-p", "no:cacheprovider", "--no-header", *shlex.split(options.pytest)]
    return [sys.executable, "-m", "pytest", "-m", "", *flags, *tests]


def judge(copy: pathlib.Path, mutant: Mutant | None, options: argparse.Namespace) -> dict[str, Any]:
    """Runs the tests in the copy, mutated or (None) as it is."""
    file = mutant.file if mutant else ""
    record: dict[str, Any] = dict(mutant._asdict()) if mutant else {}
    source = (ROOT / file).read_text() if mutant else ""
    if mutant:
        mutated = mutate_code(source, plugins.get_operator(mutant.operator)(), mutant.occurrence)
        lines = difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="", n=0)
        record["diff"] = [line for line in lines if not line.startswith(("---", "+++"))]
        (copy / file).write_text(mutated)
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    began = time.monotonic()
    # Inside of the prefix, which may wait for its turn.
    limited = ["timeout", "--kill-after=5", str(options.timeout), *command(file, options)]
    try:
        done = subprocess.run(
            [*shlex.split(options.prefix), *limited], cwd=copy, env=environment, capture_output=True, text=True
        )
    finally:
        if mutant:
            (copy / file).write_text(source)
    names = {0: "survived", 1: "killed", 2: "killed", 124: "timeout", 137: "timeout"}
    outcome = names.get(done.returncode, f"status {done.returncode}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    seconds = round(time.monotonic() - began, 1)
    return record | {"outcome": outcome, "seconds": seconds, "by": failed[0][:200] if failed else ""}


def judged(file: str, *outcomes: str) -> list[Mutant]:
    """The mutants of a file of results, those with one of the outcomes if any is given."""
    records = map(json.loads, pathlib.Path(file).read_text().splitlines()) if pathlib.Path(file).exists() else ()
    return [
        Mutant(record["file"], record["operator"], record["occurrence"])
        for record in records
        if not outcomes or record["outcome"] in outcomes
    ]


def chosen(options: argparse.Namespace) -> list[Mutant]:
    """The sample, or the survivors of an earlier run."""
    if options.again:
        if not pathlib.Path(options.again).is_file():
            raise SystemExit(f"--again is {options.again!r}, no file; give the --out of an earlier run.")
        return judged(options.again, "survived")
    considered, number = mutants(TARGETS[options.target][0])
    print(f"{options.target}: {number} mutants exist, {len(considered)} are considered", flush=True)
    return random.Random(options.seed).sample(considered, min(options.sample, len(considered)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--sample", type=int, default=60, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--again", default="", help="file of an earlier run: its survivors instead of a draw")
    parser.add_argument("--out", required=True, help="file to append one line of JSON per mutant to")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds per mutant; one that takes longer is killed"
    )
    parser.add_argument("--own", action="store_true", help="only the tests of the changed file")
    parser.add_argument("--pytest", default="", help="more arguments of pytest, such as `--deselect=...`")
    parser.add_argument("--unchecked", action="store_true", help="do not run the tests without a mutation first")
    parser.add_argument("--prefix", default="", help="command in front of pytest, such as `nice`")
    options = parser.parse_args()
    done = judged(options.out)
    todo = [mutant for mutant in chosen(options) if mutant not in done]
    with tempfile.TemporaryDirectory() as folder:
        copies = [pathlib.Path(folder, str(number), "main") for number in range(options.workers)]
        for copy in copies:
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*cache"))
        if not options.unchecked:
            whole = judge(copies[0], None, options)
            print(f"without a mutation: {whole['outcome']} after {whole['seconds']} s", flush=True)
            if whole["outcome"] != "survived":
                raise SystemExit(f"the tests fail without a mutation: {whole['by']}")
        free = list(copies)

        def work(mutant: Mutant) -> dict[str, Any]:
            copy = free.pop()
            try:
                return judge(copy, mutant, options)
            finally:
                free.append(copy)

        outcomes = collections.Counter()
        with concurrent.futures.ThreadPoolExecutor(options.workers) as pool, open(options.out, "a") as out:
            for record in pool.map(work, todo):
                out.write(json.dumps({"target": options.target} | record) + "\n")
                out.flush()
                outcomes[record["outcome"]] += 1
    print(f"{options.target}: {dict(outcomes)}; list in {options.out}")


if __name__ == "__main__":
    main()
