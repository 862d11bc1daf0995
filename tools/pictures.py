"""Draws the diagrams of the pages as SVG files, which are committed in docs/pictures/. No JAX.

    python -m tools.pictures

Each picture has a background and colours for light and dark screens, so it can be read on pages of both kinds.
"""

import html
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path("docs") / "pictures"
STYLE = """
.ground { fill: #f6f8fa } .box { fill: #ffffff; stroke: #8c959f } .main { fill: #ddf4ff; stroke: #218bff }
.bar { fill: #218bff } .rare { fill: #cf222e } text { fill: #1f2328 } .note { fill: #57606a }
.line { stroke: #57606a; fill: none; stroke-width: 1.5 } .head { fill: #57606a }
@media (prefers-color-scheme: dark) {
.ground { fill: #161b22 } .box { fill: #21262d; stroke: #6e7681 } .main { fill: #0c2d6b; stroke: #388bfd }
.bar { fill: #58a6ff } .rare { fill: #ff7b72 } text { fill: #e6edf3 } .note { fill: #9ea7b3 }
.line { stroke: #9ea7b3 } .head { fill: #9ea7b3 } }
"""


class Box(NamedTuple):
    """A box by its centre, with lines of text, the first of them bold.

    Attributes:
      kind: class of the box: `box` or `main`.
      bars: heights from 0 to 1 of a small bar chart below the text.
    """

    x: float
    y: float
    width: float
    height: float
    lines: Sequence[str]
    kind: str = "box"
    bars: Sequence[float] = ()


class Arrow(NamedTuple):
    """From one box to another, between the middles of the nearest sides, with text beside it.

    Attributes:
      straight: from the bottom to the top, without corners.
    """

    start: str
    end: str
    text: str = ""
    straight: bool = False


def picture(title: str, width: int, height: int, boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> str:
    """An SVG document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>',
        f'<rect class="ground" width="{width}" height="{height}" rx="8"/>',
    ]
    parts += [_arrow(boxes[arrow.start], boxes[arrow.end], arrow) for arrow in arrows]
    parts += [_box(box) for box in boxes.values()]
    return "\n".join([*parts, "</svg>\n"])


def _box(box: Box) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    parts = [
        f'<rect class="{box.kind}" x="{left:g}" y="{top:g}" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
    ]
    chart = 46 if box.bars else 0
    first = box.y - (len(box.lines) - 1) * 8.5 - chart / 2 + 4.5
    for number, line in enumerate(box.lines):
        form = ' font-weight="600"' if number == 0 else ' class="note" font-size="12"'
        parts.append(
            f'<text x="{box.x:g}" y="{first + 17 * number:g}" text-anchor="middle"{form}>{html.escape(line)}</text>'
        )
    step = (box.width - 40) / max(len(box.bars), 1)
    for number, height in enumerate(box.bars):
        kind = "rare" if number >= len(box.bars) - 3 else "bar"
        bar = max(40 * height, 1.5)
        parts.append(
            f'<rect class="{kind}" x="{left + 20 + step * number:.1f}" y="{top + box.height - 10 - bar:.1f}" '
            f'width="{step - 2:.1f}" height="{bar:.1f}"/>'
        )
    return "".join(parts)


def _arrow(start: Box, end: Box, arrow: Arrow) -> str:
    """A line where the boxes face each other, else one with corners."""
    across = not arrow.straight and abs(end.x - start.x) > (start.width + end.width) / 2
    if across:
        sign = 1 if end.x > start.x else -1
        x1, y1 = start.x + sign * start.width / 2, start.y
        x2, y2 = end.x - sign * end.width / 2 - sign * 2, end.y
        middle = (x1 + x2) / 2
        path = f"M{x1:g} {y1:g}L{x2:g} {y2:g}" if y1 == y2 else f"M{x1:g} {y1:g}H{middle:g}V{y2:g}H{x2:g}"
        label = f'<text class="note" font-size="12" x="{middle:g}" y="{min(y1, y2) - 8:g}" text-anchor="middle">'
    else:
        sign = 1 if end.y > start.y else -1
        x1, y1 = start.x, start.y + sign * start.height / 2
        x2, y2 = end.x, end.y - sign * end.height / 2 - sign * 2
        middle = (y1 + y2) / 2
        path = (
            f"M{x1:g} {y1:g}L{x2:g} {y2:g}"
            if x1 == x2 or arrow.straight
            else f"M{x1:g} {y1:g}V{middle:g}H{x2:g}V{y2:g}"
        )
        label = f'<text class="note" font-size="12" x="{max(x1, x2) + 8:g}" y="{middle + 4:g}">'
    words = f"{label}{html.escape(arrow.text)}</text>" if arrow.text else ""
    return f'<path class="line" d="{path}" marker-end="url(#head)"/>{words}'


def overview() -> str:
    """Data, balanced subset, teacher, student and evaluation."""
    falling = [0.65**number for number in range(10)]
    boxes = {
        "data": Box(110, 150, 180, 110, ["Long-tailed images", "few of the rare classes"], bars=falling),
        "balanced": Box(375, 75, 170, 110, ["Balanced subset", "as many of every class"], bars=[0.35] * 10),
        "teacher": Box(610, 75, 190, 70, ["Teacher", "adversarial training"]),
        "student": Box(610, 225, 190, 80, ["Student", "balanced loss, and", "agreement with the teacher"], "main"),
        "evaluation": Box(
            850, 150, 180, 100, ["Evaluation", "attacks on every image,", "accuracy of every class,", "sanity checks"]
        ),
    }
    arrows = [
        Arrow("data", "balanced"),
        Arrow("balanced", "teacher"),
        Arrow("data", "student"),
        Arrow("teacher", "student", "frozen"),
        Arrow("teacher", "evaluation"),
        Arrow("student", "evaluation"),
    ]
    title = (
        "A teacher learns from a balanced subset; a student learns from all images and the teacher; both are attacked"
    )
    return picture(title, 960, 285, boxes, arrows)


def rooms() -> str:
    """Which room imports which, arrows that follow from others left out."""
    places = {
        "api": (300, 0), "commands": (480, 0), "run": (350, 1), "compilation": (600, 1), "recipes": (120, 2),
        "training": (420, 2), "report": (700, 2), "plan": (380, 3), "evaluator": (560, 3), "methods": (320, 4),
        "analysis": (640, 4), "models": (200, 5), "sanity": (640, 5), "evaluation": (560, 6), "registry": (120, 7),
        "attacks": (420, 7), "data": (640, 7), "threat": (420, 8),
    }  # fmt: skip
    boxes = {name: Box(x, 40 + 64 * row, 110, 32, [name]) for name, (x, row) in places.items()}
    imports = (
        "commands run, commands compilation, compilation training, compilation report, api run, run recipes, "
        "run training, run report, training plan, plan methods, plan evaluation, training evaluator, "
        "evaluator analysis, report analysis, analysis sanity, sanity evaluation, evaluation attacks, evaluation data, "
        "methods attacks, methods models, models registry, recipes registry, attacks threat"
    )
    arrows = [Arrow(*pair.split(), straight=True) for pair in imports.split(", ")]
    return picture("Which part of the package imports which", 800, 592, boxes, arrows)


def step() -> str:
    """One training step."""
    names = {
        "batch": ["Batch", "gather uint8 images, augment, divide by 255"],
        "radii": ["Radii", "radius and step size of each example"],
        "attack": ["Attack", "PGD on the method's objective, gradient stopped"],
        "perturb": ["Weights moved (optional)", "AWP"],
        "loss": ["Loss", "the method's passes; each names its BatchNorm mode"],
        "gradient": ["Gradient", "mean over devices"],
        "update": ["Update", "optimizer, then the weights are moved back"],
        "after": ["Afterwards", "average of weights, sums of metrics, first non-finite step"],
    }
    boxes = {name: Box(420, 40 + 66 * number, 400, 44, lines) for number, (name, lines) in enumerate(names.items())}
    boxes["rows"] = Box(90, 40, 140, 44, ["Row numbers"])
    boxes["key"] = Box(90, 172, 140, 44, ["Random key", "phase, step, position"])
    order = list(names)
    arrows = [Arrow(one, two) for one, two in itertools.pairwise(order)]
    arrows += [Arrow("rows", "batch"), Arrow("key", "attack"), Arrow("key", "batch")]
    return picture("The parts of a training step in their order", 640, 542, boxes, arrows)


PICTURES = {"overview.svg": overview, "packages.svg": rooms, "training_step.svg": step}


def main(root: Path) -> None:
    """Writes the pictures under `root`."""
    (root / FOLDER).mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (root / FOLDER / name).write_text(draw())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
