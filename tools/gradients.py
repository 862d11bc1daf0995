"""The table of how alike input gradients of students and their teacher are, with IGDM and without. No JAX."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltrobust.analysis.intervals import t_interval
from ltrobust.report.numbers import differences, markdown, over_seeds

IGDM = "+igdm"
COLUMNS = (
    ("cosine", "cosine"),
    ("distance", "L2 distance"),
    ("student_remainder", "linearity remainder, student"),
)


def render(folder: Path) -> str:
    """Markdown over seeds: every variant, then what IGDM changes, paired by seed.

    Args:
      folder: of the files that `ltrobust agree --json=VARIANT-seedN.json` writes, all with one teacher
        for each seed; a variant with IGDM is named as the one without, and `+igdm`.

    Raises:
      ValueError: a variant with fewer than two seeds, which has no interval over seeds.
    """
    result: dict[str, dict[str, Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem.split("-seed")):
        variant, _, seed = path.stem.partition("-seed")
        result.setdefault(variant, {})[seed] = json.loads(path.read_text())
    few = [variant for variant, seeds in result.items() if len(seeds) < 2]
    if few:
        raise ValueError(f"{folder} holds one seed of {', '.join(few)}; give at least two.")
    header = ["variant", "seeds", *(title for _, title in COLUMNS)]
    rows = [
        [variant, str(len(seeds)), *(_cell(_values(seeds, key)) for key, _ in COLUMNS)]
        for variant, seeds in result.items()
    ]
    changes = []
    for variant, with_igdm in result.items():
        base = result.get(variant.removesuffix(IGDM), {})
        common = sorted(with_igdm.keys() & base.keys())
        if not variant.endswith(IGDM) or len(common) < 2:
            continue
        pairs = {key: [with_igdm[s][key]["value"] - base[s][key]["value"] for s in common] for key, _ in COLUMNS}
        name = f"{variant} minus {variant.removesuffix(IGDM)}"
        changes.append((name, len(common), [t_interval(pairs[key]) for key, _ in COLUMNS]))
    titles = [title for _, title in COLUMNS]
    return markdown([header, *rows]) + "\n" + differences(titles, changes, unit=1.0, digits=3)


def _values(seeds: Mapping[str, Mapping[str, Any]], key: str) -> list[float]:
    """One number of each seed."""
    return [seeds[seed][key]["value"] for seed in sorted(seeds)]


def _cell(values: list[float]) -> str:
    """A plain number over seeds."""
    return over_seeds(t_interval(values), unit=1.0, digits=3)
