"""Sections of a run's page on accuracy: head and tail, confusion, networks and their differences. No JAX."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis.evaluated_networks import GROUPS, EvaluatedNetworks, labels, short, shots
from ltrobust.analysis.schema.network import Column
from ltrobust.analysis.schema.paired import (
    ClassDifference,
    GroupDifference,
    PairedComparison,
    PooledDifference,
)
from ltrobust.report import charts, comparison
from ltrobust.report.charts import BLUE, GREY, ORANGE, PINK
from ltrobust.report.frame import Figure, Table, png, record
from ltrobust.report.material import FEW_CLASSES, Comparison
from ltrobust.report.numbers import NOTHING, interval, p_value, percent

_RIGHT = "right, % of the images"
_VIEWS = {"overall": "all images", **GROUPS, "worst": "worst class"}
# Of more classes the confusion is a picture: so many cells are too much for a page.
_MOST_CELLS = 100
View = tuple[str, PooledDifference | GroupDifference | ClassDifference]


def tail(evaluation: EvaluatedNetworks) -> list[Figure]:
    """Robust and clean accuracy from head to tail, and of groups of classes."""
    shown = [name for name in evaluation.distinct if name.endswith("/last")] or [evaluation.main]
    return [
        _from_head_to_tail(evaluation, evaluation.headline, shown, wide=True),
        _groups(evaluation),
        _from_head_to_tail(evaluation, "clean", shown, wide=False),
    ]


def _from_head_to_tail(evaluation: EvaluatedNetworks, column: str, shown: Sequence[str], *, wide: bool) -> Figure:
    """Accuracy of every class in a column, most training images first."""
    few, counts = len(evaluation.classes) <= FEW_CLASSES, evaluation.card.data.class_counts
    columns = {name: evaluation.networks[name].columns[column] for name in shown}
    records = [
        _of_class(evaluation, result, index, name) for index in evaluation.classes for name, result in columns.items()
    ]
    means = []
    for group, members in evaluation.groups.items():
        ends = [max(counts[index], 1) for index in members]
        for name, result in columns.items():
            mean = result.view(group)
            if mean is not None and not math.isnan(mean.value):
                means.append(record(mean, GROUPS[group], name) | {"from": min(ends), "to": max(ends)})
    title = "Clean accuracy by class" if column == "clean" else f"Accuracy by class under {evaluation.column(column)}"
    x_title = "class (training images)" if few else "training images of the class"
    header = ["class (training images)"]
    header += [cell for name in shown for cell in (f"{name}, %", f"{name}, right")]
    rows = [
        [
            evaluation.class_name(i),
            *(c for result in columns.values() for c in (interval(result.per_class[i]), _of(result, i))),
        ]
        for i in evaluation.classes
    ]
    spec = charts.classes(
        [entry for entry in records if entry["value"] is not None], _RIGHT, x_title, None if few else means
    )
    note = "" if few else "A dot is a class; lines are the means of head, middle and tail."
    return Figure(f"classes-{column}", title, spec, Table(header, rows), note, wide)


def _of_class(evaluation: EvaluatedNetworks, column: Column, index: int, series: str) -> dict[str, Any]:
    """A class's accuracy as charts draw it."""
    images = max(evaluation.card.data.class_counts[index], 1)
    more = {"index": index, "images": images, "detail": f"{_of(column, index)} test images"}
    return record(column.per_class[index], evaluation.labels[index], series) | more


def _of(column: Column, index: int) -> str:
    return f"{column.correct[index]:,} of {column.total[index]:,}"


def _groups(evaluation: EvaluatedNetworks) -> Figure:
    """Clean and attacked accuracy of head, middle, tail and all images, of the main network."""
    columns = evaluation.networks[evaluation.main].columns
    two = [("clean", "clean"), (evaluation.headline, evaluation.column(evaluation.headline))]
    views = [
        (title, [(name, result) for column, name in two if (result := columns[column].view(view))])
        for view, title in (GROUPS | {"overall": "all images"}).items()
        if columns["clean"].view(view)
    ]
    records = [record(estimate, title, name) for title, estimates in views for name, estimate in estimates]
    rows = [[title, *(interval(estimate) for _, estimate in estimates)] for title, estimates in views]
    spec = charts.rows(records, _RIGHT, (GREY, BLUE), domain=(0, 100), bars=True)
    header = ["group of classes", *(f"{name}, %" for _, name in two)]
    return Figure("groups", f"{evaluation.main}: groups of classes", spec, Table(header, rows))


def confusion(evaluation: EvaluatedNetworks) -> dict[str, Any] | None:
    """Confusion matrix, and how often each class is predicted; None if the card does not have it."""
    network = evaluation.networks[evaluation.main]
    if network.confusion is None or network.most_frequent_confusion is None:
        return None
    matrices = {name: np.array(result) for name, result in network.confusion.items()}
    matrix, order = matrices[evaluation.headline], evaluation.classes
    few = len(order) <= FEW_CLASSES
    frequent = [(index, result) for index, result in enumerate(network.most_frequent_confusion) if result is not None]
    frequent.sort(key=lambda entry: order.index(entry[0]) if few else -entry[1].share)
    rows = [
        [evaluation.class_name(index), evaluation.class_name(result.predicted), percent(result.share)]
        for index, result in frequent
    ]
    note = "The most frequent wrong prediction of each class and its share of the class's test images."
    figures = [_predicted(evaluation, {"clean": matrices["clean"], evaluation.column(evaluation.headline): matrix})]
    if len(order) <= _MOST_CELLS:
        title = f"Test images of {evaluation.main} by true and predicted class"
        figures.insert(0, heat("confusion", title, matrix, order, evaluation.names))
    return {
        "figures": figures,
        "matrix": None if len(order) <= _MOST_CELLS else matrix_picture(matrix, order),
        "frequent": Table(["class (training images)", "most often taken for", "share, %"], rows[:FEW_CLASSES]),
        "note": note if few else f"{note} The {min(FEW_CLASSES, len(rows))} largest shares.",
    }


def heat(name: str, title: str, matrix: np.ndarray, order: Sequence[int], names: Sequence[str]) -> Figure:
    """A confusion's counts [C, C], row = true class, with classes in order."""
    totals = np.maximum(matrix.sum(axis=1), 1)
    cells = [
        {"true": row, "predicted": column, "index": true, "count": int(matrix[true, predicted])}
        | {"share": round(float(matrix[true, predicted] / totals[true]), 4)}
        for row, true in enumerate(order)
        for column, predicted in enumerate(order)
        if matrix[true, predicted]
    ]
    shown = labels([short(names[index], 28) for index in order])
    if len(order) <= FEW_CLASSES:
        header = ["true class", *(names[index] for index in order)]
        rows = [[names[true], *(f"{matrix[true, taken]:,}" for taken in order)] for true in order]
    else:
        header = ["true class", "right, images", "most often taken for", "images"]
        wrong = matrix - np.diag(np.diag(matrix))
        taken = wrong.argmax(axis=1)
        rows = [[names[i], f"{matrix[i, i]:,}", names[taken[i]], f"{wrong[i, taken[i]]:,}"] for i in order]
    return Figure(name, title, charts.heat(cells, shown), Table(header, rows))


def matrix_picture(matrix: np.ndarray, order: Sequence[int]) -> str:
    """A matrix of very many classes as a picture whose opacity is the square root of the share of the row."""
    sorted_matrix = matrix[np.ix_(order, order)]
    shares = sorted_matrix / np.maximum(sorted_matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3], pixels[..., 3] = (59, 130, 196), np.round(255 * np.sqrt(shares))
    return png(pixels)


def _predicted(evaluation: EvaluatedNetworks, matrices: Mapping[str, np.ndarray]) -> Figure:
    """How often each class is predicted, relative to how often it occurs."""
    records, rows = [], []
    for index in evaluation.classes:
        images = int(matrices["clean"][index].sum())
        cells = []
        for series, matrix in matrices.items():
            predicted = int(matrix[:, index].sum())
            cells += [f"{predicted:,}", f"{predicted / images:.2f}" if images else NOTHING]
            if images:
                detail = f"predicted {predicted:,} times, {images:,} images of the class"
                records.append(plain_number(evaluation, index, series, predicted / images) | {"detail": detail})
        rows.append([evaluation.class_name(index), f"{images:,}", *cells])
    header = ["class (training images)", "test images"]
    header += [cell for series in matrices for cell in (f"{series}: predicted", f"{series}: ratio")]
    axis = "predictions of the class / its test images"
    spec = by_class(evaluation, records, axis, (GREY, BLUE), rule=1)
    note = "Above 1 the network predicts the class more often than it occurs, below 1 less often."
    return Figure("predictions", "How often each class is predicted", spec, Table(header, rows), note)


def plain_number(evaluation: EvaluatedNetworks, index: int, series: str, value: float) -> dict[str, Any]:
    """A class's plain number, which has no interval."""
    shown = {"name": evaluation.labels[index], "series": series, "value": value, "low": None, "high": None}
    images = max(evaluation.card.data.class_counts[index], 1)
    return shown | {"text": f"{value:.2f}", "index": index, "images": images}


def by_class(
    evaluation: EvaluatedNetworks,
    records: Sequence[Mapping[str, Any]],
    axis: str,
    colors: Sequence[str],
    *,
    bars: bool = False,
    domain: tuple[float, float] | None = None,
    rule: float | None = None,
) -> charts.Spec:
    """Few classes by name; many against their training images."""
    if len(evaluation.classes) <= FEW_CLASSES:
        return charts.rows(records, axis, colors, bars=bars, domain=domain, rule=rule)
    points = [{**entry, "x": entry["images"], "low": None, "high": None} for entry in records]
    return charts.scatter(points, "training images of the class", axis, colors, log_x=True, domain=domain)


def networks(evaluation: EvaluatedNetworks) -> list[Figure]:
    """Numbers of all networks side by side, and head against tail."""
    attacked, distinct = evaluation.column(evaluation.headline), evaluation.distinct
    combined = [name for name, _ in evaluation.card.protocol.combined]
    present = evaluation.networks[evaluation.main].columns
    quoted = [c for c in dict.fromkeys(("clean", "pgd20", *combined, evaluation.headline)) if c in present]
    rows: list[list[str]] = []
    for column in quoted:
        rows.append([evaluation.column(column)])
        for view, title in _VIEWS.items():
            result = [network.columns[column].view(view) for network in distinct.values()]
            if any(estimate is not None for estimate in result):
                rows.append([title, *map(interval, result)])
        groups = [shots(evaluation.card, network.columns[column]) for network in distinct.values()]
        rows += [[title, *(interval(group[title]) for group in groups)] for title in groups[0]]
    drawn = [("clean", "overall", "clean, all"), (evaluation.headline, "overall", f"{attacked}, all")]
    drawn += [(evaluation.headline, "tail_third", f"{attacked}, tail")]
    drawn += [(evaluation.headline, "worst", f"{attacked}, worst class")]
    records = [
        record(estimate, name, series)
        for name, network in distinct.items()
        for column, view, series in drawn
        if (estimate := network.columns[column].view(view))
    ]
    spec = charts.rows(records, _RIGHT, (GREY, BLUE, ORANGE, PINK), domain=(0, 100))
    figures = [Figure("networks", "Accuracy of each network", spec, Table(["", *distinct], rows))]
    return figures + _frontier(evaluation)


def _frontier(evaluation: EvaluatedNetworks) -> list[Figure]:
    """Head against tail accuracy under attack, of two networks or more."""
    columns = {name: network.columns[evaluation.headline] for name, network in evaluation.distinct.items()}
    result = [(name, c.head_third, c.tail_third) for name, c in columns.items() if c.head_third and c.tail_third]
    if len(result) < 2:
        return []
    records = [
        record(tail, name, name)
        | {"x": 100 * head.value, "x_text": f"head {interval(head)} %"}
        | {"x_low": 100 * head.low, "x_high": 100 * head.high}
        for name, head, tail in result
    ]
    attacked = evaluation.column(evaluation.headline)
    spec = charts.scatter(records, f"head, {attacked}, %", f"tail, {attacked}, %", diagonal=True)
    rows = [[name, interval(head), interval(tail)] for name, head, tail in result]
    note = "On the dashed line head and tail are equal. Up and to the right is better."
    return [Figure("frontier", "Head against tail", spec, Table(["network", "head, %", "tail, %"], rows), note)]


def compared(evaluation: EvaluatedNetworks, comparisons: Sequence[Comparison]) -> dict[str, Any] | None:
    """Differences between networks, paired image by image."""
    if not comparisons:
        return None
    figures, same = [], []
    for place, entry in enumerate(comparisons, start=1):
        if entry.result is None:
            same.append(f"{entry.first} and {entry.second} have the same weights.")
            continue
        views = views_of(entry.result, evaluation.classes, evaluation.class_name)
        figures.append(differences(f"difference-{place}", (entry.first, entry.second), views, evaluation.labels))
    return {"figures": figures, "same": same}


def views_of(result: PairedComparison, order: Sequence[int], class_name: Callable[[int], str]) -> list[View]:
    """All images, groups, and the classes in order: all of few, otherwise those that differ."""
    views: list[View] = [("all images", result.overall), ("mean of classes", result.balanced)]
    views += [(title, result.groups[view]) for view, title in GROUPS.items() if view in result.groups]
    entries = [result.per_class[index] for index in order]
    few = len(entries) <= FEW_CLASSES
    kept = [entry for entry in entries if few or (entry.images and comparison.differs(entry))]
    return views + [(class_name(entry.class_index), entry) for entry in kept]


def differences(
    name: str, networks: tuple[str, str], views: Sequence[View], class_labels: Sequence[str] | None = None
) -> Figure:
    """Paired differences, first minus second network, with a filled dot where one of them is ahead."""
    views = [(title, view) for title, view in views if view.test]
    records = []
    for title, view in views:
        index = view.class_index if isinstance(view, ClassDifference) else None
        label: str = class_labels[index] if class_labels and index is not None else title
        shown = record(view, label)
        shown["text"] = f"{interval(view, sign=True)} points"
        records.append(shown | {"open": not comparison.differs(view)} | ({} if index is None else {"index": index}))
    rows = []
    for (title, view), p_holm in zip(views, comparison.corrected([view for _, view in views]), strict=True):
        if view.test:
            shares = [percent(view.first), percent(view.second), interval(view, sign=True)]
            rows.append([title, *shares, str(view.test.b), str(view.test.c), p_value(view.test.p), p_value(p_holm)])
    header = ["", *networks, "difference", f"only {networks[0]}", f"only {networks[1]}", "p", "corrected p"]
    spec = charts.rows(records, "difference, percentage points", rule=0)
    return Figure(name, f"{networks[0]} minus {networks[1]}", spec, Table(header, rows))
