"""What the short tables of docs/study.md must say, from the committed cards of its sweep."""

from pathlib import Path

import numpy as np

from ltrobust.analysis import cards
from ltrobust.analysis.schema.card import Card
from ltrobust.report.numbers import t_interval

PAGE = "docs/study.md"
SWEEP = Path("results") / "sweeps" / "imbalance_cifar10_cpu"
RATIOS, SEEDS, COLUMNS = ("10.0", "50.0", "100.0"), (0, 1, 2), ("pgd20", "worst")
PASSES = {"teacher": 23, "at_bsl": 23, "logits only": 24, "with gradient matching": 29}  # docs/performance.md
# Row of the first table -> the sweep's variant, and the network of its cards.
TAILS = {
    "PGD-AT": ("pgd_at", "student/last"),
    "AT-BSL": ("at_bsl", "student/last"),
    "self-distillation, logits only": ("self_distillation_logits", "student/last"),
    "self-distillation": ("self_distillation", "student/last"),
    "the teacher": ("self_distillation_logits", "teacher/last"),
}


def written(root: Path) -> dict[str, list[str]]:
    """Cells of every table row of the page by the row's first cell."""
    lines = (root / PAGE).read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def expected(root: Path) -> dict[str, list[str]]:
    """Cells of the rows that follow from the cards, in the same form."""
    pairs = [(ratio, column) for ratio in RATIOS for column in COLUMNS]
    rows = {}
    for row, (variant, network) in TAILS.items():
        rows[row] = [_interval(_tails(root, variant, *pair, network), 0, 100) for pair in pairs]
    # Differences are paired by seed.
    gains = [_tails(root, "self_distillation", *pair) - _tails(root, "at_bsl", *pair) for pair in pairs]
    rows["self-distillation minus AT-BSL"] = [_interval(values, -100, 100) for values in gains]
    return rows | dict(_costs(root, ratio) for ratio in RATIOS)


def _card(root: Path, variant: str, ratio: str, seed: int) -> Card:
    """One run's card."""
    return cards.read(root / SWEEP / f"{variant}-imbalance_ratio{ratio}-seed{seed}.json")


def _tails(root: Path, variant: str, ratio: str, column: str, network: str = "student/last") -> np.ndarray:
    """Percent right of the three rarest classes, by seed."""
    columns = [_card(root, variant, ratio, seed).networks[network].columns[column] for seed in SEEDS]
    return 100 * np.array([one.value("tail_third") for one in columns])


def _interval(values: np.ndarray, least: float, most: float) -> str:
    """Mean and t-interval, cut at what is possible."""
    low, high = t_interval(values)
    return f"{np.mean(values):.1f} [{max(low, least):.1f}, {min(high, most):.1f}]"


def _costs(root: Path, ratio: str) -> tuple[str, list[str]]:
    """The row of a ratio, and passes of both forms of self-distillation over those of AT-BSL."""
    training = _card(root, "self_distillation_logits", ratio, 0).training
    student, teacher = training["student"].steps, training["teacher"].steps
    if _card(root, "at_bsl", ratio, 0).training["student"].steps != student:
        raise ValueError(f"{SWEEP}: at ratio {ratio} AT-BSL and self-distillation have other numbers of steps.")
    passes = [
        student * PASSES[form] + teacher * PASSES["teacher"] for form in ("logits only", "with gradient matching")
    ]
    return f"ratio {float(ratio):g}: {student} and {teacher}", [
        f"{value / (student * PASSES['at_bsl']):.2f}" for value in passes
    ]
