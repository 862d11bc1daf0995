"""What the short tables of docs/study.md must say, from the committed cards of its sweep."""

from collections.abc import Sequence
from pathlib import Path

from ltrobust.analysis import cards, seeds
from ltrobust.analysis.intervals import SeedMean
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column

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
        rows[row] = [_mean(seeds.of_columns(*_tails(root, variant, *pair, network))) for pair in pairs]
    # Differences are paired by seed.
    gains = []
    for pair in pairs:
        (first, view, counts), (second, _, _) = (_tails(root, name, *pair) for name in ("self_distillation", "at_bsl"))
        gains.append(_mean(seeds.of_differences(list(zip(first, second, strict=True)), view, counts)))
    rows["self-distillation minus AT-BSL"] = gains
    return rows | dict(_costs(root, ratio) for ratio in RATIOS)


def _card(root: Path, variant: str, ratio: str, seed: int) -> Card:
    """One run's card."""
    return cards.read(root / SWEEP / f"{variant}-imbalance_ratio{ratio}-seed{seed}.json")


def _tails(
    root: Path, variant: str, ratio: str, column: str, network: str = "student/last"
) -> tuple[list[Column], str, Sequence[int]]:
    """A column of each seed, the view of the three rarest classes, and the training images."""
    found = [_card(root, variant, ratio, seed) for seed in SEEDS]
    return [card.networks[network].columns[column] for card in found], "tail_third", found[0].data.class_counts


def _mean(found: SeedMean) -> str:
    """Mean and t-interval in percent."""
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


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
