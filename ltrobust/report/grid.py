"""The table of a sweep: cards grouped into rows, numbers over seeds. No JAX."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from ltrobust.analysis import metrics, seeds
from ltrobust.analysis.intervals import SeedMean, t_interval, wilson
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import Column, NetworkResult
from ltrobust.report import numbers
from ltrobust.report.numbers import markdown, one_run, over_seeds, p_value

LAST = "student/last"
# What else has a row, under the variant's name and these words.
FURTHER = {"student/averaged": "averaged", "teacher/last": "teacher phase"}
SPREAD = ("PGD-20, sd of classes", "pgd20", "sd")
# The comparison that is not exploratory, if a sweep declares no other: first minus second.
PRIMARY = ("self_distillation", "at_bsl")

Networks = Sequence[NetworkResult]


def render(titles: Sequence[str], cards: Sequence[tuple[tuple[str, ...], Card]]) -> str:
    """Markdown: overall, tail and worst-class numbers of the students, head against tail, then accuracy by class.

    Args:
      titles: of the columns that name a row.
      cards: a row's names and one of its cards, in the order of the rows.

    A row is of the student's last weights; averaged ones and the teacher have separate rows after it. Numbers of
    several seeds are mean ± sample deviation with the mean's 95 % t-interval, of a single one its 95 % interval over
    test images, which a deviation over classes does not have; in percent.
    """
    if not cards:
        return "nothing is finished\n"
    rows: dict[tuple[str, ...], list[NetworkResult]] = {}
    # Of each row: another ratio or another order of the classes has another tail.
    counts: dict[tuple[str, ...], Sequence[int]] = {}
    for names, card in cards:
        for network, words in {LAST: "", **FURTHER}.items():
            if network == LAST or network in card.networks:
                row = (f"{names[0]}, {words}", *names[1:]) if words else names
                rows.setdefault(row, []).append(card.networks[network])
                counts[row] = card.data.class_counts
    first = cards[0][1]
    quoted = (*numbers.of_columns(first.networks[LAST].columns), SPREAD)
    header = [*titles, "seeds", *(title for title, _, _ in quoted)]
    overall = [[*names, str(len(result)), *_numbers(result, quoted, counts[names])] for names, result in rows.items()]
    compared = _head_against_tail(titles, rows, counts, first)
    return "\n".join(part for part in (markdown([header, *overall]), compared, _by_class(titles, rows, first)) if part)


def render_differences(cards: Sequence[tuple[str, Card]], baseline: str) -> str:
    """Markdown: every other variant minus the baseline, paired by training seed; empty where no two seeds are common.

    Variants whose classes have other numbers of images than the baseline's, and so another tail, are left out.

    Args:
      cards: a variant and one of its cards, in the order of the rows.
      baseline: a variant.
    """
    runs, counts = _by_seed(cards), {variant: list(card.data.class_counts) for variant, card in cards}
    quoted = numbers.of_columns(cards[0][1].networks[LAST].columns) if cards else ()
    base, rows = runs.get(baseline, {}), []
    for variant, own in runs.items():
        pairs = [(own[seed], base[seed]) for seed in sorted(own.keys() & base.keys())]
        if variant != baseline and len(pairs) > 1 and counts[variant] == counts[baseline]:
            rows.append((f"{variant} minus {baseline}", len(pairs), differences_of(pairs, quoted, counts[variant])))
    return numbers.differences([title for title, _, _ in quoted], rows) if rows else ""


def differences_of(
    pairs: Sequence[tuple[Mapping[str, Column], Mapping[str, Column]]],
    quoted: Sequence[tuple[str, str, str]],
    training_counts: Sequence[int],
) -> list[SeedMean | None]:
    """First minus second over seeds for each quoted number; None where the cards have no such column."""
    result = []
    for _, column, view in quoted:
        both = [(one[column], two[column]) for one, two in pairs if column in one and column in two]
        result.append(seeds.of_differences(both, view, training_counts) if len(both) > 1 else None)
    return result


def render_primary(cards: Sequence[tuple[str, Card]], pair: tuple[str, str] = PRIMARY) -> str:
    """Markdown: the primary comparison, of the tail in the headline of `standard`.

    Args:
      cards: a variant and one of its cards.
      pair: variants; the comparison is first minus second, over seeds.
    """
    title = f"Primary comparison: tail accuracy under `{seeds.PRIMARY_PROTOCOL}`, {pair[0]} minus {pair[1]}"
    counted = [entry for entry in cards if entry[1].protocol.name == seeds.PRIMARY_PROTOCOL]
    runs = _by_seed(counted)
    first, second = (runs.get(name, {}) for name in pair)
    common = sorted(first.keys() & second.keys())
    if len(common) < 2:
        return f"**{title}: missing**, since fewer than two pairs of these cards are of that protocol.\n"
    card, other = (next(card for variant, card in counted if variant == name) for name in pair)
    if list(card.data.class_counts) != list(other.data.class_counts):
        return f"**{title}: missing**, since their classes have other numbers of images, and so another tail.\n"
    columns = [(first[seed][card.protocol.headline], second[seed][card.protocol.headline]) for seed in common]
    result = seeds.of_differences(columns, seeds.PRIMARY_VIEW, card.data.class_counts)
    return f"**{title}: {over_seeds(result)}, p {p_value(result.p)}**, {len(common)} seeds.\n"


def render_gains(cards: Sequence[tuple[str, Card]], baseline: str, reference: str) -> str:
    """Markdown: what each variant gains on each class over the baseline, and whether the reference gains on the same.

    A gain is the variant's accuracy under PGD-20 minus the baseline's of the same seed, in points. `alike` is
    Spearman's correlation over classes of the variant's gains of one seed with the reference's of another, so that no
    run of the baseline is in both: mean [least, greatest] over pairs of seeds. Variants whose classes have other
    numbers of images than the baseline's are left out. Empty where baseline or reference are missing, where no two
    seeds are common to all, and for more than 20 classes.

    Args:
      cards: a variant and one of its cards, in the order of the rows.
      baseline: a variant.
      reference: another.
    """
    counts = {variant: list(card.data.class_counts) for variant, card in cards}
    runs = {variant: own for variant, own in _by_seed(cards).items() if counts[variant] == counts.get(baseline)}
    common = sorted(set.intersection(*(set(own) for own in runs.values()))) if runs else []
    names = cards[0][1].data.class_names if cards else []
    if baseline not in runs or reference not in runs or len(common) < 2 or len(names) > 20:
        return ""
    accuracies = {
        variant: np.array([[result.value for result in own[seed]["pgd20"].per_class] for seed in common])
        for variant, own in runs.items()
    }
    gains = {variant: 100 * (own - accuracies[baseline]) for variant, own in accuracies.items() if variant != baseline}
    header = [f"gain over {baseline}", *names, f"alike: {reference}"]
    rows = [
        [variant, *(f"{gain:+.1f}" for gain in own.mean(axis=0).round(1) + 0.0), _alike(own, gains[reference])]
        for variant, own in gains.items()
    ]
    caption = (
        f"PGD-20 gained by class, mean of {len(common)} seeds; alike: rank correlation with {reference}'s gains, "
        "mean [least, greatest] over pairs of seeds"
    )
    return f"{caption}\n\n{markdown([header, *rows])}"


def _alike(gains: np.ndarray, others: np.ndarray) -> str:
    """Rank correlation of two variants' gains [seeds, C], over pairs of different seeds."""
    pairs = [(gains[one], others[two]) for one in range(len(gains)) for two in range(len(others)) if one != two]
    if any(np.ptp(gain) == 0 for pair in pairs for gain in pair):
        return "-"
    result = [float(np.asarray(stats.spearmanr(*pair))[0]) for pair in pairs]
    return f"{np.mean(result):.2f} [{min(result):.2f}, {max(result):.2f}]"


def _by_seed(cards: Sequence[tuple[str, Card]]) -> dict[str, dict[int, Mapping[str, Column]]]:
    """Variant -> seed -> columns of the last weights."""
    runs: dict[str, dict[int, Mapping[str, Column]]] = {}
    for variant, card in cards:
        runs.setdefault(variant, {})[card.seed] = card.networks[LAST].columns
    return runs


def _numbers(networks: Networks, quoted: Sequence[tuple[str, str, str]], training_counts: Sequence[int]) -> list[str]:
    """One row's cells; a dash where the protocol has no such column."""
    return [
        cell([network.columns[name] for network in networks if name in network.columns], view, training_counts)
        for _, name, view in quoted
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


def _head_against_tail(
    titles: Sequence[str],
    rows: Mapping[tuple[str, ...], Networks],
    counts: Mapping[tuple[str, ...], Sequence[int]],
    first: Card,
) -> str:
    """Each row's accuracy in head and tail, and how often it predicts a class of its tail; `first` is a card.

    Empty where there is no tail. On the frontier is a row than which no other is better in both, by their means. Rows
    of fewer seeds than the most are left out of it: their means vary more, and the best of many would be one of them.
    """
    headline = first.protocol.headline
    tails = {names: metrics.groups(np.array(result))["tail_third"] for names, result in counts.items()}
    total = np.array(first.networks[LAST].columns["clean"].total)
    if not all(map(len, tails.values())) or not total.sum():
        return ""
    views = [(column, view) for view in ("head_third", "tail_third") for column in ("clean", headline)]
    most = max(map(len, rows.values()))
    means = {
        names: tuple(
            float(np.mean([network.columns[headline].value(view) for network in result]))
            for view in ("head_third", "tail_third")
        )
        for names, result in rows.items()
        if len(result) == most
    }
    titled = first.protocol.titles.get(headline, headline)
    header = [f"{name}, {group}" for group in ("head", "tail") for name in ("clean", titled)]
    header = [*titles, *header, "tail predicted, clean", f"tail predicted, {titled}", "frontier"]
    lines = []
    for names, result in rows.items():
        cells = [cell([network.columns[column] for network in result], view, counts[names]) for column, view in views]
        confusions = [network.confusion for network in result]
        cells += [_predicted(confusions, column, tails[names]) for column in ("clean", headline)]
        lines.append(
            [*names, *cells, _on_frontier(means[names], means.values()) if names in means else numbers.NOTHING]
        )
    share = 100 * total[next(iter(tails.values()))].sum() / total.sum()
    caption = (
        f"Head against tail. Predicted: share of test images for which a class of the tail is predicted; {share:.1f} % "
        f"are of one (first row). Frontier, of rows with {most} seed{'s' * (most > 1)}: no other has a higher mean in "
        "head and tail both"
    )
    return f"{caption}\n\n{markdown([header, *lines])}"


def _on_frontier(own: tuple[float, ...], others: Iterable[tuple[float, ...]]) -> str:
    """`yes`, or nothing where another row is higher in all."""
    return "" if any(all(b > a for a, b in zip(own, other, strict=True)) for other in others) else "yes"


def _predicted(
    confusions: Sequence[Mapping[str, Sequence[Sequence[int]]] | None], column: str, classes: np.ndarray
) -> str:
    """Share of images predicted as one of some classes, over seeds or test images; a dash where it is not known."""
    known = [np.array(result[column]) for result in confusions if result is not None and column in result]
    if not known:
        return numbers.NOTHING
    counts = [(int(matrix[:, classes].sum()), int(matrix.sum())) for matrix in known]
    if len(counts) == 1:
        return one_run(wilson(*counts[0]))
    errors = [metrics.error_of_mean(np.array([k]), np.array([n])) for k, n in counts]
    return over_seeds(t_interval([k / n for k, n in counts], errors, least=0.0, most=1.0))


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
    caption = "mean [95 % t-interval] over seeds, or of one run its 95 % interval over test images"
    return f"{title} by class (training images of the first run): {caption}\n\n{markdown([header, *lines])}"


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
