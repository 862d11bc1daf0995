"""Which images flip between two networks and which attack made the difference: text, and a part of a page. No JAX."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis import runs
from ltrobust.analysis.runs import Model
from ltrobust.evaluation import store
from ltrobust.report import differences, evidence, tables
from ltrobust.report.markup import Element, element, figure, folded, paragraph, table

# Of a text for a terminal; the page and the JSON name all.
_IDS = 20
# Of a page.
_PICTURES = 6
_DIRECTIONS = ("won", "lost")


@dataclasses.dataclass(frozen=True)
class Flipped:
    """An image that only one network resists, float [H,W,C] in [0,1].

    Attributes:
      won: whether the network asked about resists it.
      entry: of `analysis/flips.py`.
      adv_image: what broke the other network, or None where no adversarial images were kept.
    """

    won: bool
    entry: Mapping[str, Any]
    image: np.ndarray
    adv_image: np.ndarray | None


def text(pair: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """Columns, breaking attacks and ids, for a terminal.

    Args:
      pair: one entry of a comparison's `comparisons`, see `analysis/compare_runs.py`.
      class_names: one per class.
    """
    header = ["column", pair["model"], pair["reference"], "difference", "interval", "b", "c", "p", "corrected p"]
    rows = []
    for name, view in pair["columns"].items():
        ends = f"[{100 * view['low']:+.2f}, {100 * view['high']:+.2f}]"
        values = [f"{100 * view['first']:.2f}", f"{100 * view['second']:.2f}", f"{100 * view['difference']:+.2f}", ends]
        p = [differences.p_value(view[key]) for key in ("p", "p_holm")]
        rows.append([name, *values, str(view["b"]), str(view["c"]), *p])
    title = f"every column, all images; difference: {pair['difference']}; p corrected by Holm over columns"
    parts = [f"{title}:\n{tables.align([header, *rows])}"]
    parts += [_text_of(pair, direction, class_names) for direction in _DIRECTIONS]
    return "\n\n".join(parts)


def _text_of(pair: Mapping[str, Any], direction: str, class_names: Sequence[str]) -> str:
    """Breaking attacks and ids of one direction."""
    found = pair["flips"][direction]
    if not found:
        return f"{direction}: none"
    winner, loser = _roles(pair, direction)
    header = [f"{loser} broken by", "images", "first", "alone"]
    rows = [[entry["name"], *(str(entry[key]) for key in header[1:])] for entry in pair["breakers"][direction]]
    ids = [f"{entry['image']} ({class_names[entry['label']]}, {entry['broken_by'][0]})" for entry in found[:_IDS]]
    more = f", and {len(found) - _IDS} more (--json, --html)" if len(found) > _IDS else ""
    said = f"{direction}: {len(found)} images that {winner} resists and {loser} does not"
    return f"{said}\n{tables.align([header, *rows])}\nids: {', '.join(ids)}{more}"


def section(
    pair: Mapping[str, Any],
    order: Sequence[int],
    names: Sequence[str],
    class_names: Sequence[str],
    pictures: Sequence[Flipped],
    missing: str,
) -> list[Element]:
    """Columns, breaking attacks, ids and pictures.

    Args:
      pair: as in `text`.
      order: classes, as they are to be listed.
      names: of each class with its training images, in print.
      class_names: without.
      pictures: of some flipped images; `missing` says why there are none.
    """
    views = list(pair["columns"].items())
    chart, numbers = differences.shown((pair["model"], pair["reference"]), views, "column")
    return [
        element("h3", "Which attack made the difference"),
        paragraph(
            "The chart: every column of the protocol by itself, all images; a filled dot has p < 0.05 after Holm's "
            "correction over columns. The table: of the images that only one network resists, which attack broke the "
            "other. An image counts as first at the first attack, in the protocol's order, that broke it, and as "
            "alone where nothing else did; an attack that sees only the survivors of others is always alone.",
            class_="note",
        ),
        element("div", chart, figure("Broken by", _breakers(pair)), class_="figures"),
        numbers,
        element("h3", "Images that flip"),
        *(_ids(pair, direction, order, names) for direction in _DIRECTIONS),
        *_pictures(pair, names, class_names, pictures, missing),
    ]


def counts(pair: Mapping[str, Any], views: Sequence[differences.View]) -> Element:
    """Won and lost images: all, by group and by class."""
    rows = []
    for name, view in views:
        test = view.get("pooled", view)
        if test["b"] is None or view is pair["result"]["balanced"]:  # its images are all images
            continue
        rows.append([name, f"{view.get('images', pair['result']['images']):,}", str(test["b"]), str(test["c"])])
    rows = [[*row, f"{int(row[2]) - int(row[3]):+d}"] for row in rows]
    return table(["", "images", "won", "lost", "balance"], rows)


def _roles(pair: Mapping[str, Any], direction: str) -> tuple[str, str]:
    """Who resists and who does not."""
    both = (pair["model"], pair["reference"])
    return both if direction == "won" else both[::-1]


def _breakers(pair: Mapping[str, Any]) -> Element:
    """What broke the network that does not resist, in both directions."""
    rows: list[list[str | Element]] = []
    for direction in _DIRECTIONS:
        winner, loser = _roles(pair, direction)
        rows.append([f"{direction}: {winner} resists, {loser} is broken by"])
        rows += [
            [entry["name"], *(str(entry[key]) for key in ("images", "first", "alone"))]
            for entry in pair["breakers"][direction]
        ]
    return table(["", "images", "first", "alone"], rows)


def _ids(pair: Mapping[str, Any], direction: str, order: Sequence[int], names: Sequence[str]) -> Element:
    """Ids of the flipped images by class, each with the attack that broke it first."""
    found = pair["flips"][direction]
    winner, loser = _roles(pair, direction)
    rows = []
    for label in order:
        entries = [entry for entry in found if entry["label"] == label]
        if entries:
            ids = ", ".join(f"{entry['image']} ({entry['broken_by'][0]})" for entry in entries)
            rows.append([names[label], str(len(entries)), ids])
    title = f"{direction}: {len(found):,} images that {winner} resists and {loser} does not"
    if not rows:
        return paragraph(f"{title}.", class_="note")
    return folded(title, table(["class", "images", f"test images (what broke {loser} first)"], rows, "words"))


def _pictures(
    pair: Mapping[str, Any],
    names: Sequence[str],
    class_names: Sequence[str],
    found: Sequence[Flipped],
    missing: str,
) -> list[Element]:
    """Some flipped images, those won before those lost."""
    if not found:
        return [paragraph(missing, class_="missing")] if missing else []
    parts: list[Element] = [
        paragraph("Of each class the first image that flips, most training images first, up to six.", class_="note")
    ]
    for won in (True, False):
        shown = [_picture(pair, names, class_names, entry) for entry in found if entry.won == won]
        if shown:
            parts.append(element("div", *shown, class_="pictures"))
    return parts


def _picture(pair: Mapping[str, Any], names: Sequence[str], class_names: Sequence[str], flipped: Flipped) -> Element:
    """One flipped image, with what broke the other network where it was kept."""
    entry = flipped.entry
    _, loser = _roles(pair, "won" if flipped.won else "lost")
    what = "clean" if entry["broken_by"][0] == "clean" else f"after {entry['broken_by'][0]}"
    caption = f"test image {entry['image']}; {loser} predicts {class_names[entry['prediction']]}, {what}"
    if flipped.adv_image is None:
        # The same width as in a triple, so that pictures with and without a change stand side by side.
        drawn = element("div", evidence.pixels_of(flipped.image, "image"), class_="triple")
    else:
        drawn, times = evidence.triple(flipped.image, flipped.adv_image)
        caption += f"; change times {times:.3g}"
    title = element("strong", f"{'won' if flipped.won else 'lost'}: {names[entry['label']]}")
    return element("figure", drawn, element("figcaption", title, " ", caption))


def pictures(
    models: Sequence[Model], found: Mapping[str, Any], data_dir: str, cache_dir: str
) -> tuple[list[list[Flipped]], list[str]]:
    """Of each comparison some flipped images, or why there are none."""
    passport, card = models[0].of.passport, next((model.of.card for model in models if model.of.card), None)
    by_name = {model.name: model for model in models}
    try:
        if card is None:
            raise ValueError("verdict stores do not name their data; give a workdir to have pictures.")
        ids = np.array(sorted(models[0].verdicts["clean"]))
        images = runs.evaluated_images(card, passport, ids, data_dir=data_dir, cache_dir=cache_dir)
    except (ValueError, OSError) as error:
        return [[] for _ in found["comparisons"]], [f"no pictures: {error}"] * len(found["comparisons"])
    counts = np.array(found["training_counts"] or [0] * passport["num_classes"])
    drawn = [
        [
            _flipped(images, way == "won", entry, by_name[pair["reference" if way == "won" else "model"]])
            for way in ("won", "lost")
            for entry in _first_of_classes(pair["flips"][way], counts)
        ]
        for pair in found["comparisons"]
    ]
    return drawn, [""] * len(drawn)


def _first_of_classes(entries: Sequence[Mapping[str, Any]], counts: np.ndarray) -> list[Mapping[str, Any]]:
    """The first image of up to six classes, spread from the most training images to the fewest."""
    first = {entry["label"]: entry for entry in reversed(entries)}
    present = [label for label in np.argsort(-counts, kind="stable") if label in first]
    chosen = np.unique(np.linspace(0, len(present) - 1, _PICTURES).round().astype(int)) if present else []
    return [first[present[place]] for place in chosen]


def _flipped(images: np.ndarray, won: bool, entry: Mapping[str, Any], loser: Model) -> Flipped:
    """A flipped image, with the adversarial image where the loser's store kept it."""
    record = loser.verdicts[entry["broken_by"][0]][entry["image"]]
    kept = "adversarial_at" in record
    shape = tuple(loser.of.passport["images"]["shape"])
    adv_image = store.read_adversarial(loser.of.folder, record, shape) if kept else None
    return Flipped(won, entry, images[entry["image"]] / np.float32(255), adv_image)
