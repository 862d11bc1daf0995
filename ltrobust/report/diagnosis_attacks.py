"""Sections of a diagnosis on what attacks do: confusion, homing, superclasses, temperature, classifier rows. No JAX."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.report import charts, confusion, tables
from ltrobust.report.charts import Axis, Series
from ltrobust.report.markup import NOTHING, Element, element, figure, folded, interval, paragraph, percent, table
from ltrobust.report.material import FEW_CLASSES

_EVALUATE = "run ltrobust diagnose --workdir=DIR."


def confusions(found: Mapping[str, Any]) -> list[Element]:
    """Who takes whose images under the column shown, and how one-sided that is under every column."""
    column, names, order = found["column"], found["class_names"], found["order"]
    models = found["models"]
    heats = [
        figure(
            f"{model['name']}, {column}", confusion.heat(np.array(model["columns"][column]["confusion"]), order, names)
        )
        for model in models
    ]
    rows = [
        [shown, *(_plain(model["columns"][shown]["asymmetry"]) for model in models)] for shown in models[0]["columns"]
    ]
    return [
        paragraph(
            "Images of a class (row) by what they are taken for (column), most training images first. Asymmetry is "
            "||M - M^T|| / ||M|| of the matrix of shares: 0 where classes take from each other as much as they lose, "
            "at most 1.41; noise adds to it.",
            class_="note",
        ),
        element("div", *heats, class_="figures"),
        element("h3", "Asymmetry"),
        table(["column", *(model["name"] for model in models)], rows),
    ]


def homing(found: Mapping[str, Any]) -> list[Element]:
    """Favourite targets, and images that every attack sends to the same place."""
    column, names, parts = found["column"], found["class_names"], []
    for model in found["models"]:
        entries = model["columns"][column]["favourites"]["classes"]
        shown = [index for index in found["order"] if entries[index]["broken"]]
        if len(names) > FEW_CLASSES:
            shown = sorted(shown, key=lambda index: -entries[index]["broken"])[:FEW_CLASSES]
        rows = [
            [
                names[index],
                f"{entries[index]['broken']:,}",
                names[entries[index]["target"]],
                interval(entries[index]["share"]),
            ]
            for index in shown
        ]
        title = f"Favourite targets under {column}" + (
            ", classes with most broken images" if len(names) > FEW_CLASSES else ""
        )
        shares = [
            [
                name,
                f"{sum(c['broken'] for c in entry['favourites']['classes']):,}",
                interval(entry["favourites"]["share"]),
            ]
            for name, entry in model["columns"].items()
            if "favourites" in entry
        ]
        even = model["columns"][column]["favourites"]["even"]
        parts += [
            element("h3", model["name"]),
            paragraph(_same_place(model["homing"])),
            element(
                "div",
                figure(title, table(["class", "broken", "favourite", "share, %"], rows)),
                figure(
                    "Share of all broken images that go to their class's favourite",
                    table(["column", "broken", "share, %"], shares),
                    paragraph(f"Were all other classes alike, it would be about {percent(even)} %.", class_="note"),
                ),
                class_="figures",
            ),
        ]
    note = (
        "Broken images are right when clean and wrong when attacked. The favourite target is chosen by the images it "
        "is counted on, so shares of few images are high by chance. Attacks that differ little, as PGD at several "
        "temperatures from one start, send an image to one class more easily."
    )
    return [paragraph(note, class_="note"), *parts]


def _same_place(entry: Mapping[str, Any]) -> str:
    """What `homing` found, in a sentence."""
    said = f"Of {entry['images']:,} images that at least two of {', '.join(entry['attacks'])} break, "
    said += f"{interval(entry['one_class'])} % go to one and the same class whichever attack breaks them"
    if "one_superclass" in entry:
        said += f", {interval(entry['one_superclass'])} % to the classes of one superclass, "
        said += f"{interval(entry['own_superclass'])} % only to classes of their own superclass"
    return said + "."


def superclasses(found: Mapping[str, Any]) -> list[Element]:
    """Accuracy when any class of the true superclass counts as right."""
    if found["superclasses"] is None:
        return []
    parts, column = [], found["column"]
    for model in found["models"]:
        columns = {name: entry["superclasses"] for name, entry in model["columns"].items()}
        rows = [
            [
                name,
                interval(model["columns"][name]["overall"]),
                interval(entry["overall"]),
                interval(entry["broken_inside"]),
            ]
            for name, entry in columns.items()
        ]
        each = [
            [clean["name"], *(interval(e) for e in (clean["fine"], clean, attacked["fine"], attacked))]
            for clean, attacked in zip(
                columns["clean"]["per_superclass"], columns[column]["per_superclass"], strict=True
            )
        ]
        header = ["superclass", "clean", "clean, by superclass", column, f"{column}, by superclass"]
        parts += [
            element("h3", model["name"]),
            table(["column", "right, %", "right by superclass, %", "broken inside the superclass, %"], rows),
            folded("Every superclass, %", table(header, each)),
        ]
    note = (
        "By superclass, a prediction is right if it names any class of the true class's superclass. The attacks were "
        "after any wrong class, so this is an upper bound of what an attack on the superclass would leave."
    )
    return [paragraph(note, class_="note"), *parts]


def lacks_superclasses(found: Mapping[str, Any]) -> list[str]:
    """Why there are none."""
    said = "No superclasses: only those of CIFAR-100 are known, by the names of its classes."
    return [said] if found["superclasses"] is None else []


def temperature(found: Mapping[str, Any]) -> list[Element]:
    """Success rates against 1/T, beside PGD."""
    models = [model for model in found["models"] if model["temperature"]]
    if not models:
        return []
    series, parts = [], []
    for place, model in enumerate(models):
        swept = [entry for entry in model["temperature"] if entry["inverse"] != "worst"]
        value, low, high = ([100 * entry["rate"][key] for entry in swept] for key in ("value", "low", "high"))
        series.append(Series("", [entry["inverse"] for entry in swept], value, place, low, high, dots=True))
        header = [
            "1/T",
            "broken, %",
            "minus PGD",
            "p",
            "corrected p",
            "sd minus PGD",
            "range minus PGD",
            "nsd minus PGD",
        ]
        parts += [element("h3", model["name"]), table([*header, "worst class minus PGD"], _rows(model))]
    inverses = [entry for line in series for entry in line.x]
    low, high = charts.around([bound for line in series for bound in (*line.low, *line.high)])
    chart = charts.lines(
        "Share of images broken by Temperature-PGD against the inverse temperature.",
        series,
        Axis("1/T; 1 is PGD", min(inverses), max(inverses), logarithmic=True),
        Axis("broken, % of those right when clean", max(0.0, low), min(100.0, high)),
    )
    legend = charts.legend([(model["name"], place) for place, model in enumerate(models)])
    note = (
        "Temperature-PGD ascends logsumexp_{j != y}(z_j / T) - z_y / T, whose steps are those of cross-entropy on "
        "z / T. All have PGD's start, steps and step size. Differences are paired, image by image, with McNemar's "
        "exact test and Holm's correction over the list. The last row takes the worst over all of them for each image: "
        "as many times the work, and never below PGD."
    )
    return [
        element("div", figure("Broken images by 1/T", chart, legend), class_="figures"),
        *parts,
        paragraph(note, class_="note"),
    ]


def _rows(model: Mapping[str, Any]) -> list[list[str]]:
    """One line per 1/T."""
    rows = []
    for entry in model["temperature"]:
        name = "worst of all" if entry["inverse"] == "worst" else f"{entry['inverse']:g}"
        cells = [NOTHING] * 7
        if entry["change"]:
            cells = [interval(entry["change"], sign=True), *(_p(entry["change"][key]) for key in ("p", "p_holm"))]
            cells += [interval(entry["spread"][key], sign=True) for key in ("sd", "range")]
            cells += [_plain(entry["spread"]["nsd"], sign=True), interval(entry["spread"]["worst"], sign=True)]
        rows.append([name + (" (PGD)" if entry["inverse"] == 1 else ""), interval(entry["rate"]), *cells])
    return rows


def lacks_temperature(found: Mapping[str, Any]) -> list[str]:
    """Which models have none."""
    return [
        f"{model['name']}: the protocol has no Temperature-PGD, or no image is right when clean; {_EVALUATE}"
        for model in found["models"]
        if not model["temperature"]
    ]


def norms(found: Mapping[str, Any]) -> list[Element]:
    """Lengths of the classifier's rows against class accuracy, and the number of training images beside them."""
    parts, column = [], found["column"]
    for model in found["models"]:
        known = model["related"]["class_norms"]
        if known is None:
            continue
        accuracy = [entry["value"] for entry in model["columns"][column]["per_class"]]
        points = sorted(
            (norm, 100 * value) for norm, value in zip(known["values"], accuracy, strict=True) if value is not None
        )
        x, y = ([point[axis] for point in points] for axis in (0, 1))
        chart = charts.lines(
            f"{model['name']}: accuracy of a class under {column} against the length of its classifier row.",
            [Series("", x, y, 0, dots=True, joined=False)],
            Axis("length of the classifier's row", *charts.around(x)),
            Axis(f"right under {column}, %", 0, 100),
        )
        parts += [element("h3", model["name"]), element("div", figure("A dot is a class", chart), class_="figures")]
        if model["head"] == "cosine":
            parts.append(
                paragraph("A cosine head divides its rows by their lengths, so these hardly enter the logits.")
            )
        rows = []
        for kind, title in (("class_norms", "row length"), ("training_counts", "training images, for comparison")):
            if model["related"][kind] is not None:
                rows.append([title])
                rows += [
                    [name, *(cell for how in ("pearson", "spearman") for cell in _two_intervals(entry[how]))]
                    for name, entry in model["related"][kind]["columns"].items()
                ]
        header = ["accuracy under", "Pearson, other images", "other classes", "Spearman, other images", "other classes"]
        parts.append(table(header, rows))
    note = (
        "Correlations over classes. Two intervals: for other test images of these classes (bootstrap), and for other "
        "classes (Fisher; Bonett and Wright), which few classes make wide."
    )
    return [*parts, paragraph(note, class_="note")] if parts else []


def lacks_norms(found: Mapping[str, Any]) -> list[str]:
    """Which models have none."""
    return [
        f"{model['name']}: no lengths of classifier rows are recorded. They are on the card of a run's evaluation "
        f"({_EVALUATE[:-1]}), not of a function from images to logits."
        for model in found["models"]
        if model["related"]["class_norms"] is None
    ]


def text(found: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of one model besides its columns."""
    parts = [_same_place(model["homing"])]
    if model["temperature"]:
        header = ["1/T", "broken, %", "minus PGD", "p", "corrected p", "sd", "range", "nsd", "worst class"]
        parts.append(
            f"Temperature-PGD, of the images that are right when clean:\n{tables.align([header, *_rows(model)])}"
        )
    known = model["related"]["class_norms"]
    if known is not None:
        entry = known["columns"][found["column"]]
        parts.append(
            f"Classifier row length and accuracy under {found['column']}, interval for other classes: "
            + ", ".join(f"{how.capitalize()} {_two_intervals(entry[how])[1]}" for how in ("pearson", "spearman"))
        )
    return parts


def _two_intervals(entry: Mapping[str, Any]) -> Sequence[str]:
    """A correlation with its interval over images, and with the one over classes."""
    wide = {"value": entry["value"], "low": entry.get("classes_low"), "high": entry.get("classes_high")}
    return _plain(entry), NOTHING if wide["low"] is None else _plain(wide)


def _plain(estimate: Mapping[str, Any], *, sign: bool = False) -> str:
    """A plain number with its interval."""
    if estimate["value"] is None:
        return NOTHING
    value, low, high = (f"{estimate[key]:{'+' if sign else ''}.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else "<0.0001"
