"""The table of a sweep: cards grouped into rows, numbers over seeds. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.reporting.numbers import NUMBERS, markdown, one_run, over_seeds, t_interval

LAST, AVERAGED = "student/last", "student/averaged"
COLUMNS = (*NUMBERS, ("PGD-20, sd of classes", "pgd20", "sd"))

# A row's networks, as the cards hold them.
Networks = Sequence[Mapping[str, Any]]


def render(titles: Sequence[str], cards: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]) -> str:
    """Markdown: overall, tail and worst-class numbers of the students, then their robust accuracy by class.

    Args:
      titles: of the columns that name a row.
      cards: a row's names and one of its cards, in the order of the rows.

    A row is of the last weights; averaged ones have a row of their own after it. Numbers of several seeds are mean ±
    sample deviation with the mean's 95 % t-interval, of a single one its 95 % interval over test images, which a
    deviation over classes does not have; in percent.
    """
    if not cards:
        return "nothing is finished\n"
    rows: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for names, card in cards:
        rows.setdefault(names, []).append(card["networks"][LAST])
        if AVERAGED in card["networks"]:
            rows.setdefault((f"{names[0]}, averaged", *names[1:]), []).append(card["networks"][AVERAGED])
    header = [*titles, "seeds", *(title for title, _, _ in COLUMNS)]
    overall = [[*names, str(len(found)), *_numbers(found)] for names, found in rows.items()]
    return markdown([header, *overall]) + "\n" + _by_class(titles, rows, cards[0][1])


def render_differences(cards: Sequence[tuple[str, Mapping[str, Any]]], baseline: str) -> str:
    """Markdown: every other variant minus the baseline, paired by training seed; empty where no two seeds are common.

    Args:
      cards: a variant and one of its cards, in the order of the rows.
      baseline: a variant.
    """
    runs: dict[str, dict[int, Mapping[str, Any]]] = {}
    for variant, card in cards:
        runs.setdefault(variant, {})[card["config"]["seed"]] = card["networks"][LAST]["columns"]
    base, rows = runs.get(baseline, {}), []
    for variant, own in runs.items():
        seeds = sorted(own.keys() & base.keys())
        if variant == baseline or len(seeds) < 2:
            continue
        pairs = [(own[seed], base[seed]) for seed in seeds]
        found = [
            [one[column][view]["value"] - two[column][view]["value"] for one, two in pairs if column in one]
            for _, column, view in NUMBERS
        ]
        rows.append([f"{variant} minus {baseline}", str(len(seeds)), *(over_seeds(d) if d else "-" for d in found)])
    return markdown([["difference", "seeds", *(title for title, _, _ in NUMBERS)], *rows]) if rows else ""


def _numbers(networks: Networks) -> list[str]:
    """One row's cells."""
    columns = [network["columns"] for network in networks]
    return [
        _cell([column[name][view] for column in columns if column.get(name, {}).get(view) is not None])
        for _, name, view in COLUMNS
    ]


def _cell(found: Sequence[Any]) -> str:
    """One number, over seeds or over test images; a dash where the protocol has no such column."""
    values = [estimate["value"] if isinstance(estimate, Mapping) else estimate for estimate in found]
    if len(values) > 1:
        return over_seeds(values)
    if not found:
        return "-"
    return one_run(found[0]) if isinstance(found[0], Mapping) else f"{100 * values[0]:.2f}"


def _by_class(titles: Sequence[str], rows: Mapping[tuple[str, ...], Networks], first: Mapping[str, Any]) -> str:
    """The headline's accuracy by class, for problems of up to 20 classes; `first` is a card."""
    headline, counts = first["protocol"]["headline"], first["data"]["class_counts"]
    if len(counts) > 20:
        return ""
    header = [*titles, *(f"{name} ({count})" for name, count in zip(first["data"]["class_names"], counts, strict=True))]
    lines = []
    for names, networks in rows.items():
        classes = zip(*(network["columns"][headline]["per_class"] for network in networks), strict=True)
        lines.append([*names, *(_class(estimates) for estimates in classes)])
    title = first["protocol"]["titles"].get(headline, headline)
    about = "mean [95 % t-interval] over seeds, or of one run its 95 % interval over test images"
    return f"{title} by class (training images of the first run): {about}\n\n{markdown([header, *lines])}"


def _class(estimates: Sequence[Mapping[str, Any]]) -> str:
    """A class's accuracy in percent: `62.1 [53.8, 70.6]`, its interval kept within 0 and 100."""
    values = 100 * np.array([estimate["value"] for estimate in estimates])
    low, high = (100 * estimates[0][key] for key in ("low", "high"))
    if len(values) > 1:
        low, high = t_interval(values)
    return f"{values.mean():.1f} [{max(low, 0):.1f}, {min(high, 100):.1f}]"
