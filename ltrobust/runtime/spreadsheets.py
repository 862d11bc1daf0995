"""CSV that spreadsheets show and do not run."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

# The first characters of a formula, also in full width, and those that spreadsheets drop before one.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n\0")
_NUMBER = r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?"
# A dash for no value, or a number, which may have a deviation and an interval.
_NUMBERS = re.compile(rf"-|{_NUMBER}( ± ({_NUMBER}|nan))?( \[({_NUMBER}|-), ({_NUMBER}|-)\])?", re.ASCII)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """The text of a CSV file.

    Names of classes and of runs come from users, and a spreadsheet runs a cell that begins like a formula. Such a cell
    gets an apostrophe before it (https://owasp.org/www-community/attacks/CSV_Injection). Numbers stay as they are.

    Args:
      rows: of cells, the header first.

    Returns:
      Lines that end with a newline. Cells with commas, quotes or line breaks are quoted, with newlines for line breaks.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_inert(cell) for cell in row] for row in rows)
    return text.getvalue()


def _inert(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(cell, str) or _NUMBERS.fullmatch(cell):
        return cell
    text = cell.replace("\r", "\n")  # csv quotes a cell with the second, not with the first
    return f"'{text}" if cell.startswith(_FORMULA) else text
