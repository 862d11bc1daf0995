"""The generated parts of docs/study.md: the controls of self-distillation's gain in the tail, from committed cards."""

import collections
import itertools
import math
import runpy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltrobust.analysis import metrics, seeds
from ltrobust.analysis.intervals import SeedMean, holm
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column, NetworkResult
from ltrobust.report.numbers import NOTHING, markdown, p_value
from tools.committed import MARK, failures, read_card, remarks
from tools.evidence_files import differing

PAGE = "docs/study.md"
# Forward passes of an image in a step of ten attack steps, as `PASSES` of benchmarks/flops.py counts them.
# Logits only: those of AT-BSL, and one of the teacher.
PASSES = {"at_bsl": 23, "teacher": 23, "logits only": 24, "with gradient matching": 29}
IMBALANCE = "imbalance_cifar10_cpu"  # the sweep whose passes are counted
SWEEPS = ("controls_cifar10_cpu", "controls_digits")
FIRST, SECOND = "self_distillation", "at_bsl"  # of the primary comparison
LAST = "student/last"
RUNS = "Runs: commit of the training, and minutes by the clock of the last command, on one core beside other work"
# Ends of variants that are trained on other images than the rest.
ORDERS = ("reversed", "random0", "random1", "resplit")
# What a row is, in the order of the rows.
VARIANTS = {
    "at_bsl": "AT-BSL",
    "self_distillation": "self-distillation, balanced teacher",
    "self_distillation:teacher/last": "its teacher",
    "counts_teacher": "teacher: AT-BSL on all images, as many updates",
    "counts_teacher_500": "teacher: AT-BSL on all images, twice the updates",
    "counts_teacher_5_epochs": "teacher: AT-BSL on all images, 5 epochs",
    "plain_teacher": "teacher: PGD-AT on all images",
    "at_bsl_matched": "AT-BSL, as many passes as teacher and student",
    "at_bsl_tau1.5": "AT-BSL, 1.5 log n",
    "at_bsl_tau2": "AT-BSL, 2 log n",
    "at_bsl_offset": "AT-BSL, then offsets tau log(n_max / n), fitted on validation",
    "pgd_at_balanced": "PGD-AT on the balanced subset, the student's updates",
    "pgd_at": "PGD-AT",
    "natural": "natural training",
    "teacher_8": "balanced teacher, 8 images a class",
    "teacher_89": "balanced teacher, 89 images a class",
    "teacher_redrawn": "balanced teacher, a new draw every epoch",
    "at_bsl_resplit": "AT-BSL, other images for every seed",
    "self_distillation_resplit": "self-distillation, other images for every seed",
    "at_bsl_reversed": "AT-BSL, classes in reverse",
    "self_distillation_reversed": "self-distillation, classes in reverse",
    "at_bsl_random0": "AT-BSL, first random order",
    "self_distillation_random0": "self-distillation, first random order",
    "at_bsl_random1": "AT-BSL, second random order",
    "self_distillation_random1": "self-distillation, second random order",
}


class Group(NamedTuple):
    """The cards of one sweep at one place on its axes.

    Attributes:
      title: of the data.
      cards: variant -> seed -> card.
      files: variant -> seed -> the card's file.
      planned: seeds of a finished sweep.
    """

    title: str
    cards: Mapping[str, Mapping[int, Card]]
    files: Mapping[str, Mapping[int, Path]] = {}
    planned: int = 0


class Row(NamedTuple):
    """A variant over its seeds.

    Attributes:
      name: of `VARIANTS`.
      number: of seeds.
      pairs: seeds that the variant has in common with the one that it is compared with.
      head, tail: accuracy in the headline.
      gain, head_gain: minus the variant that it is compared with, paired by seed; None without two common seeds.
      predicted: share of clean test images for which a class of the tail is predicted, mean over seeds.
      remarks: on seeds whose network is not trustworthy.
    """

    name: str
    number: int
    pairs: Sequence[int]
    head: SeedMean | None
    tail: SeedMean | None
    gain: SeedMean | None
    head_gain: SeedMean | None
    predicted: float
    remarks: Sequence[str]

    @property
    def title(self) -> str:
        """What the row is, with a mark where there are remarks."""
        return VARIANTS[self.name] + (MARK if self.remarks else "")


def groups(root: Path) -> Iterator[Group]:
    """The committed cards of the controls, CIFAR-10-LT from the largest ratio on, then digits."""
    for sweep in SWEEPS:
        places: dict[float, dict[str, dict[int, Path]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
        paths = [(root / "results" / kind / sweep).glob("*.json") for kind in ("sweeps", "offset")]
        for path in sorted(itertools.chain(*paths)):
            card = read_card(path)
            places[card.data.imbalance_ratio][path.stem.split("-")[0]][card.seed] = path
        for ratio, files in sorted(places.items(), reverse=True):
            cards = {name: {seed: read_card(path) for seed, path in own.items()} for name, own in files.items()}
            title = {"cifar10": "CIFAR-10-LT"}.get(next(iter(next(iter(cards.values())).values())).data.name, "digits")
            yield Group(f"{title}, imbalance ratio {ratio:g}", cards, files, planned_seeds(root, sweep))


def planned_seeds(root: Path, sweep: str) -> int:
    """How many seeds a sweep's file asks for.

    Raises:
      ValueError: the sweep has no seeds.
    """
    file = root / "configs" / "sweeps" / f"{sweep}.py"
    axes = runpy.run_path(str(file)).get("AXES", {})
    if "seed" not in axes:
        raise ValueError(f"{file} has no `seed` in AXES; a study is over training seeds.")
    return len(axes["seed"])


def baseline_of(name: str) -> str:
    """The variant that a row is compared with: AT-BSL of the same images."""
    order = name.rpartition("_")[2]
    return f"{SECOND}_{order}" if order in ORDERS else SECOND


def rows(group: Group) -> list[Row]:
    """The rows of a group, in the order of `VARIANTS`."""
    result = []
    for name in VARIANTS:
        networks = _networks(group, name)
        if not networks:
            continue
        own_cards = group.cards[name.partition(":")[0]]
        counts = next(iter(own_cards.values())).data.class_counts
        headline = next(iter(own_cards.values())).protocol.headline
        columns = {seed: network.columns[headline] for seed, network in networks.items()}
        base_name = baseline_of(name)
        base = {seed: network.columns[headline] for seed, network in _networks(group, base_name).items()}
        other = base if base_name != name else {}
        head, tail = (_mean(list(columns.values()), view, counts) for view in ("head_third", "tail_third"))
        pairs = sorted(columns.keys() & other.keys())
        differ = [_differing(group, name, base_name, seed, headline) for seed in pairs]
        both = [(columns[seed], other[seed]) for seed in pairs]
        gain, head_gain = (_difference(both, view, counts, differ) for view in ("tail_third", "head_third"))
        shares = [tail_share(network, counts) for network in networks.values()]
        notes = list(remarks(VARIANTS[name], networks))
        result.append(Row(name, len(networks), pairs, head, tail, gain, head_gain, float(np.mean(shares)), notes))
    return result


def _networks(group: Group, name: str) -> dict[int, NetworkResult]:
    """Seed -> network of a row."""
    variant, _, network = name.partition(":")
    result = group.cards.get(variant, {})
    wanted = network or (f"{LAST}+class_logit_offset" if variant.endswith("_offset") else LAST)
    return {seed: card.networks[wanted] for seed, card in sorted(result.items()) if wanted in card.networks}


def tail_share(network: NetworkResult, training_counts: Sequence[int]) -> float:
    """Share of clean test images for which a class of the tail is predicted."""
    assert network.confusion is not None
    matrix = np.array(network.confusion["clean"])
    return float(matrix[:, metrics.groups(np.array(training_counts))["tail_third"]].sum() / matrix.sum())


def _mean(columns: Sequence[Column], view: str, training_counts: Sequence[int]) -> SeedMean | None:
    """Over seeds, or None for a single one."""
    return seeds.of_columns(columns, view, training_counts) if len(columns) > 1 else None


def _differing(group: Group, first: str, second: str, seed: int, column: str) -> np.ndarray | None:
    """Images per class that only one of two rows' networks of a seed gets right, if their predictions are kept."""
    one, two = (group.files.get(name, {}).get(seed) for name in (first, second))
    return differing(one, two, column) if one and two else None


def _difference(
    pairs: Sequence[tuple[Column, Column]],
    view: str,
    training_counts: Sequence[int],
    differ: Sequence[np.ndarray | None],
) -> SeedMean | None:
    """First minus second over common seeds, or None for fewer than two."""
    return seeds.of_differences(pairs, view, training_counts, differ) if len(pairs) > 1 else None


def controls(root: Path) -> str:
    """A table for each group with the primary comparison before it, and what was run after it."""
    found = [(group, rows(group)) for group in groups(root)]
    gains = [gain_of(result) for _, result in found]
    corrected = holm(np.array([math.nan if gain is None else gain.p for gain in gains]))
    parts = []
    for (group, result), p in zip(found, corrected, strict=True):
        sentence = primary(group, result, float(p))
        parts.append(f"### {group.title}\n\n{about(group)}\n\n{sentence}\n\n{table(result)}\n{RUNS}\n\n{runs(group)}")
    return "\n".join(parts) or "No control has been run.\n"


def gain_of(found: Sequence[Row]) -> SeedMean | None:
    """The primary difference of a group's rows, if it is there."""
    return next((row.gain for row in found if row.name == FIRST), None)


def about(group: Group) -> str:
    """What the numbers of a group depend on."""
    card = next(iter(next(iter(group.cards.values())).values()))
    data = card.data
    totals = next(iter(card.networks.values())).columns["clean"].total
    images = " to ".join(str(number) for number in sorted({min(totals), max(totals)}))
    return (
        f"{sum(data.class_counts)} training images, {card.model.parameters:,} parameters, {card.threat.norm} "
        f"{card.threat.radius:g}/255, {data.evaluated:,} test images ({images} a class), AutoAttack "
        f"(`{card.protocol.name}`), last weights. Accuracies and differences in percent, "
        "± the deviation over seeds, with 95 % t-intervals, of differences from AT-BSL of the same images too; p of "
        "paired t-tests, after Holm's correction over this table. The deviation is taken to be at least the error over "
        "test images, of independent verdicts where the predictions of both networks are not kept."
    )


def runs(group: Group) -> str:
    """Commit and minutes of every run, a row for each variant and a column for each seed."""
    numbers = sorted({seed for own in group.cards.values() for seed in own})
    lines = [["", *(f"seed {seed}" for seed in numbers)]]
    for name in (name for name in VARIANTS if name in group.cards):
        own = group.cards[name]
        lines.append([VARIANTS[name], *(_run(own[seed]) if seed in own else NOTHING for seed in numbers)])
    return markdown(lines)


def _run(card: Card) -> str:
    """`a4f3b79f, 75 min`."""
    commits = sorted({run.software["commit"][:8] for run in card.training.values()})
    return f"{', '.join(commits)}, {card.seconds / 60:.0f} min"


def primary(group: Group, found: Sequence[Row], corrected: float) -> str:
    """The primary comparison in a sentence: corrected for the other data sets, on how many pairs, and of what networks.

    Args:
      group: of the rows.
      found: its rows.
      corrected: p after Holm's correction over the groups.
    """
    row = next((row for row in found if row.name == FIRST), None)
    if row is None or row.gain is None:
        return "**Primary comparison: missing**, since fewer than two seeds have both runs."
    number = len(row.pairs)
    networks = [_networks(group, name)[seed] for name in (FIRST, SECOND) for seed in row.pairs]
    failed = sum(bool(failures(network)) for network in networks)
    interim = f" Interim: {group.planned} pairs are planned." if number < group.planned else ""
    doubt = f" {failed} of the {2 * number} networks are not trustworthy (†)." if failed else ""
    return (
        f"**Primary comparison, {FIRST} minus {SECOND} in the tail: {_points(row.gain)}, p {p_value(row.gain.p)}** "
        f"({p_value(corrected)} with Holm's correction over the data sets), {number} pairs of seeds.{interim}{doubt} "
        "All other rows are exploratory."
    )


def table(found: Sequence[Row]) -> str:
    """Markdown of the rows."""
    exploratory = [row for row in found if row.gain is not None and row.name != FIRST]
    corrected = dict(
        zip(
            (row.name for row in exploratory),
            holm(np.array([row.gain.p for row in exploratory if row.gain is not None])),
            strict=True,
        )
    )
    header = ["", "seeds", "tail", "minus AT-BSL", "p", "head", "minus AT-BSL", "tail predicted, clean"]
    lines = [
        [
            row.title,
            str(row.number)
            if row.gain is None or row.number == len(row.pairs)
            else f"{row.number} ({len(row.pairs)} pairs)",
            _accuracy(row.tail),
            _points(row.gain),
            "primary" if row.name == FIRST else p_value(corrected[row.name]) if row.name in corrected else NOTHING,
            _accuracy(row.head),
            _points(row.head_gain),
            f"{100 * row.predicted:.1f}",
        ]
        for row in found
    ]
    return "\n".join([markdown([header, *lines]), *(remark for row in found for remark in row.remarks)])


def _accuracy(found: SeedMean | None) -> str:
    """`34.1 ± 0.9 [33.0, 35.2]`, ± the deviation over seeds, or a dash for a single seed."""
    if found is None:
        return NOTHING
    return f"{100 * found.mean:.1f} ± {100 * found.sd:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _points(found: SeedMean | None) -> str:
    """`+1.1 [0.2, 2.0]`, or a dash."""
    return NOTHING if found is None else f"{100 * found.mean:+.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def passes(root: Path) -> str:
    """The table of passes of student and teacher by those of AT-BSL, at every ratio of the sweep."""
    forms = ("logits only", "with gradient matching")
    lines = [["imbalance ratio", "updates of the student", "of the teacher", *forms]]
    for ratio in (10.0, 50.0, 100.0):
        folder = root / "results" / "sweeps" / IMBALANCE
        distilled, plain = (
            read_card(folder / f"{variant}-imbalance_ratio{ratio}-seed0.json").training
            for variant in ("self_distillation_logits", "at_bsl")
        )
        student, teacher = distilled["student"].steps, distilled["teacher"].steps
        alone = plain["student"].steps * PASSES["at_bsl"]
        multiples = [(student * PASSES[form] + teacher * PASSES["teacher"]) / alone for form in forms]
        lines.append([f"{ratio:g}", str(student), str(teacher), *(f"{multiple:.2f}" for multiple in multiples)])
    return markdown(lines)
