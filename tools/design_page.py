"""Writes the table of rooms of docs/project/design.md from the first lines of their docstrings. No JAX.

    python -m tools.design_page

Which room may import which is held by tests/test_layers.py alone.
"""

import ast
import sys
from pathlib import Path

from ltrobust.report.numbers import markdown
from tools.summary import rewrite

PAGE, MARKERS = "docs/project/design.md", "rooms"


def table(root: Path) -> str:
    """Markdown: a row for each folder with modules, `data/`, then for each top-level module, `plan.py`.

    Raises:
      ValueError: a room without a docstring.
    """
    package = root / "ltrobust"
    folders = {f"{path.parent.name}/": path for path in sorted(package.glob("*/__init__.py"))}
    modules = {path.name: path for path in sorted(package.glob("*.py")) if not path.name.startswith("__")}
    rows = [["room", "what it is for"]]
    for name, path in (folders | modules).items():
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        if not first:
            raise ValueError(f"{path.relative_to(root)} has no docstring; begin it with what the room is for.")
        rows.append([f"[`{name}`](../../ltrobust/{name})", first.removesuffix(".")])
    return markdown(rows)


def main(root: Path) -> None:
    """Rewrites the table of docs/project/design.md under `root`."""
    rewrite(root / PAGE, table(root), MARKERS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
