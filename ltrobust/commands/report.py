"""Writes the page of a run, DIR/report.html, from its cards, verdicts and records; no network is evaluated.

    ltrobust report --workdir=DIR [--figures=DIR] [--config.data.dir=DIR]

An earlier page is replaced, any other file is left as it is. Adversarial images need the test images. With --figures,
every chart of the page is also written to that folder as SVG and PNG, and the table behind it as CSV and LaTeX; no file
there is overwritten. In CSV, an apostrophe precedes text that spreadsheets would run as a formula.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltrobust.commands.launch import launch
from ltrobust.commands.parser import UsageError, taken

_FLAGS = {"figures": ("DIR", "folder for the charts as SVG and PNG and their tables as CSV and LaTeX")}


def main(arguments: Sequence[str], program: str) -> None:
    """Writes the page, and figures where asked.

    Raises:
      UsageError: no folder for the figures.
    """
    folders, rest = taken(arguments, "figures")
    if folders and not folders[-1]:
        raise UsageError("--figures names no folder; give --figures=DIR.")
    work = functools.partial(_draw, Path(folders[-1]) if folders else None)
    launch(rest, program, __doc__, work, trains=False, computes=False, more=_FLAGS)


def _draw(figures: Path | None, config: Any, workdir: Path) -> None:
    """Writes the figures where asked, then the page."""
    from ltrobust.report import run_page

    if figures is not None:
        written = run_page.write_figures(workdir, figures, cache_dir=config.data.cache_dir)
        print(f"figures: {len(written)} files in {figures}")
    print(f"report: {run_page.write(workdir, data_dir=config.data.dir, cache_dir=config.data.cache_dir)}")
