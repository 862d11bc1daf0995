"""What docs/design.md must say of the package's files and layers."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

PAGE = "docs/design.md"
LAYERS = "tests/test_layers.py"
NAME = re.compile(r"`([\w/.]+)`")
# One file for each family: the page names the folders.
FAMILIES = ("methods", "models")


def faults(root: Path) -> Iterator[tuple[str, str]]:
    """Pairs of what is wrong and what to do."""
    text, layers = (root / PAGE).read_text(), runpy.run_path(str(root / LAYERS))
    for path in sorted((root / "ltrobust").rglob("*.py")):
        inside = path.relative_to(root / "ltrobust")
        if inside.parts[0] not in FAMILIES and path.stem != "__init__" and path.name not in text:
            yield f"it does not name ltrobust/{inside}", "add a line to one of its two tables of files"
    found, allowed = _imports(text), {room: rooms - {room} for room, rooms in layers["ALLOWED"].items()}
    for room in sorted(found.keys() | allowed.keys()):
        if found.get(room) != allowed.get(room):
            wanted = ", ".join(sorted(allowed.get(room, {"(no row)"}))) or "nothing"
            yield f"what `{room}` may import is not what {LAYERS} allows", f"write: {wanted}"
    others = _without_jax(text) ^ set(layers["WITHOUT_JAX"])
    if others:
        names = ", ".join(sorted(others))
        yield f"the files that import no JAX are not those of {LAYERS}", f"add or remove: {names}"


def _imports(text: str) -> dict[str, set[str]]:
    """Room -> rooms, from the table under `Direction of dependencies`."""
    section = text.split("## Direction of dependencies")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {NAME.findall(room)[0]: set(NAME.findall(rooms)) for room, rooms in rows}


def _without_jax(text: str) -> set[str]:
    """The files in the sentence that ends with `import no JAX`."""
    found = re.search(r"((?:`[\w/.]+`(?:,| and)?\s+)+)import no JAX", text)
    return {name.rstrip("/") for name in NAME.findall(found.group(1) if found else "")}
