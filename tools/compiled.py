"""Writes the table of docs/results/compiled.md from the files in benchmarks/results/compile_ahead/. No JAX.

python -m tools.compiled
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools import summary

PAGE, MARKERS = "docs/results/compiled.md", "compiled"
HEADER = (
    *("recipe", "topology", "program", "images a chip", "MiB a chip", "ms, model", "images/s, model", "of peak, model"),
    *("all-reduces", "KiB"),
)


def table(root: Path) -> str:
    """One line for each step of training, and for the attacks of each evaluation."""
    rows = [[*HEADER]]
    for path in sorted((root / "benchmarks" / "results" / "compile_ahead").glob("*.json")):
        case = json.loads(path.read_text())
        rows += [_line(case, row) for row in case["rows"] if _shown(row["program"])]
    return summary.markdown(rows)


def _shown(program: str) -> bool:
    """Whether a program has a line; the files have all of them."""
    return program.endswith(" step") or "quick: pgd " in program or ("standard: " in program and "start" not in program)


def _line(case: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    if row["problem"]:
        return [case["recipe"], case["topology"], row["program"], "", row["problem"], *[""] * 5]
    seconds, sent = row["seconds"], row["collectives"]
    return [
        case["recipe"],
        case["topology"],
        row["program"],
        f"{row['images'] / row['chips']:g}",
        f"{row['memory'] / 2**20:.0f}" if row["memory"] >= 2**20 else "under 1",
        f"{1e3 * seconds:.3g}" if seconds else "",
        f"{row['images'] / seconds:,.0f}" if seconds else "",
        f"{row['share_of_peak']:.1%}" if seconds else "",
        str(sum(entry["count"] for entry in sent)),
        f"{sum(entry['bytes'] for entry in sent) / 1024:,.0f}",
    ]


def main(root: Path) -> None:
    """Rewrites the table of docs/results/compiled.md under `root`."""
    summary.rewrite(root / PAGE, table(root), MARKERS)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
