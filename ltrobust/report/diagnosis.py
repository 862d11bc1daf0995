"""Text of a class-wise diagnosis for a terminal, and the cells that its page has too. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

from ltrobust.report import tables
from ltrobust.report.numbers import NOTHING, interval, number, p_value, percent

MEASURES = {
    "mean": "mean of classes, %",
    "worst": "worst class, %",
    "worst10": "mean of the lowest tenth, %",
    "best": "best class, %",
    "range": "range, points",
    "sd": "deviation, points",
    "nsd": "deviation / mean",
    "var": "variance",
}
PLAIN = ("nsd", "var")


def text(found: Mapping[str, Any]) -> str:
    """The tables that a terminal shows."""
    parts = []
    for model in found["models"]:
        header = ["", "all", "mean", "worst", "range", "sd", "nsd", "asymmetry", "to favourite"]
        rows = [
            [
                column,
                percent(entry["overall"]["value"], 2),
                *(percent(entry["spread"][name]["value"], 2) for name in ("mean", "worst", "range", "sd")),
                *(NOTHING if value is None else f"{value:.3f}" for value in _ratios(entry)),
                percent(entry["favourites"]["share"]["value"], 1) if "favourites" in entry else NOTHING,
            ]
            for column, entry in model["columns"].items()
        ]
        parts.append(f"{model['name']}, percent:\n{tables.align([header, *rows])}")
        parts += _text_of(found, model)
    if found["between"]:
        rows = [
            [
                f"{entry['second']} and {entry['first']}",
                *(number(entry[kind]) for kind in ("spearman", "kendall")),
                number(entry["rho"], 3) if "rho" in entry else NOTHING,
            ]
            for entry in found["between"]
            if entry["column"] == found["column"]
        ]
        header = [f"between models, {found['column']}", "Spearman", "Kendall", "rho"]
        parts.append(tables.align([header, *rows]))
    return "\n\n".join(parts)


def _ratios(column: Mapping[str, Any]) -> list[float | None]:
    """nsd and asymmetry."""
    return [column["spread"]["nsd"]["value"], column["asymmetry"]["value"]]


def _text_of(found: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of one model besides its columns."""
    parts = [same_place(model["homing"])]
    if model["temperature"]:
        header = ["1/T", "broken, %", "minus PGD", "p", "corrected p", "sd", "range", "nsd", "worst class"]
        shown = tables.align([header, *temperature_rows(model)])
        parts.append(f"Temperature-PGD, of the images that are right when clean:\n{shown}")
    known = model["related"]["class_norms"]
    if known is not None:
        entry = known["columns"][found["column"]]
        parts.append(
            f"Classifier row length and accuracy under {found['column']}, interval for other classes: "
            + ", ".join(f"{how.capitalize()} {two_intervals(entry[how])[1]}" for how in ("pearson", "spearman"))
        )
    return parts


def measure_cell(column: Mapping[str, Any], measure: str) -> str:
    """A measure over classes, in percent where it is one."""
    estimate = column["spread"][measure]
    return number(estimate, 4 if measure == "var" else 3) if measure in PLAIN else interval(estimate)


def same_place(entry: Mapping[str, Any]) -> str:
    """What `homing` found, in a sentence."""
    said = f"Of {entry['images']:,} images that at least two of {', '.join(entry['attacks'])} break, "
    said += f"{interval(entry['one_class'])} % go to one and the same class whichever attack breaks them"
    if "one_superclass" in entry:
        said += f", {interval(entry['one_superclass'])} % to the classes of one superclass, "
        said += f"{interval(entry['own_superclass'])} % only to classes of their own superclass"
    return said + "."


def temperature_rows(model: Mapping[str, Any]) -> list[list[str]]:
    """One line per 1/T."""
    rows = []
    for entry in model["temperature"]:
        name = "worst of all" if entry["inverse"] == "worst" else f"{entry['inverse']:g}"
        cells = [NOTHING] * 7
        if entry["change"]:
            cells = [interval(entry["change"], sign=True), *(p_value(entry["change"][key]) for key in ("p", "p_holm"))]
            cells += [interval(entry["spread"][key], sign=True) for key in ("sd", "range")]
            cells += [number(entry["spread"]["nsd"], 3, sign=True), interval(entry["spread"]["worst"], sign=True)]
        rows.append([name + (" (PGD)" if entry["inverse"] == 1 else ""), interval(entry["rate"]), *cells])
    return rows


def two_intervals(entry: Mapping[str, Any]) -> Sequence[str]:
    """A correlation with its interval over images, and with the one over classes."""
    wide = {"value": entry["value"], "low": entry.get("classes_low"), "high": entry.get("classes_high")}
    return number(entry, 3), NOTHING if wide["low"] is None else number(wide, 3)
