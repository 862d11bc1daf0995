"""The page of a comparison, in the look of a run's. No JAX."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ltrobust.analysis import results
from ltrobust.analysis.evaluated_networks import labels, short
from ltrobust.analysis.intervals import Estimate
from ltrobust.analysis.results import Model
from ltrobust.analysis.schema.comparison import (
    ClassSeedDifference,
    Flip,
    NetworkComparison,
    NetworkPair,
    SeedComparison,
    SeedDifference,
)
from ltrobust.analysis.schema.paired import PooledDifference
from ltrobust.data.images import Images
from ltrobust.evaluation import store
from ltrobust.report import accuracy, charts, comparison, frame
from ltrobust.report.charts import BLUE, GREY
from ltrobust.report.frame import Figure, Table, record
from ltrobust.report.material import FEW_CLASSES, Flipped
from ltrobust.report.numbers import NOTHING, interval, p_value

_MOST_PICTURES = 6


def render(found: NetworkComparison, pictures: Sequence[Sequence[Flipped]] = (), missing: Sequence[str] = ()) -> str:
    """The page's text.

    Args:
      found: of `analysis.compare_runs.compare_all`.
      pictures: of each entry of `found.comparisons`; `missing` says why an entry has none.
    """
    plain = [short(name) for name in found.class_names]
    counts = found.training_counts
    names = [f"{name} ({counts[n]:,})" for n, name in enumerate(plain)] if counts else plain
    order = sorted(range(len(plain)), key=lambda index: -counts[index]) if counts else list(range(len(plain)))
    pairs = [
        _pair(pair, number, order, names, plain, pictures[number - 1] if number <= len(pictures) else ())
        for number, pair in enumerate(found.comparisons, start=1)
    ]
    seeds = _seeds(found.seeds, found.sides, order, names) if found.seeds and found.sides else None
    sections = [("summary", "Summary"), *([("seeds", "Over seeds")] if seeds else [])]
    sections += [(f"pair{number}", pair["title"]) for number, pair in enumerate(pairs, start=1)]
    reasons = list(dict.fromkeys(reason for reason in missing if reason))
    title = found.sides or [model.name for model in found.models]
    return frame.render(
        "comparison.html.jinja",
        title=" / ".join(title),
        kind="comparison",
        sections=sections,
        class_names=[(index, names[index]) for index in order],
        missing=[("Pictures", reasons)] if reasons else [],
        found=found,
        summary=_summary(found),
        seeds=seeds,
        pairs=pairs,
    )


def _summary(found: NetworkComparison) -> dict[str, Any]:
    """Who is compared, and what came out."""
    models = found.models
    shown = labels([short(model.name, 40) for model in models])
    records = [
        record(estimate, name, series)
        for name, model in zip(shown, models, strict=True)
        for series, estimate in (("clean", model.columns["clean"]), (found.column, model.robust))
    ]
    header = ["network", "of the run", "training seed", *(f"{name}, %" for name in models[0].columns)]
    rows = [
        [
            model.name,
            model.network or NOTHING,
            NOTHING if model.seed is None else str(model.seed),
            *(interval(estimate) for estimate in model.columns.values()),
        ]
        for model in models
    ]
    spec = charts.rows(records, "right, % of the images", (GREY, BLUE), domain=(0, 100))
    differ = []
    for pair in found.comparisons:
        overall, test = pair.result.overall, pair.result.overall.test
        numbers = [interval(overall, sign=True), str(test.b), str(test.c), p_value(test.p)]
        differ.append([f"{pair.model} minus {pair.reference}", *numbers])
    return {
        "figure": Figure("networks", "Accuracy of each network", spec, Table(header, rows)),
        "differences": Table(["", "difference", "won", "lost", "p"], differ),
    }


def _seeds(seeds: SeedComparison, sides: Sequence[str], order: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Means over seeds with their t-intervals, and every seed."""
    figures = []
    shown_names = labels([short(name, 32) for name in names])
    title = f"{sides[0]} minus {sides[1]}"
    tables = comparison.seed_blocks(seeds, names, order)
    for (kind, listed), (_, drawn) in zip(tables, comparison.seed_blocks(seeds, shown_names, order), strict=True):
        shown = drawn if len(drawn) <= FEW_CLASSES else [e for e in drawn if _shown(e[1])]
        table = Table([kind, *comparison.seed_header(seeds)], [[n, *comparison.seed_cells(e)] for n, e in listed])
        records = [point for name, entry in shown for point in _points(name, entry)]
        if records:
            spec = charts.rows(records, "difference, percentage points", (BLUE, GREY), rule=0)
            figures.append(Figure(f"seeds-{kind}", f"{title}, by {kind}", spec, table))
    return {"note": comparison.seed_note(seeds), "figures": figures}


def _points(name: str, entry: SeedDifference) -> list[dict[str, Any]]:
    """The mean over seeds with its interval, and every seed."""
    index = {"index": entry.class_index} if isinstance(entry, ClassSeedDifference) else {}
    mean = record(Estimate(entry.mean, entry.low, entry.high), name, "mean of seeds", **index)
    points = [mean | {"open": not _shown(entry)}]
    for value in entry.values:
        one = {"name": name, "series": "one seed", "value": 100 * value, "low": None, "high": None, "open": False}
        points.append(one | {"text": f"{100 * value:+.1f} points"} | index)
    return points


def _shown(entry: SeedDifference) -> bool:
    """Whether the seeds show a difference, after correction unless it is the primary comparison."""
    return (entry.p if math.isnan(entry.p_holm) else entry.p_holm) < 0.05


def _pair(
    pair: NetworkPair,
    place: int,
    order: Sequence[int],
    names: Sequence[str],
    plain: Sequence[str],
    pictures: Sequence[Flipped],
) -> dict[str, Any]:
    """Everything on two networks."""
    both = (pair.model, pair.reference)
    views = accuracy.views_of(pair.result, order, names.__getitem__)
    class_labels = labels([short(name, 32) for name in names])
    by_class = accuracy.differences(f"pair{place}-classes", both, views, class_labels)
    by_column = accuracy.differences(f"pair{place}-columns", both, list(pair.columns.items()))
    return {
        "title": f"{both[0]} minus {both[1]}",
        "by_class": by_class,
        "by_column": by_column,
        "counts": _counts(pair, views),
        "breakers": _breakers(pair),
        "ids": [_ids(pair, direction, order, names) for direction in comparison.DIRECTIONS],
        "pictures": [_picture(pair, names, plain, entry) for entry in pictures],
    }


def _counts(pair: NetworkPair, views: Sequence[accuracy.View]) -> Table:
    """Won and lost images: all, by group and by class."""
    rows = []
    for name, view in views:
        test = view.test
        if test is None or view is pair.result.balanced:  # its images are all images
            continue
        images = pair.result.images if isinstance(view, PooledDifference) else view.images
        rows.append([name, f"{images:,}", str(test.b), str(test.c), f"{test.b - test.c:+d}"])
    return Table(["", "images", "won", "lost", "balance"], rows)


def _breakers(pair: NetworkPair) -> Table:
    """What broke the network that does not resist, in both directions."""
    rows: list[list[str]] = []
    for direction in comparison.DIRECTIONS:
        winner, loser = comparison.roles(pair, direction)
        rows.append([f"{direction}: {winner} resists, {loser} is broken by"])
        for entry in comparison.flips_of(pair, direction)[1]:
            rows.append([entry.name, str(entry.images), str(entry.first), str(entry.alone)])
    return Table(["", "images", "first", "alone"], rows)


def _ids(
    pair: NetworkPair, direction: comparison.Direction, order: Sequence[int], names: Sequence[str]
) -> tuple[str, Table]:
    """Ids of the flipped images by class, each with the attack that broke it first."""
    result, _ = comparison.flips_of(pair, direction)
    winner, loser = comparison.roles(pair, direction)
    rows = []
    for label in order:
        entries = [entry for entry in result if entry.label == label]
        if entries:
            ids = ", ".join(f"{entry.image} ({entry.broken_by[0]})" for entry in entries)
            rows.append([names[label], str(len(entries)), ids])
    title = f"{direction}: {len(result):,} images that {winner} resists and {loser} does not"
    return title, Table(["class", "images", f"test images (what broke {loser} first)"], rows)


def _picture(pair: NetworkPair, names: Sequence[str], plain: Sequence[str], flipped: Flipped) -> dict[str, Any]:
    """One flipped image, with what broke the other network where it was kept."""
    entry = flipped.entry
    direction: comparison.Direction = "won" if flipped.won else "lost"
    _, loser = comparison.roles(pair, direction)
    what = "clean" if entry.broken_by[0] == "clean" else f"after {entry.broken_by[0]}"
    images = frame.triple(flipped.image, flipped.adv_image)
    caption = f"test image {entry.image}; {loser} predicts {plain[entry.prediction]}, {what}"
    if flipped.adv_image is not None:
        caption += f"; {images[-1][1]}"
    return {"images": images, "title": f"{direction}: {names[entry.label]}", "caption": caption}


def pictures(
    models: Sequence[Model], found: NetworkComparison, data_dir: str, cache_dir: str
) -> tuple[list[list[Flipped]], list[str]]:
    """Of each comparison some flipped images, or why there are none."""
    first = next((model.of for model in models if model.of.card), models[0].of)
    by_name = {model.name: model for model in models}
    try:
        if first.card is None:
            raise ValueError("verdict stores do not name their data; give a workdir to have pictures.")
        ids = models[0].verdicts["clean"].rows["image"]
        images = results.evaluated_images(
            first.card, first.provenance, ids, data_dir=data_dir, cache_dir=cache_dir, workdir=first.workdir
        )
    except (ValueError, OSError) as error:
        return [[] for _ in found.comparisons], [f"no pictures: {error}"] * len(found.comparisons)
    counts = np.array(found.training_counts or [0] * first.provenance["num_classes"])
    drawn = [
        [
            _flipped(images, way == "won", entry, by_name[comparison.roles(pair, way)[1]])
            for way in comparison.DIRECTIONS
            for entry in _first_of_classes(comparison.flips_of(pair, way)[0], counts)
        ]
        for pair in found.comparisons
    ]
    return drawn, [""] * len(drawn)


def _first_of_classes(entries: Sequence[Flip], counts: np.ndarray) -> list[Flip]:
    """The first image of up to six classes, spread from the most training images to the fewest."""
    first = {entry.label: entry for entry in reversed(entries)}
    present = [label for label in np.argsort(-counts, kind="stable") if label in first]
    chosen = np.unique(np.linspace(0, len(present) - 1, _MOST_PICTURES).round().astype(int)) if present else []
    return [first[present[place]] for place in chosen]


def _flipped(images: Images, won: bool, entry: Flip, loser: Model) -> Flipped:
    """A flipped image, with the adversarial image where the loser's store kept it."""
    record = loser.verdicts[entry.broken_by[0]][entry.image]
    kept = record.adversarial_at is not None
    shape = tuple(loser.of.provenance["images"]["shape"])
    adv_image = store.read_adversarial(loser.of.folder, record, shape) if kept else None
    return Flipped(won, entry, images[entry.image] / np.float32(255), adv_image)
