"""Section of a report: what the teacher saw, how sure it is, and where teacher and student agree. No JAX."""

from ltrobust.analysis.evaluations import GROUPS, Evaluation
from ltrobust.report import charts
from ltrobust.report.charts import Axis, Row, Value
from ltrobust.report.markup import NOTHING, Element, element, figure, folded, interval, paragraph, percent, table
from ltrobust.report.material import FEW_CLASSES, Teaching

_CLEAN, _TEACHER, _STUDENT = 6, 0, 1
_SHARES = {"both": "both right", "only_first": "only teacher", "only_second": "only student", "neither": "both wrong"}


def section(evaluation: Evaluation, teaching: Teaching) -> list[Element]:
    """Exposure, confidence and agreement; only of a run that has a teacher of its own."""
    if "teacher" not in evaluation.card["training"]:
        return []
    return [*_exposure(evaluation), *_confidence(evaluation, teaching), *_agreement(evaluation, teaching)]


def _exposure(evaluation: Evaluation) -> list[Element]:
    """How often each class's images were seen."""
    card = evaluation.card
    phases = [phase for phase in ("teacher", "student") if "examples" in card["training"].get(phase, {})]
    if not phases:
        return []
    counts = card["data"]["class_counts"]
    listed = {phase: card["training"][phase]["examples"]["class_counts"] for phase in phases}
    rates = {phase: [seen / own for seen, own in zip(listed[phase], counts, strict=True)] for phase in phases}
    styles = {"teacher": _TEACHER, "student": _STUDENT}
    header = ["class (training images)"]
    for phase in phases:
        header += [f"{phase}: in the list", f"{phase}: per image and epoch", f"{phase}: share, %"]
    rows = []
    for index in evaluation.classes:
        cells = [
            cell
            for phase in phases
            for cell in (
                f"{listed[phase][index]:,}",
                f"{rates[phase][index]:.2f}",
                percent(listed[phase][index] / sum(listed[phase])),
            )
        ]
        rows.append([evaluation.class_name(index), *cells])
    shown = evaluation.classes if len(evaluation.classes) <= FEW_CLASSES else []
    drawn = [
        Row(evaluation.class_name(i), [Value(rates[phase][i], None, None, styles[phase]) for phase in phases])
        for i in shown
    ]
    parts = []
    if drawn:
        axis = Axis("times per epoch", 0, 1.05 * max(max(found) for found in rates.values()))
        chart = charts.rows("How often an image of each class is seen in an epoch.", drawn, axis, bars=True)
        legend = charts.legend([(phase, styles[phase]) for phase in phases], "bar")
        parts.append(element("div", figure("Times an image is seen per epoch", chart, legend), class_="figures"))
    return [
        element("h3", "Exposure"),
        *(paragraph(_told(evaluation, phase), class_="note") for phase in phases),
        *parts,
        folded("Exposure: the numbers", table(header, rows)),
    ]


def _told(evaluation: Evaluation, phase: str) -> str:
    """A phase's list in words, counted from the card."""
    card = evaluation.card
    run, counts = card["training"][phase], card["data"]["class_counts"]
    number, settings = run["examples"]["number"], card["config"][phase]
    passes = run["steps"] * settings["batch_size"] / number
    line = (
        f"The {phase} is trained on a list of {number:,} entries; {run['steps']:,} updates of {settings['batch_size']} "
        f"are {passes:.1f} passes through it. Times per image and epoch: entries of a class over its training images."
    )
    unseen = sum(max(own - seen, 0) for own, seen in zip(counts, run["examples"]["class_counts"], strict=True))
    if unseen and settings["subset"] == "balanced":
        again = settings["balanced"]["redraw"]
        line += f" {unseen:,} of {sum(counts):,} training images are left out" + (
            ", other ones in every epoch." if again else ", the same ones in every epoch: the teacher never sees them."
        )
    return line


def _confidence(evaluation: Evaluation, teaching: Teaching) -> list[Element]:
    """Mean probability of the true class by class."""
    if not teaching.confidence:
        return []
    figures, names = [], list(teaching.confidence)
    for name, found in teaching.confidence.items():
        rows = [
            Row(
                evaluation.class_name(index),
                [
                    charts.in_percent(found["clean"][index], _CLEAN),
                    charts.in_percent(found["attacked"][index], _TEACHER),
                ],
            )
            for index in (evaluation.classes if len(evaluation.classes) <= FEW_CLASSES else [])
        ]
        if rows:
            label = f"Mean probability that {name} gives the true class, by class."
            chart = charts.rows(label, rows, Axis("mean probability of the true class, %", 0, 100), bars=True)
            legend = charts.legend([("clean", _CLEAN), ("lowest under attack", _TEACHER)], "bar")
            figures.append(figure(name, chart, legend))
    header = ["class (training images)", *(f"{name}, {how}, %" for name in names for how in ("clean", "attacked"))]
    rows = [
        [
            evaluation.class_name(index),
            *(interval(teaching.confidence[name][how][index]) for name in names for how in ("clean", "attacked")),
        ]
        for index in evaluation.classes
    ]
    return [
        element("h3", "Confidence"),
        paragraph(
            "Mean over a class's test images of softmax's probability of the true class; attacked: the lowest over the "
            f"clean image and the points that the attacks of {evaluation.column(evaluation.headline)} ended at (images "
            "that are wrong when clean are not attacked and count with their clean value). 95 % normal intervals.",
            class_="note",
        ),
        element("div", *figures, class_="figures"),
        folded("Confidence: the numbers", table(header, rows)),
    ]


def _agreement(evaluation: Evaluation, teaching: Teaching) -> list[Element]:
    """Who is right under attack, by group."""
    if not teaching.agreement:
        return []
    rows = []
    for group, found in teaching.agreement.items():
        kappa = found["kappa"]
        told = NOTHING if kappa["value"] is None else f"{kappa['value']:.2f} [{kappa['low']:.2f}, {kappa['high']:.2f}]"
        shares = [percent(found[key]) for key in _SHARES]
        rows.append([GROUPS.get(group, "all images"), f"{found['images']:,}", *shares, told])
    header = ["", "images", *(f"{title}, %" for title in _SHARES.values()), "Cohen's kappa"]
    return [
        element("h3", "Agreement under attack"),
        paragraph(
            f"teacher/last and student/last under {evaluation.column(evaluation.headline)}, the same test images. "
            "Each network meets its own attacks. Kappa is agreement beyond chance: 1 is full, 0 none; 95 % interval.",
            class_="note",
        ),
        table(header, rows),
    ]
