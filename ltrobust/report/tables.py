"""Tables for a terminal, made from a card alone. No JAX."""

import math
from collections.abc import Sequence

from ltrobust.analysis.evaluated_networks import distinct, shots, titles
from ltrobust.analysis.schema.card import Card, Files
from ltrobust.report.numbers import Interval
from ltrobust.sanity.rules import Item

# Of more classes, tables show a part.
_FEW_CLASSES = 20
VIEWS = {"overall": "all", "tail_third": "tail", "worst": "worst class"}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def render(card: Card) -> str:
    """One line per network and column: accuracy overall, in the tail and in the worst class, in percent.

    The bounds of its 95 % interval follow each value. Where `evaluated_networks.shots` has groups, they follow.
    """
    networks = distinct(card.networks)
    columns = shown_columns(card)
    names = titles(card)
    groups = shots(card, next(iter(networks.values())).columns[columns[0]])
    rows = [
        [
            name if column == columns[0] else "",
            names[column],
            *(percent(network.columns[column].view(view)) for view in VIEWS),
            *map(percent, shots(card, network.columns[column]).values()),
        ]
        for name, network in networks.items()
        for column in columns
    ]
    header = ["network", "attack", *VIEWS.values(), *groups]
    return f"{_title(card)}\n\n{align([header, *rows])}\n\n{_legend(card)}"


def shown_columns(card: Card) -> list[str]:
    """The columns of short tables: clean, PGD-20 where it is there, and combinations of attacks."""
    present = next(iter(card.networks.values())).columns
    combined = (name for name, _ in card.protocol.combined)
    return [name for name in dict.fromkeys(("clean", "pgd20", *combined)) if name in present]


def render_classes(card: Card, network: str) -> str:
    """One line per class of one network: training images, and each column's accuracy with its interval."""
    columns = card.networks[network].columns
    names, counts = card.data.class_names, card.data.class_counts
    header = ["class", "training images", *columns]
    rows = [
        [
            names[index],
            str(counts[index]),
            *(percent(column.per_class[index]) for column in columns.values()),
        ]
        for index in shown_classes(len(names))
    ]
    return f"{network}, per class (%):\n{align([header, *rows])}"


def _title(card: Card) -> str:
    data, threat = card.data, card.threat
    return (
        f"{data.name} (imbalance ratio {data.imbalance_ratio:g}, {sum(data.class_counts)} training images), "
        f"{card.model.name}, {threat.norm} {threat.radius:g}/255, protocol {card.protocol.name}, "
        f"{data.evaluated} of {data.test_images} test images; percent with 95 % intervals"
    )


def _legend(card: Card) -> str:
    tail = next(iter(card.networks.values())).columns["clean"].tail_third
    parts = [f"tail: the {tail.classes} rarest classes"] if tail else []
    parts += [
        f"{titles(card)[name]}: right under each of {', '.join(attacks)}" for name, attacks in card.protocol.combined
    ]
    note = f"\nnote: {card.protocol.note}." if card.protocol.note else ""
    warned = "".join(
        f"\nwarning: {sentence}." for sentence in (card.data.overlap.warnings if card.data.overlap else ())
    )
    panels = [
        f"\nsanity checks of {name}: {network.sanity_verdict}.{_not_passed(network.sanity)}"
        for name, network in distinct(card.networks).items()
        if network.sanity
    ]
    panels += [
        f"\n{name}: the same weights as {network.same_as}, shown once."
        for name, network in card.networks.items()
        if network.same_as
    ]
    return "; ".join(parts) + f".{note}{warned}{''.join(panels)}\nselected: {card.selection_rule}."


def _not_passed(items: Sequence[Item]) -> str:
    """Which items failed or warn, a line each."""
    lines = []
    for item in items:
        if item.status in ("fail", "warn"):
            failed = "failed" if item.required else "failed (not required)"
            word = failed if item.status == "fail" else "warning"
            lines.append(f"\n  {word}: {item.check} ({item.id}): {item.details}")
    return "".join(lines)


def percent(estimate: Interval | None) -> str:
    """`34.12 [33.2, 35.1]`, or a dash where there is no value. Bounds, because intervals are not symmetric."""
    if estimate is None or math.isnan(estimate.value):
        return "-"
    return f"{100 * estimate.value:.2f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def shown_classes(classes: int) -> list[int]:
    """Every class of a small problem; head, middle and tail of a large one."""
    if classes <= _FEW_CLASSES:
        return list(range(classes))
    middle = classes // 2
    return [*range(5), *range(middle - 2, middle + 3), *range(classes - 5, classes)]


def printable(text: str) -> str:
    """Text with escapes for control characters: names come from files, and a terminal would obey them."""
    return text.translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()


def align(rows: Sequence[Sequence[str]], rule_after: int = 1) -> str:
    """Left-aligned first column, right-aligned others, a rule under the header's `rule_after` lines.

    Control characters are printed as escapes: names come from files, and a terminal would obey them.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    return "\n".join([*lines[:rule_after], "-" * len(lines[0]), *lines[rule_after:]])


def render_files(files: Files, class_names: Sequence[str]) -> str:
    """One line per class of a folder: images used, and files skipped by reason; then the totals.

    Of more than 20 classes, only those with something skipped have a line.

    Args:
      files: of a split.
      class_names: in label order.
    """
    reasons = files.passed_over
    rows = [
        [name, str(used), *(_number(tally.classes.get(name, 0)) for tally in reasons.values())]
        for name, used in zip(class_names, files.used, strict=True)
        if len(class_names) <= _FEW_CLASSES or any(name in tally.classes for tally in reasons.values())
    ]
    outside = [_number(tally.classes.get("", 0)) for tally in reasons.values()]
    if any(outside):
        rows.append(["(no class)", "", *outside])
    total = ["all", str(sum(files.used)), *(str(tally.count) for tally in reasons.values())]
    header = [
        "class",
        "used",
        *(f"skipped: {reason}" if not place else reason for place, reason in enumerate(reasons)),
    ]
    return align([header, *rows, total])


def _number(count: int) -> str:
    """Zeros are left out, so that the others stand out."""
    return str(count) if count else ""
