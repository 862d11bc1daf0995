"""Links and paths in the repository's pages that lead nowhere."""

import re
from collections.abc import Iterator
from pathlib import Path

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md")
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
# A file of this repository that is named as code. Names in capitals, such as configs/NAME.py, stand for any; results/
# is a folder of every run, too.
FOLDERS = "benchmarks|configs|docs|examples|ltrobust|tests|tools"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]+\.(?:ipynb|json|md|npz|py))`")
CODE = re.compile(r"^```.*?^```|^    .*?$", re.DOTALL | re.MULTILINE)


def pages(root: Path) -> list[str]:
    """The repository's pages, relative to the root."""
    return sorted(str(path.relative_to(root)) for pattern in PAGES for path in root.glob(pattern))


def targets(text: str) -> list[str]:
    """What a page's links lead to, outside of code."""
    return LINK.findall(CODE.sub("", text))


def unlinked(text: str) -> list[str]:
    """Files of this repository that a page names outside of links and code blocks."""
    return PATH.findall(LINK.sub("", CODE.sub("", text)))


def dead(root: Path) -> Iterator[tuple[str, str]]:
    """Pairs of page and target, for each target that does not exist. External links are not followed."""
    for page in pages(root):
        path = root / page
        text = path.read_text()
        for target in targets(text):
            if not re.match(r"[a-z]+:", target) and not _leads(path, target):
                yield page, target
        for target in PATH.findall(text):
            if not Path(target).stem.isupper() and not (root / target).exists():
                yield page, target


def _leads(page: Path, target: str) -> bool:
    """Whether a relative link leads to a file, and to a heading or line of it where it names one."""
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    return file.exists() and (not anchor or file.suffix != ".md" or anchor in _anchors(file.read_text()))


def _anchors(text: str) -> set[str]:
    """Names of a page's headings as links give them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
