"""Checks that this repository's own pages and committed files are up to date.

    python -m tools.check_pages

Prints what is out of date, with the command or the change that mends it, and ends with exit status 1 if anything is.
What the generators compute is tested in tests/; this only compares what is committed with what they give now.
"""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import ltrobust
from ltrobust.analysis import diagnose_runs
from ltrobust.analysis.schema.card import Card
from tools import (
    card_schema,
    claim_file,
    claims,
    compiled,
    data_files,
    design_page,
    evidence_files,
    links,
    method_tables,
    pictures,
    protocol_tables,
    published_rows,
    speed,
    study_figures,
    summary,
    torch_table,
    words,
)
from tools.committed import read_card

ROOT = Path(__file__).resolve().parents[1]
# The scripts there import each other by their bare names. Last, so that none of them hides another module.
sys.path.append(str(ROOT / "benchmarks"))


class Stale(NamedTuple):
    """A page or file that is out of date.

    Attributes:
      path: relative to the root.
      fault: what is wrong.
      mend: the command to run, or what to change.
    """

    path: str
    fault: str
    mend: str


def tables(root: Path) -> Iterator[Stale]:
    """Tables between markers must be what the committed cards and measurements give."""
    blocks = [(*block, "tools.summary") for block in summary.blocks(root)]
    for page, marker, block, module in (
        (speed.PAGE, speed.SHORT, speed.short, "tools.speed"),
        (speed.PAGE, speed.ALL, speed.tables, "tools.speed"),
        (compiled.PAGE, compiled.MARKERS, compiled.block, "tools.compiled"),
        (data_files.PAGE, data_files.MARKERS, data_files.table, "tools.data_files"),
        (design_page.PAGE, design_page.MARKERS, design_page.table, "tools.design_page"),
        (torch_table.PAGE, torch_table.MARKERS, torch_table.block, "tools.torch_table"),
    ):
        blocks.append((page, marker, functools.partial(block, root), module))
    for page, marker, block, module in blocks:
        text = (root / page).read_text()
        if summary.inserted(text, block(), marker) != text:
            yield Stale(
                page, f"the tables between `{marker}` markers are older than their sources", f"python -m {module}"
            )


def documented(root: Path) -> Iterator[Stale]:
    """Tables in docs/methods/ and docs/concepts/ must be what the code gives."""
    for module in (method_tables, protocol_tables):
        for page, marker, make in module.blocks(root):
            text = (root / page).read_text()
            if summary.inserted(text, make(), marker) != text:
                fault = f"the table between `{marker}` markers is older than the code"
                yield Stale(page, fault, f"python -m {module.__name__}")


def shown(root: Path) -> Iterator[Stale]:
    """Every folder of cards must be shown on a page."""
    for marker in summary.unshown(root):
        markers = f"<!-- {marker}:begin --> and <!-- {marker}:end -->"
        yield Stale(f"{summary.PAGES}/", f"no page shows `{marker}`", f"write {markers} into a page there")


def published(root: Path) -> Iterator[Stale]:
    """The table of published numbers must be that of tools/published_rows.py."""
    page = published_rows.PAGE
    text = (root / page).read_text()
    if summary.inserted(text, published_rows.table(), published_rows.MARKERS) != text:
        fault = "the table of published numbers is older than tools/published_rows.py"
        yield Stale(page, fault, "python -m tools.published_rows")


def arithmetic(root: Path) -> Iterator[Stale]:
    """The committed FLOPs and bytes must be those of the networks and methods as they are."""
    floors = importlib.import_module("floors")
    path = root / "benchmarks" / "results" / "floors.json"
    if json.loads(path.read_text()) != json.loads(json.dumps(floors.floors())):
        command = "python benchmarks/floors.py --overwrite, then python -m tools.speed"
        yield Stale(str(path.relative_to(root)), "the arithmetic is not that of the code", command)


def committed_cards(root: Path) -> Iterator[Stale]:
    """Cards must have all fields, weights from a clean commit, and all test images; a sweep's may have some of them."""
    for path in sorted((root / "results").rglob("*.json")):
        name = str(path.relative_to(root))
        if summary.AGREEMENT in path.parts:
            software = {"it": json.loads(path.read_text())["software"]}
        else:
            try:
                if summary.DIAGNOSIS in path.parts:
                    software = {"it": diagnose_runs.read(path).software}
                else:
                    card = read_card(path)
                    software = {run: values.software for run, values in card.training.items()}
                    yield from _all_images(card, name)
            except ValueError as error:
                yield Stale(name, str(error).removesuffix("."), "evaluate again")
                continue
        for run, versions in software.items():
            if len(versions["commit"]) != 40:
                yield Stale(name, f"{run} is from an edited checkout", "run it again from a commit")


def _all_images(card: Card, name: str) -> Iterator[Stale]:
    """The card of a recipe must be of the whole test set; those of sweeps may have a part of it."""
    if not {summary.SWEEPS, summary.OFFSETS} & set(Path(name).parts) and card.data.evaluated != card.data.test_images:
        fault = f"the card is of {card.data.evaluated} of {card.data.test_images} test images"
        yield Stale(name, fault, "evaluate again with --config.eval.limit=0")


def evidence(root: Path) -> Iterator[Stale]:
    """Kept weights and predictions must be those of their cards."""
    for folder, fault in evidence_files.faults(root):
        name = str(folder.relative_to(root))
        yield Stale(name, fault, f"python -m tools.evidence --keep=RUN {name}, in a new folder")


def schema(root: Path) -> Iterator[Stale]:
    """The JSON Schema of a card must be that of the classes."""
    if (root / card_schema.FILE).read_text() != card_schema.text():
        yield Stale(str(card_schema.FILE), "it is not the schema of the classes", "python -m tools.card_schema")


def statements(root: Path) -> Iterator[Stale]:
    """Statements about differences must be borne out by the cards, and name those that are not trustworthy."""
    for claim, fault in claims.unmentioned(root):
        yield Stale(str(claim_file.FILE), f"`{claim.text[:50]}...`: {fault}", "name seed and check in `despite`")
    for claim, fault in claims.strangers(root):
        yield Stale(
            str(claim_file.FILE), f"`{claim.text[:50]}...`: {fault}", "name the cell that has the teacher's numbers"
        )
    for claim, difference, result in claims.contradicted(root):
        shown = f"{claims.Points(result)}, which is not `{difference.expected}`"
        where = f"{difference.first} minus {difference.second}, {difference.column}, {difference.view}"
        yield Stale(str(claim_file.FILE), f"`{claim.text[:50]}...`: {where} is {shown}", "write what the cards show")


def notebooks(root: Path) -> Iterator[Stale]:
    """Notebooks are kept without outputs, and the cells of each have distinct ids."""
    for path in sorted((root / "examples").glob("*.ipynb")):
        page = str(path.relative_to(root))
        cells = json.loads(path.read_text())["cells"]
        if any(cell["outputs"] or cell["execution_count"] is not None for cell in cells if cell["cell_type"] == "code"):
            yield Stale(page, "cells have outputs", f"jupyter nbconvert --clear-output --inplace {page}")
        if len({cell["id"] for cell in cells}) != len(cells):
            yield Stale(page, "two cells have one id", "give one of them another id")


def version(root: Path) -> Iterator[Stale]:
    """CITATION.cff and CHANGELOG.md must name the version of the package."""
    for page, line in (("CITATION.cff", "version: "), ("CHANGELOG.md", "## ")):
        if f"\n{line}{ltrobust.__version__}" not in (root / page).read_text():
            yield Stale(
                page, f"it does not name version {ltrobust.__version__}", f"add a line `{line}{ltrobust.__version__}`"
            )


def configurations(root: Path) -> Iterator[Stale]:
    """Every configuration's docstring must name the command that runs it."""
    for path in sorted((root / "configs").glob("*.py")):
        command = f"python main.py --config=configs/{path.name}"
        if path.stem != "default" and command not in path.read_text().split('"""')[1]:
            yield Stale(f"configs/{path.name}", "the docstring does not name its command", f"write `{command}` into it")


def targets(root: Path) -> Iterator[Stale]:
    """Links and paths in pages must lead to something."""
    for page, target in links.dead(root):
        yield Stale(page, f"`{target}` leads nowhere", "name the file or heading that is meant")


def drawn(root: Path) -> Iterator[Stale]:
    """Diagrams must be those that tools/pictures.py draws."""
    for name, draw in pictures.PICTURES.items():
        path = root / pictures.FOLDER / name
        if not path.is_file() or path.read_text() != draw():
            yield Stale(
                str(path.relative_to(root)), "it is not what tools/pictures.py draws", "python -m tools.pictures"
            )


def figures(root: Path) -> Iterator[Stale]:
    """The figures of the study must be those of the committed cards."""
    for name, text in study_figures.draw(root).items():
        path = root / study_figures.FOLDER / f"{name}.svg"
        values = study_figures.values(path.read_text(encoding="utf-8")) if path.is_file() else []
        if values != study_figures.values(text):
            yield Stale(str(path.relative_to(root)), "it is older than the cards", "python -m tools.study_figures")


def length(root: Path) -> Iterator[Stale]:
    """Pages must not hold more hand-written words than is allowed for all of them."""
    if (number := words.total(root)) > words.LIMIT:
        fault = f"{number} hand-written words are more than {words.LIMIT}"
        yield Stale("docs/", fault, "shorten pages; python -m tools.words counts each")


CHECKS: tuple[Callable[[Path], Iterator[Stale]], ...] = (
    tables,
    documented,
    shown,
    published,
    arithmetic,
    committed_cards,
    evidence,
    schema,
    statements,
    notebooks,
    version,
    configurations,
    targets,
    drawn,
    figures,
    length,
)


def main(root: Path = ROOT) -> int:
    """Prints a line for each page that is out of date; returns the exit status."""
    result = [stale for check in CHECKS for stale in check(root)]
    for stale in result:
        print(f"{stale.path}: {stale.fault}.\n  {stale.mend}")
    print(f"{len(result)} out of date." if result else "All pages are up to date.")
    return 1 if result else 0


if __name__ == "__main__":
    sys.exit(main())
