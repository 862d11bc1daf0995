"""Plain text of comparisons: two models, the images that flip between them, and two methods over seeds. No JAX."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ltrobust.analysis import intervals
from ltrobust.analysis.evaluated_networks import GROUPS
from ltrobust.analysis.schema.comparison import (
    Breaker,
    Flip,
    NetworkPair,
    SeedComparison,
    SeedDifference,
)
from ltrobust.analysis.schema.paired import (
    ClassDifference,
    ColumnDifference,
    Difference,
    GroupDifference,
    PairedComparison,
    PairedTest,
    PooledDifference,
)
from ltrobust.report import tables
from ltrobust.report.numbers import p_value

_LEVEL = 0.05
# Ids of flipped images that a terminal shows; the page and the JSON name all.
_IDS = 20
Direction = Literal["won", "lost"]
DIRECTIONS: tuple[Direction, ...] = ("won", "lost")
_SEED_VIEWS = {"overall": "all images", "balanced": "mean of classes", **GROUPS, "worst": "worst class"}
_FEW_SEEDS = 3
_FEW_CLASSES = 20
_OPEN = "no difference shown"
_GROUPS = ("head_third", "medium_third", "tail_third", "tail_rare80")
_GROUPS += ("many_count", "medium_count", "few_count", "rarest1")
_DEFINITIONS = {
    "third": "third: by index from the most frequent class, head below floor(C/3), tail beyond 2 floor(C/3)",
    "rare80": "rare80: the rarest ceil(0.8 C) classes",
    "count": "count: many >= 100, medium 20-99, few < 20 training images",
    "rarest1": "rarest1: the rarest class",
}


def render(result: PairedComparison, names: tuple[str, str], class_names: Sequence[str] | None = None) -> str:
    """Overall, balanced, groups and worst class, then the classes, in percent with two decimals.

    A model is called ahead only where the interval of the difference excludes 0 and, where the pooled test is of the
    same difference, p < 0.05: the exact test is more careful than the interval, 5 against 0 of 1,000 have p = 0.06. A
    class needs a corrected p < 0.05; of more than 20 classes only such are printed.

    Args:
      result: what `ltrobust.analysis.compare.compare` returned.
      names: of the first and the second model.
      class_names: one per class; default: their indices.

    Raises:
      ValueError: both models have one name, or the number of class names is another.
    """
    classes = result.per_class
    class_names = [str(entry.class_index) for entry in classes] if class_names is None else list(class_names)
    if names[0] == names[1]:
        raise ValueError(f"both models are called {names[0]!r}: two different names are needed to say which is ahead.")
    if len(class_names) != len(classes):
        raise ValueError(f"{len(class_names)} class names for {len(classes)} classes; pass one per class, or None.")
    title = f"{names[0]} minus {names[1]}, the same {result.images} test images; percent with 95 % intervals"
    worst, other = class_names[result.worst.first_class], class_names[result.worst.second_class]
    legend = f"worst class: {worst} of {names[0]}, {other} of {names[1]}.\n{_legend(result, names)}"
    parts = [title, _summary(result, names), legend, _classes(classes, names, class_names)]
    if result.classes_without_images:
        absent = ", ".join(str(class_names[index]) for index in result.classes_without_images)
        parts.append(f"without test images, left out: {absent}.")
    return "\n\n".join(parts)


def _summary(result: PairedComparison, names: tuple[str, str]) -> str:
    """One line per view that joins classes."""
    views: dict[str, Difference] = {"overall": result.overall, "balanced": result.balanced}
    views |= {name: result.groups[name] for name in _GROUPS if name in result.groups}
    views["worst class"] = result.worst
    header = ["", *names, "difference", "interval", "b", "c", "p", "mid-p", "corrected p", "ahead"]
    p_holm = corrected(list(views.values()))
    lines = [_line(name, view, p, names) for (name, view), p in zip(views.items(), p_holm, strict=True)]
    return tables.align([header, *lines])


def corrected(views: Sequence[Difference]) -> list[float]:
    """p of each view after Holm's correction: of classes and columns over all of theirs, else over these; or NaN."""
    tests = [None if isinstance(view, ClassDifference | ColumnDifference) else _test_of(view) for view in views]
    result = intervals.holm(np.array([test.p if test else math.nan for test in tests]))
    return [
        view.p_holm if isinstance(view, ClassDifference | ColumnDifference) else float(p)
        for view, p in zip(views, result, strict=True)
    ]


def _line(name: str, view: Difference, p_holm: float, names: tuple[str, str]) -> list[str]:
    """Cells of one view."""
    test = _test_of(view)
    classes = view.classes if isinstance(view, GroupDifference) else 0
    label = f"{name} ({classes} class{'es' if classes > 1 else ''})" if classes else name
    return [
        label,
        *_values(view),
        f"[{100 * view.low:+.2f}, {100 * view.high:+.2f}]",
        *(_test(test, test.p, test.mid_p, p_holm) if test else ["-"] * 5),
        _ahead(view, names),
    ]


def _test_of(view: Difference) -> PairedTest | None:
    return view.test if isinstance(view, PooledDifference | GroupDifference | ClassDifference) else None


def _ahead(view: Difference, names: tuple[str, str]) -> str:
    """The model that a view shows to be better, if any."""
    test, pooled = _test_of(view), view.difference
    # Classes of equal size: the mean over classes is the pooled accuracy, and its exact test applies.
    if isinstance(view, GroupDifference):
        pooled = (view.test.b - view.test.c) / view.images
    if test and test.p >= _LEVEL and math.isclose(pooled, view.difference, abs_tol=1e-9):
        return _OPEN
    # The sign is asked as well: an interval need not hold its value.
    if view.low > 0 and view.difference > 0:
        return names[0]
    return names[1] if view.high < 0 and view.difference < 0 else _OPEN


def differs(view: Difference) -> bool:
    """Whether a view, or a class, shows one model ahead, by the rule of `render`."""
    if isinstance(view, ClassDifference | ColumnDifference):
        return view.p_holm < _LEVEL
    return _ahead(view, ("first", "second")) != _OPEN


def _legend(result: PairedComparison, names: tuple[str, str]) -> str:
    """What the columns and the rows mean."""
    lines = [
        f"b, c: images that only {names[0]}, only {names[1]} gets right, pooled; p: exact McNemar test of b = c.",
        "intervals: Zou and Donner's of paired differences for overall, normal ones of paired differences for means",
        "over classes, and for the worst classes bounds that hold for all classes at once.",
        "corrected p: Holm over these rows. All but a comparison that was decided on beforehand is exploratory.",
        f"ahead: the interval excludes 0, and p < {_LEVEL} where the pooled test is of the same difference.",
    ]
    used = [f"  {text}" for key, text in _DEFINITIONS.items() if any(name.endswith(key) for name in result.groups)]
    return "\n".join([*lines, *(["groups, means over classes:", *used] if used else [])])


def _classes(classes: Sequence[ClassDifference], names: tuple[str, str], class_names: Sequence[str]) -> str:
    """One line per class with images: all of few classes, otherwise those that differ after correction."""
    seen = [entry for entry in classes if entry.test]
    few = len(classes) <= _FEW_CLASSES
    shown = [entry for entry in seen if few or entry.p_holm < _LEVEL]
    family = f"p corrected by Holm over {len(seen)} classes"
    if not shown:
        return f"per class: none of {len(seen)} classes differs at corrected p < {_LEVEL} ({family})."
    header = ["class", "images", *names, "difference", "b", "c", "p", "mid-p", "corrected p", "ahead"]
    rows = [
        [
            class_names[entry.class_index],
            str(entry.images),
            *_values(entry),
            *_test(entry.test, entry.test.p, entry.test.mid_p, entry.p_holm),
            _OPEN if entry.p_holm >= _LEVEL else names[0] if entry.test.b > entry.test.c else names[1],
        ]
        for entry in shown
        if entry.test
    ]
    which = "" if few else f"{len(shown)} of {len(seen)} classes, those with corrected p < {_LEVEL}; "
    title = f"per class ({which}{family}; ahead: corrected p < {_LEVEL}):"
    return f"{title}\n{tables.align([header, *rows])}"


def _values(view: Difference) -> list[str]:
    """Both accuracies and the signed difference, in percent."""
    return [f"{100 * view.first:.2f}", f"{100 * view.second:.2f}", f"{100 * view.difference:+.2f}"]


def _test(test: PairedTest, *values: float) -> list[str]:
    """Discordant counts and p-values; a tiny p-value as a bound."""
    return [str(test.b), str(test.c), *map(p_value, values)]


def flips(pair: NetworkPair, class_names: Sequence[str]) -> str:
    """Columns, breaking attacks and ids, for a terminal.

    Args:
      pair: of a comparison.
      class_names: one per class.
    """
    header = ["column", pair.model, pair.reference, "difference", "interval", "b", "c", "p", "corrected p"]
    rows = []
    for name, view in pair.columns.items():
        ends = f"[{100 * view.low:+.2f}, {100 * view.high:+.2f}]"
        rows.append([name, *_values(view), ends, *_test(view.test, view.test.p, view.p_holm)])
    title = f"every column, all images; difference: {pair.difference}; p corrected by Holm over columns"
    parts = [f"{title}:\n{tables.align([header, *rows])}"]
    parts += [_flips_of(pair, direction, class_names) for direction in DIRECTIONS]
    return "\n\n".join(parts)


def _flips_of(pair: NetworkPair, direction: Direction, class_names: Sequence[str]) -> str:
    """Breaking attacks and ids of one direction."""
    result, breakers = flips_of(pair, direction)
    if not result:
        return f"{direction}: none"
    winner, loser = roles(pair, direction)
    header = [f"{loser} broken by", "images", "first", "alone"]
    rows = [[entry.name, str(entry.images), str(entry.first), str(entry.alone)] for entry in breakers]
    ids = [f"{entry.image} ({class_names[entry.label]}, {entry.broken_by[0]})" for entry in result[:_IDS]]
    more = f", and {len(result) - _IDS} more (--json, --html)" if len(result) > _IDS else ""
    sentence = f"{direction}: {len(result)} images that {winner} resists and {loser} does not"
    return f"{sentence}\n{tables.align([header, *rows])}\nids: {', '.join(ids)}{more}"


def flips_of(pair: NetworkPair, direction: Direction) -> tuple[Sequence[Flip], Sequence[Breaker]]:
    """The images that flip in one direction, and what broke them."""
    if direction == "won":
        return pair.flips.won, pair.breakers.won
    return pair.flips.lost, pair.breakers.lost


def roles(pair: NetworkPair, direction: Direction) -> tuple[str, str]:
    """Who resists and who does not."""
    return (pair.model, pair.reference) if direction == "won" else (pair.reference, pair.model)


def over_seeds(seeds: SeedComparison, sides: Sequence[str], class_names: Sequence[str]) -> str:
    """Differences of every seed with mean, deviation and t-interval, for a terminal.

    Args:
      seeds: of a comparison.
      sides: what the two methods are called.
      class_names: one per class.
    """
    title = f"{sides[0]} minus {sides[1]} over {seeds.seeds} seeds, percentage points"
    blocks = []
    for name, entries in seed_blocks(seeds, class_names, list(range(len(class_names)))):
        rows = [[what, *seed_cells(entry)] for what, entry in entries]
        blocks.append(tables.align([[name, *seed_header(seeds)], *rows]))
    return "\n\n".join([title, *blocks, seed_note(seeds)])


def seed_blocks(
    seeds: SeedComparison, class_names: Sequence[str], order: Sequence[int]
) -> list[tuple[str, list[tuple[str, SeedDifference]]]]:
    """What is listed: views, columns, classes."""
    views = [
        (f"{title} (primary)" if name == seeds.primary else title, seeds.views[name])
        for name, title in _SEED_VIEWS.items()
        if name in seeds.views
    ]
    by_class = {entry.class_index: entry for entry in seeds.per_class}
    classes: list[tuple[str, SeedDifference]] = [(class_names[i], by_class[i]) for i in order if i in by_class]
    return [("view", views), ("column", list(seeds.columns.items())), ("class", classes)]


def seed_header(seeds: SeedComparison) -> list[str]:
    """Titles of `seed_cells`."""
    return [*(f"pair {n}" for n in range(1, seeds.seeds + 1)), "mean ± sd", "95 % interval", "p", "corrected p"]


def seed_cells(entry: SeedDifference) -> list[str]:
    """Each seed, mean ± sd, interval, p; the primary comparison has no corrected p."""
    return [
        *(f"{100 * value:+.2f}" for value in entry.values),
        f"{100 * entry.mean:+.2f} ± {100 * entry.sd:.2f}",
        f"[{100 * entry.low:+.2f}, {100 * entry.high:+.2f}]",
        p_value(entry.p),
        p_value(entry.p_holm),
    ]


def seed_note(seeds: SeedComparison) -> str:
    """What the numbers are, and how far they carry."""
    overall = seeds.views["overall"]
    shown = "excludes 0" if overall.low > 0 or overall.high < 0 else "holds 0: no difference shown"
    few = f" Fewer than {_FEW_SEEDS} seeds: one run and its repetition, not a result." * (seeds.seeds < _FEW_SEEDS)
    return (
        "p: paired t-test over seeds, none for worst classes, whose interval is one of bounds; corrected p: Holm over "
        "the views, columns or classes, which are exploratory. "
        f"The interval over all images {shown}.{few} Seeds share one test set and one long-tailed split, whose "
        "variation is not in the interval."
    )
