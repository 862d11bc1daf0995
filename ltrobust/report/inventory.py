"""What was used and passed over of a folder of images, as a table for a terminal. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.report import tables

# Of more classes, only those with something passed over are shown.
_ALL_CLASSES = 20


def render(files: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """One line per class: images used, and files passed over by reason; then the totals.

    Args:
      files: a split's part of a card's `data.files`.
      class_names: in label order.
    """
    reasons = files["passed_over"]
    rows = [
        [name, str(used), *(_number(tally["classes"].get(name, 0)) for tally in reasons.values())]
        for name, used in zip(class_names, files["used"], strict=True)
        if len(class_names) <= _ALL_CLASSES or any(name in tally["classes"] for tally in reasons.values())
    ]
    outside = [_number(tally["classes"].get("", 0)) for tally in reasons.values()]
    if any(outside):
        rows.append(["(no class)", "", *outside])
    total = ["all", str(sum(files["used"])), *(str(tally["count"]) for tally in reasons.values())]
    header = [
        "class",
        "used",
        *(f"passed over: {reason}" if not place else reason for place, reason in enumerate(reasons)),
    ]
    return tables.align([header, *rows, total])


def _number(count: int) -> str:
    """Zeros are left out, so that the others stand out."""
    return str(count) if count else ""
