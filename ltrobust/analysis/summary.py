"""An evaluation as a readable table."""

from typing import TYPE_CHECKING

import numpy as np

from ltrobust.analysis import intervals, metrics
from ltrobust.evaluation import protocols
from ltrobust.sanity.rules import verdict

if TYPE_CHECKING:
    from ltrobust.analysis.evaluation import Evaluation


def summarise(evaluation: "Evaluation") -> str:
    """Every column overall (Wilson 95 %), balanced, and in the worst class; then notes and the sanity checks."""
    number, classes = len(evaluation.labels), evaluation.num_classes
    lines = [
        f"protocol {evaluation.protocol.name}, {evaluation.threat}, {number} images, {classes} classes; "
        "percent with 95 % intervals",
        f"{'':<28}{'all':>22}{'balanced':>22}{'worst class':>26}",
    ]
    for column in evaluation.columns:
        counts = evaluation.counts(column)
        overall = intervals.wilson(counts.correct.sum(), counts.total.sum())
        balanced = metrics.macro(counts, np.arange(classes))
        worst = metrics.lowest(counts, 1)
        lines.append(
            f"{protocols.title(column, classes):<28}{_interval(overall):>22}{_interval(balanced):>22}"
            f"{f'{_interval(worst)} ({int(np.nanargmin(counts.accuracy))})':>26}"
        )
    if evaluation.protocol.note:
        lines.append(f"note: {evaluation.protocol.note}")
    rounded = evaluation.correct_after_rounding(evaluation.protocol.headline)
    lines.append(
        f"{protocols.title(evaluation.protocol.headline, classes)} with adversarial images rounded to 8 bits: "
        f"{100 * np.mean(rounded):.2f}; claims rejected by exact verification: {evaluation.rejected_claims}; "
        f"exact ties on clean images: {int(np.sum(evaluation.clean_tied))}"
    )
    if evaluation.sanity:
        unchecked = [
            f"{item.check} ({item.id})" for item in evaluation.sanity if item.required and item.status == "skipped"
        ]
        failed = [f"{item.check} ({item.id})" for item in evaluation.sanity if item.required and item.status == "fail"]
        reasons = [
            f"{what}: {', '.join(items)}" for what, items in (("failed", failed), ("not checked", unchecked)) if items
        ]
        explanation = f" ({'; '.join(reasons)})" if reasons else ""
        lines += ["", f"sanity checks: {verdict(evaluation.sanity)}{explanation}", *map(str, evaluation.sanity)]
    return "\n".join(lines)


def _interval(estimate: intervals.Estimate) -> str:
    """`34.12 [33.2, 35.1]` in percent."""
    return f"{100 * estimate.value:.2f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
