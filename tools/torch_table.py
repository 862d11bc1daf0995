"""Writes the table of PyTorch modules in docs/project/parity.md from benchmarks/results/torch_modules-*.json. No JAX.

python -m tools.torch_table
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltrobust.report.numbers import markdown
from tools import summary

PAGE, MARKERS = "docs/project/parity.md", "torch_modules"
NOT_MEASURED = "Not measured yet."
SIDE = 32  # of the images; the files do not have it


def block(root: Path) -> str:
    """Markdown between the markers: the table of the newest file of measurements, if there is one."""
    files = (root / "benchmarks" / "results").glob("torch_modules-*.json")
    measured = [(json.loads(path.read_text()), path.name) for path in sorted(files)]
    return table(*max(measured, key=lambda each: each[0]["created"])) if measured else NOT_MEASURED


def table(measured: Mapping[str, Any], name: str) -> str:
    """Markdown of one file, as `benchmarks/torch_modules.py` writes it."""
    rows = [
        ["architecture", "package", "parameters", "logits", "input gradients", "compile, s", "`quick`, s", "images"]
    ]
    for row in measured["rows"]:
        if "refused" in row:
            cells = ["refused", "", "", "", ""]
        else:
            cells = [f"{row['logits']:.0e}", f"{row['gradients']:.0e}", f"{row['compile']:.0f}", f"{row['quick']:.0f}"]
            cells.append(str(row["images"]))
        rows.append([row["architecture"], row["package"], f"{row['parameters'] / 1e6:.1f} M", *cells])
    machine, software = measured["machine"], measured["software"]
    lines = [
        f"From `benchmarks/results/{name}`: commit {software['commit'][:12]}, seed {measured['seed']}, "
        f"{machine['processor']}, {machine['threads']} thread(s), beside other work; "
        f"images of {SIDE}x{SIDE}, torch {software['torch']}, torchax "
        f"{measured['packages']['torchax']}, jax {software['jax']}.",
        "",
        markdown(rows),
    ]
    lines += [f"{row['architecture']}: {row['refused']}\n" for row in measured["rows"] if "refused" in row]
    if measured["golden"]:
        columns = ["network", "images", "reference", "as a module", "images that differ"]
        numbers = [[each[key] for key in ("network", "images", "reference", "robust")] for each in measured["golden"]]
        differing = [", ".join(map(str, each["differing"])) or "none" for each in measured["golden"]]
        cells = [[*map(str, row), which] for row, which in zip(numbers, differing, strict=True)]
        lines += ["Robust images under `standard`:", "", markdown([columns, *cells])]
    return "\n".join(lines).strip()


def main(root: Path) -> None:
    """Rewrites the table under `root`."""
    summary.rewrite(root / PAGE, block(root), MARKERS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
