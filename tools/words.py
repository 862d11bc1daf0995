"""Counts the hand-written words, the links, and the files named without a link, of every page.

    python -m tools.words

Words between generated markers do not count, and neither does CHANGELOG.md, a record that only grows. Words in code do.
"""

import re
import sys
from pathlib import Path

from tools import links

LIMIT = 15_000  # hand-written words of all pages
UNCOUNTED = ("CHANGELOG.md",)
GENERATED = re.compile(r"<!-- ([\w-]+):begin -->.*?<!-- \1:end -->|<!--.*?-->", re.DOTALL)
FORMULA = re.compile(r"\$\$[^$]+\$\$|\$[^$\n]+\$")


def words(text: str) -> int:
    """Number of words outside of generated markers and comments: runs of characters with a letter or digit.

    A formula counts as one word.
    """
    return len(re.findall(r"\S*\w\S*", FORMULA.sub("formula", GENERATED.sub("", text))))


def counts(root: Path) -> dict[str, tuple[int, int, int]]:
    """Page -> hand-written words, links outside of code, and files of this repository that are named without a link."""
    result = {}
    for page in links.pages(root):
        text = (root / page).read_text()
        result[page] = words(text), len(links.targets(text)), len(links.unlinked(GENERATED.sub("", text)))
    return result


def total(root: Path) -> int:
    """Hand-written words of all pages that count."""
    return sum(number for page, (number, *_) in counts(root).items() if page not in UNCOUNTED)


def main(root: Path) -> int:
    """Prints a line for each page; exit status 1 if there are more words than `LIMIT`."""
    print("words  links  unlinked  page")
    for page, (number, linked, unlinked) in counts(root).items():
        print(f"{number:5d}  {linked:5d}  {unlinked:8d}  {page}{' (not in the total)' if page in UNCOUNTED else ''}")
    print(f"{total(root):5d}  of at most {LIMIT}")
    return int(total(root) > LIMIT)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
