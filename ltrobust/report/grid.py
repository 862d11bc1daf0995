"""The table of a sweep: cards grouped into rows, numbers over seeds. No JAX."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from ltrobust.analysis import metrics, seeds
from ltrobust.analysis.intervals import SeedMean, t_interval
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column, NetworkResult
from ltrobust.report import numbers
from ltrobust.report.numbers import NUMBERS, markdown, one_run, over_seeds

LAST = "student/last"
# What else has a row, under the variant's name and these words.
FURTHER = {"student/averaged": "averaged", "teacher/last": "teacher phase"}
COLUMNS = (*NUMBERS, ("PGD-20, sd of classes", "pgd20", "sd"))

Networks = Sequence[NetworkResult]


def render(titles: Sequence[str], cards: Sequence[tuple[tuple[str, ...], Card]]) -> str:
    """Markdown: overall, tail and worst-class numbers of the students, then their robust accuracy by class.

    Args:
      titles: of the columns that name a row.
      cards: a row's names and one of its cards, in the order of the rows.

    A row is of the student's last weights; averaged ones and the teacher have rows of their own after it. Numbers of
    several seeds are mean ± sample deviation with the mean's 95 % t-interval, of a single one its 95 % interval over
    test images, which a deviation over classes does not have; in percent.
    """
    if not cards:
        return "nothing is finished\n"
    rows: dict[tuple[str, ...], list[NetworkResult]] = {}
    for names, card in cards:
        rows.setdefault(names, []).append(card.networks[LAST])
        for network, words in FURTHER.items():
            if network in card.networks:
                rows.setdefault((f"{names[0]}, {words}", *names[1:]), []).append(card.networks[network])
    header = [*titles, "seeds", *(title for title, _, _ in COLUMNS)]
    overall = [
        [*names, str(len(found)), *_numbers(found, cards[0][1].data.class_counts)] for names, found in rows.items()
    ]
    return markdown([header, *overall]) + "\n" + _by_class(titles, rows, cards[0][1])


def render_differences(cards: Sequence[tuple[str, Card]], baseline: str) -> str:
    """Markdown: every other variant minus the baseline, paired by training seed; empty where no two seeds are common.

    Args:
      cards: a variant and one of its cards, in the order of the rows.
      baseline: a variant.
    """
    runs, counts = _by_seed(cards), cards[0][1].data.class_counts if cards else ()
    base, rows = runs.get(baseline, {}), []
    for variant, own in runs.items():
        pairs = [(own[seed], base[seed]) for seed in sorted(own.keys() & base.keys())]
        if variant != baseline and len(pairs) > 1:
            rows.append((f"{variant} minus {baseline}", len(pairs), differences_of(pairs, counts)))
    return numbers.differences([title for title, _, _ in NUMBERS], rows) if rows else ""


def differences_of(
    pairs: Sequence[tuple[Mapping[str, Column], Mapping[str, Column]]], training_counts: Sequence[int]
) -> list[SeedMean | None]:
    """First minus second over seeds for each of `NUMBERS`; None where the cards have no such column."""
    found = []
    for _, column, view in NUMBERS:
        both = [(one[column], two[column]) for one, two in pairs if column in one and column in two]
        found.append(seeds.of_differences(both, view, training_counts) if len(both) > 1 else None)
    return found


def render_gains(cards: Sequence[tuple[str, Card]], baseline: str, reference: str) -> str:
    """Markdown: what each variant gains on each class over the baseline, and whether the reference gains on the same.

    A gain is the variant's accuracy under PGD-20 minus the baseline's of the same seed, in points. `alike` is
    Spearman's correlation over classes of the variant's gains of one seed with the reference's of another, so that no
    run of the baseline is in both: mean [least, greatest] over pairs of seeds. Empty where baseline or reference are
    missing, where no two seeds are common to all, and for more than 20 classes.

    Args:
      cards: a variant and one of its cards, in the order of the rows.
      baseline: a variant.
      reference: another.
    """
    runs = _by_seed(cards)
    common = sorted(set.intersection(*(set(own) for own in runs.values()))) if runs else []
    names = cards[0][1].data.class_names if cards else []
    if baseline not in runs or reference not in runs or len(common) < 2 or len(names) > 20:
        return ""
    accuracies = {
        variant: np.array([[found.value for found in own[seed]["pgd20"].per_class] for seed in common])
        for variant, own in runs.items()
    }
    gains = {variant: 100 * (own - accuracies[baseline]) for variant, own in accuracies.items() if variant != baseline}
    header = [f"gain over {baseline}", *names, f"alike: {reference}"]
    rows = [
        [variant, *(f"{gain:+.1f}" for gain in own.mean(axis=0).round(1) + 0.0), _alike(own, gains[reference])]
        for variant, own in gains.items()
    ]
    return f"PGD-20 gained by class, mean of {len(common)} seeds\n\n{markdown([header, *rows])}"


def _alike(gains: np.ndarray, others: np.ndarray) -> str:
    """Rank correlation of two variants' gains [seeds, C], over pairs of different seeds."""
    pairs = [(gains[one], others[two]) for one in range(len(gains)) for two in range(len(others)) if one != two]
    if any(np.ptp(gain) == 0 for pair in pairs for gain in pair):
        return "-"
    found = [float(np.asarray(stats.spearmanr(*pair))[0]) for pair in pairs]
    return f"{np.mean(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def _by_seed(cards: Sequence[tuple[str, Card]]) -> dict[str, dict[int, Mapping[str, Column]]]:
    """Variant -> seed -> columns of the last weights."""
    runs: dict[str, dict[int, Mapping[str, Column]]] = {}
    for variant, card in cards:
        runs.setdefault(variant, {})[card.seed] = card.networks[LAST].columns
    return runs


def _numbers(networks: Networks, training_counts: Sequence[int]) -> list[str]:
    """One row's cells; a dash where the protocol has no such column."""
    return [
        cell([network.columns[name] for network in networks if name in network.columns], view, training_counts)
        for _, name, view in COLUMNS
    ]


def cell(columns: Sequence[Column], view: str, training_counts: Sequence[int]) -> str:
    """One number, over seeds or over test images; a dash where there is none."""
    known = [column for column in columns if view == "sd" or column.view(view) is not None]
    if not known:
        return numbers.NOTHING
    if view == "sd":  # a deviation over classes has no interval over images
        values = [column.sd for column in known]
        return over_seeds(t_interval(values, least=0.0)) if len(values) > 1 else f"{100 * values[0]:.2f}"
    estimate = known[0].view(view)
    if len(known) > 1 or estimate is None:
        return over_seeds(seeds.of_columns(known, view, training_counts))
    return one_run(estimate)


def _by_class(titles: Sequence[str], rows: Mapping[tuple[str, ...], Networks], first: Card) -> str:
    """The headline's accuracy by class, for problems of up to 20 classes; `first` is a card."""
    headline, counts = first.protocol.headline, first.data.class_counts
    if len(counts) > 20:
        return ""
    header = [*titles, *(f"{name} ({count})" for name, count in zip(first.data.class_names, counts, strict=True))]
    lines = []
    for names, networks in rows.items():
        columns = [network.columns[headline] for network in networks]
        lines.append([*names, *(_class(columns, index) for index in range(len(counts)))])
    title = first.protocol.titles.get(headline, headline)
    about = "mean [95 % t-interval] over seeds, or of one run its 95 % interval over test images"
    return f"{title} by class (training images of the first run): {about}\n\n{markdown([header, *lines])}"


def _class(columns: Sequence[Column], index: int) -> str:
    """A class's accuracy in percent: `62.1 [53.8, 70.6]`."""
    one = columns[0].per_class[index]
    mean, low, high = one.value, one.low, one.high
    if len(columns) > 1:
        counts = [(np.array([column.correct[index]]), np.array([column.total[index]])) for column in columns]
        values = [column.per_class[index].value for column in columns]
        mean, _, low, high, _ = t_interval(
            values, [metrics.error_of_mean(*pair) for pair in counts], least=0.0, most=1.0
        )
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
