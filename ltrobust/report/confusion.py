"""Section of a report: who takes whose images under attack. No JAX."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ltrobust.analysis.evaluations import Evaluation
from ltrobust.report.markup import Element, element, figure, paragraph, percent, table
from ltrobust.report.material import FEW_CLASSES

# A heat map's ink, drawn over any background.
_INK = (0, 114, 178)
# The same as pixels, which carry no text and may be lighter; and the most of it behind text.
_LIGHT_INK, _BEHIND_TEXT = (46, 139, 204), 0.75


def section(evaluation: Evaluation) -> list[Element]:
    """Who takes whose images under attack."""
    network = evaluation.networks[evaluation.main]
    matrix, names = np.array(network["confusion"][evaluation.headline]), evaluation.card["data"]["class_names"]
    few = len(names) <= FEW_CLASSES
    order = evaluation.classes
    thieves = [(index, taken) for index, taken in enumerate(network["thief"]) if taken is not None]
    thieves.sort(key=lambda entry: order.index(entry[0]) if few else -entry[1][1])
    rows = [[evaluation.class_name(index), evaluation.class_name(by), percent(share)] for index, (by, share) in thieves]
    title = "Each class's thief" if few else f"The {min(FEW_CLASSES, len(rows))} largest thefts"
    thefts = table(["class (training images)", "taken by", "share, %"], rows[:FEW_CLASSES])
    note = paragraph("The most frequent wrong prediction and its share of the class's test images.", class_="note")
    attacked = evaluation.column(evaluation.headline)
    return [
        paragraph(
            f"{evaluation.main} under {attacked}: images of a class (row) by what they are taken for (column), both "
            "with most training images first. The stronger the colour, the larger the share of the row.",
            class_="note",
        ),
        element(
            "div",
            figure("Test images by prediction", heat(matrix, order, names)),
            figure(title, thefts, note),
            class_="figures",
        ),
    ]


def heat(matrix: np.ndarray, order: Sequence[int], names: Sequence[str]) -> Element:
    """A confusion's counts [C, C], row = true class: a tinted table of few classes, a picture of many."""
    return _heat_table(matrix, order, names) if len(names) <= FEW_CLASSES else _heat_image(matrix, order)


def _heat_table(matrix: np.ndarray, order: Sequence[int], names: Sequence[str]) -> Element:
    """A matrix of few classes as a table whose cells are tinted."""
    totals = matrix.sum(axis=1)
    rows = []
    for true in order:
        cells = []
        for taken in order:
            share = float(matrix[true, taken] / max(totals[true], 1))
            kind = "right" if true == taken else None
            tint = f"background:rgba({','.join(map(str, _INK))},{_BEHIND_TEXT * share:.3f})"
            cells.append(element("td", f"{matrix[true, taken]:,}", style=tint, class_=kind))
        rows.append(element("tr", element("th", names[true], scope="row"), *cells))
    head = element("tr", element("th", "true"), *(element("th", names[index], scope="col") for index in order))
    whole = element("table", element("thead", head), element("tbody", *rows), class_="heat")
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label="confusion under attack")


def _heat_image(matrix: np.ndarray, order: Sequence[int]) -> Element:
    """A matrix of many classes as a picture whose ink's opacity is the share of the row."""
    sorted_matrix = matrix[np.ix_(order, order)]
    shares = sorted_matrix / np.maximum(sorted_matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    # A square root shows small shares, which most off-diagonal cells are.
    pixels[..., :3], pixels[..., 3] = _LIGHT_INK, np.round(255 * np.sqrt(shares))
    description = f"{len(order)} by {len(order)} classes; opacity is the square root of the share of the row"
    return element(
        "div",
        element("img", src=png(pixels), alt=f"Confusion under attack, {description}.", class_="pixels wide"),
        paragraph(f"{description}.", class_="note"),
    )


def png(pixels: np.ndarray) -> str:
    """A picture, uint8 [H,W,C] of 1, 3 or 4 channels, as a data URI."""
    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(content, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
