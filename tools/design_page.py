"""The table of rooms in docs/project/design.md must name every folder and top-level module of the package.

Which room may import which is held by tests/test_layers.py alone.
"""

import re
from collections.abc import Iterator
from pathlib import Path

PAGE = "docs/project/design.md"
# The first cell of a row: "| [`data/`](../../ltrobust/data/) |" or "| [`plan.py`](../../ltrobust/plan.py) |".
ROW = re.compile(r"^\| \[`([\w/.]+)`\]", re.MULTILINE)


def faults(root: Path) -> Iterator[tuple[str, str]]:
    """Pairs of what is wrong and what to do."""
    table = (root / PAGE).read_text().partition("\n## Rooms\n")[2].partition("\n## ")[0]
    named, existing = set(ROW.findall(table)), _rooms(root / "ltrobust")
    for room in sorted(existing - named):
        yield f"the table of rooms lacks `{room}`", f"add a row that begins with [`{room}`](../../ltrobust/{room})"
    for room in sorted(named - existing):
        yield f"the table of rooms names `{room}`, which does not exist", "remove the row"


def _rooms(package: Path) -> set[str]:
    """`data/` for each folder with modules, `plan.py` for each top-level module."""
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    return folders | {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
