"""The table of `ltrobust compile`. No JAX."""

from collections.abc import Iterator, Sequence

from ltrobust.compilation.chips import Topology
from ltrobust.compilation.record import CALL, Row
from ltrobust.report.tables import align

# Images on a chip at a time that cost least, by the compiler's model: ResNet-18 on 32x32 images, one v5e chip.
BEST_IMAGES, BEST_SIDE = 128, 32
_FEW, _MANY = BEST_IMAGES // 2, 2 * BEST_IMAGES
# Operations without an estimate that are named, of each program.
_NAMED = 3
_COLUMNS = (
    "a chip: images at a time; of chip: of the memory that JAX takes; sent, KiB, loops: messages, what a chip gives to "
    "them,\nand how many loops stand around one; not priced: operations without an estimate, and their outputs."
)


def table(rows: Sequence[Row], topology: Topology) -> str:
    """One line for each program, then what the columns are, problems and advice."""
    header = [
        *("program", "images", "a chip", "compiles", "compile s", "memory MiB", "of chip", "model: Mcycles", "ms"),
        *("images/s", "of peak", "sent", "KiB", "loops", "not priced"),
    ]
    lines = [align([header, *(_line(row, topology) for row in rows)])]
    lines += [_COLUMNS, *(row.problem for row in rows if row.problem)]
    if topology.chip.gigahertz:
        lines.append(
            "Cycles, ms, images/s and the share of the bfloat16 peak are the compiler's model, not measurements.\n"
            "They are of one step, one pass of all images, or one call, without collectives and what is not priced."
        )
    else:
        lines.append(f"The compiler for {topology.chip.name} has no model of time: memory and messages only.")
    if largest := list(_largest(rows)):
        lines.append("\n".join(["Not priced, the largest outputs:", *largest]))
    lines += advice(rows, topology)
    return "\n\n".join(lines)


def _largest(rows: Sequence[Row]) -> Iterator[str]:
    """The operations without an estimate that have the largest outputs, of each program."""
    for row in rows:
        named = sorted(row.unpriced, key=lambda one: -one.bytes)[:_NAMED]
        if named:
            each = (f"{one.kind} {one.operation} ({one.count}, {one.bytes / 1024:.0f} KiB)" for one in named)
            yield f"  {row.program}: {', '.join(each)}"


def _line(row: Row, topology: Topology) -> list[str]:
    unpriced = sum(one.count for one in row.unpriced)
    return [
        row.program,
        f"{row.images:,}",
        f"{row.images_per_chip:g}{_mark(row, topology)}",
        "no" if row.problem else "yes",
        _number(row.compile_seconds, "{:.0f}"),
        _number(row.memory, "{:.1f}", 1 << 20),
        _number(row.memory, "{:.1%}", topology.chip.usable),
        _number(row.cycles, "{:.3f}", 1e6),
        _number(row.seconds, "{:.3f}", 1e-3),
        _number(row.images_per_second, "{:,.0f}"),
        _number(row.share_of_peak, "{:.1%}"),
        str(sum(one.count for one in row.collectives)),
        f"{sum(one.bytes for one in row.collectives) / 1024:.1f}",
        str(row.depth()),
        f"{unpriced}, {sum(one.bytes for one in row.unpriced) / 1024:.0f} KiB" if unpriced else "none",
    ]


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return "" if value is None else form.format(value / unit)


def _mark(row: Row, topology: Topology) -> str:
    """Whether a chip has fewer or more images than cost least; empty where that number is not known.

    It is known for TPUs and small images. A program without passes through the network, such as the start of an attack,
    has no such number.
    """
    if not topology.chip.gigahertz or row.unit == CALL or max(row.image_shape[:2]) > BEST_SIDE:
        return ""
    if row.images_per_chip < _FEW:
        return " (few)"
    return " (many)" if row.images_per_chip > _MANY else ""


def advice(rows: Sequence[Row], topology: Topology) -> list[str]:
    """What other numbers of images a chip would cost less."""
    marks = {mark for row in rows if (mark := _mark(row, topology))}
    lines = []
    if " (few)" in marks:
        lines.append(
            f"(few): about {BEST_IMAGES} images a chip cost least; 16 cost 1.7 times as much an image (the model, "
            "ResNet-18, v5e). Use fewer chips, or a larger batch with a schedule for it."
        )
    if " (many)" in marks:
        lines.append(
            f"(many): about {BEST_IMAGES} images a chip cost least; 512 cost 1.22 times as much an image (the model, "
            "ResNet-18, v5e). Use more chips, or a smaller batch."
        )
    return lines
