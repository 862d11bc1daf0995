"""Writes the tables of docs/results/compiled.md from the files in benchmarks/results/compile_ahead/. No JAX.

python -m tools.compiled
"""

import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ltrobust.compilation import chips, record
from ltrobust.compilation.record import Compilation, Row
from ltrobust.report.numbers import markdown
from tools import summary
from tools.committed import MARK

PAGE, MARKERS = "docs/results/compiled.md", "compiled"
FOLDER = Path("benchmarks") / "results" / "compile_ahead"
INPUT = Path("benchmarks") / "results" / "compiled_input-v5e-1x1.json"
HEADER = (
    *("recipe", "topology", "program", "images a chip", "MiB a chip", "ms, model", "images/s, model", "of peak, model"),
    *("messages", "KiB"),
)
COLUMNS = """\
Columns:

- images a chip: on which a chip works at a time.
- MiB a chip: memory, at most at a time. JAX takes three quarters of a GPU's.
- ms, images/s, of peak: the TPU compiler's model of a step, a pass of all images, or a call; the share is of the
  bfloat16 peak. The GPU's compiler has no model.
- messages, KiB: between chips, and what a chip gives to them. One in a loop is sent in every round.

Only what was compiled so far, in the protocol of each record (ImageNet: `quick`, others: `standard`). Validation and
the starts of attacks are in the files alone.
"""
SMALLEST = """\
The smallest topology that was compiled and holds both steps; smaller ones may hold them too. By the TPU compiler's
model an image of 32 pixels a side costs least at about 128 images a chip.
"""
STEPS = ("teacher step", "student step")
# Platform -> title of the columns that name its smallest topology.
PLATFORMS = {"tpu": "TPU", "cuda": "GPU"}


def block(root: Path) -> str:
    """The columns' meaning, what the rows are from, the smallest topologies, and a line for each program in view."""
    records = load(root / FOLDER)
    lost = unknown({one.commit for one in records.values()}, root)
    marks = {case: MARK if one.commit in lost else "" for case, one in records.items()}
    rows = [
        [f"{recipe}{marks[recipe, topology]}", topology, *_line(row)]
        for (recipe, topology), one in records.items()
        for row in one.rows
        if _shown(row.program)
    ]
    note = f"{MARK.strip()}: the commit is not in the history of this repository.\n\n" if any(marks.values()) else ""
    table = markdown([[*HEADER], *rows])
    parts = [f"{COLUMNS}\nCompiled from:\n\n{sources(records)}\n{note}{smallest(records)}", table, inputs(root)]
    return "\n".join(parts)


def load(folder: Path) -> dict[tuple[str, str], Compilation]:
    """Recipe and topology -> its record."""
    result = {}
    for path in sorted(folder.glob("*.json")):
        one = record.read(path)
        result[path.stem.removesuffix(f"-{one.topology.replace(':', '-')}"), one.topology] = one
    return result


def unknown(commits: Collection[str], root: Path) -> set[str]:
    """Those that are not in the history of the repository at `root`; none where the history is not there."""
    shallow = _git(root, "rev-parse", "--is-shallow-repository")
    if shallow.returncode or shallow.stdout.strip() != "false":
        return set()
    return {one for one in commits if _git(root, "merge-base", "--is-ancestor", one, "HEAD").returncode}


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)


def sources(records: Mapping[tuple[str, str], Compilation]) -> str:
    """One item for each commit and compiler, with what was compiled so."""
    result: dict[str, list[str]] = {}
    for (recipe, topology), one in records.items():
        commit = one.commit[:12] + one.commit[40:]  # with the mark of an edited checkout
        result.setdefault(f"commit {commit}, jax {one.jax}, {one.compiler}", []).append(f"{recipe} {topology}")
    return "".join(f"- {source}: {', '.join(cases)}\n" for source, cases in result.items())


def smallest(records: Mapping[tuple[str, str], Compilation]) -> str:
    """Markdown: for each recipe the smallest compiled topology of each platform on which the steps fit."""
    header = ["recipe"]
    for name in PLATFORMS.values():
        header += [name, f"{name}: images a chip", f"{name}: of memory"]
    rows = []
    for recipe in dict.fromkeys(recipe for recipe, _ in records):
        cells = []
        for platform in PLATFORMS:
            compiled = [one for (name, _), one in records.items() if name == recipe and _fits(one, platform)]
            cells += _smallest(min(compiled, key=_size)) if compiled else ["", "", ""]
        rows.append([recipe, *cells])
    return f"{SMALLEST}\n{markdown([header, *rows])}"


def _fits(one: Compilation, platform: str) -> bool:
    fitting = {row.program for row in one.rows if not row.problem}
    return chips.parse(one.topology).chip.platform == platform and fitting >= {*STEPS}


def _size(one: Compilation) -> tuple[int, int]:
    topology = chips.parse(one.topology)
    return topology.size, topology.chip.memory


def _smallest(one: Compilation) -> list[str]:
    """Topology, images a chip, and share of a chip's memory, of the step that needs most."""
    most = max((row for row in one.rows if row.program in STEPS), key=lambda row: row.memory or 0)
    return [
        one.topology,
        f"{most.images_per_chip:g}",
        f"{(most.memory or 0) / chips.parse(one.topology).chip.usable:.1%}",
    ]


def inputs(root: Path) -> str:
    """Markdown: what the input of a step costs with single pixels indexed and without; empty without a record."""
    if not (root / INPUT).is_file():
        return ""
    one = record.read(root / INPUT)
    mark = f"{MARK}, not in the history of this repository" if unknown({one.commit}, root) else ""
    lines = [
        [
            row.program,
            f"{(row.cycles or 0) / 1e6:.2f}",
            f"{sum(each.bytes for each in row.unpriced if each.kind == 'gather') / 1024:,.0f}",
            f"{(row.memory or 0) / 2**20:.0f}",
        ]
        for row in one.rows
    ]
    first = one.rows[0]
    caption = (
        f"Input of a training step alone: {first.images} images of {'x'.join(map(str, first.image_shape))} are "
        f"picked, augmented and scaled on one {one.topology} chip (commit {one.commit[:12]}{mark}, jax {one.jax}, "
        f"{one.compiler}). Training on a TPU indexes whole images and no pixel, other "
        "platforms index pixels. What gathers take is not in the cycles."
    )
    header = ["augmentation", "Mcycles, model", "gathered KiB, not priced", "MiB"]
    return f"{caption}\n\n{markdown([header, *lines])}"


def _shown(program: str) -> bool:
    """Whether a program has a line; the files have all of them."""
    return program in STEPS or "quick: pgd " in program or ("standard: " in program and "start" not in program)


def _line(row: Row) -> Sequence[str]:
    if row.problem or row.memory is None:
        return [row.program, "", row.problem, *[""] * 5]
    seconds = row.seconds
    return [
        row.program,
        f"{row.images_per_chip:g}",
        f"{row.memory / 2**20:.0f}" if row.memory >= 2**20 else "under 1",
        f"{1e3 * seconds:.3g}" if seconds else "",
        f"{row.images_per_second:,.0f}" if seconds else "",
        f"{row.share_of_peak:.1%}" if seconds else "",
        str(sum(one.count for one in row.collectives)),
        f"{sum(one.bytes for one in row.collectives) / 1024:,.0f}",
    ]


def main(root: Path) -> None:
    """Rewrites the tables of docs/results/compiled.md under `root`."""
    summary.rewrite(root / PAGE, block(root), MARKERS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
