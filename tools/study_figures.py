"""The figures of docs/study.md, drawn from the committed cards.

    python -m tools.study_figures

Writes `docs/figures/{gain,frontier,prior}.svg`. Backgrounds are transparent and colours are legible on white and on
dark pages.
"""

import re
import sys
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from ltrobust.analysis.intervals import SeedMean
from ltrobust.report import frame
from ltrobust.report.charts import BLUE, GREY, ORANGE
from tools import study_page
from tools.committed import MARK
from tools.study_page import FIRST, SECOND, VARIANTS, Row

FOLDER = Path("docs") / "figures"
FAMILIES = {"AT-BSL": ORANGE, "distillation": BLUE, "without counts in the student": GREY}
CONFIG = {
    "background": "transparent",
    "font": "sans-serif",
    "axis": {
        "labelColor": GREY,
        "titleColor": GREY,
        "gridColor": GREY,
        "gridOpacity": 0.25,
        "domainColor": GREY,
        "titleFontWeight": "normal",
    },
    "legend": {"labelColor": GREY, "titleColor": GREY, "orient": "bottom", "title": None},
    "header": {"labelColor": GREY, "titleColor": GREY},
    "title": {"color": GREY},
    "text": {"color": GREY},
    "view": {"stroke": None},
}


def family(name: str) -> str:
    """By which a row is coloured."""
    if name.startswith(SECOND):
        return "AT-BSL"
    taught = name.startswith((FIRST, "counts_teacher", "plain_teacher", "teacher_")) and ":" not in name
    return "distillation" if taught else "without counts in the student"


def records(root: Path) -> list[dict[str, Any]]:
    """One for each row of the study's tables that has two seeds or more; accuracies in percent."""
    return [
        {
            "data": group.title,
            "name": row.title,
            "short": row.name.replace("self_distillation:teacher/last", "its teacher"),
            "family": family(row.name),
            **_values(row),
        }
        for group in study_page.groups(root)
        for row in study_page.rows(group)
        if row.number > 1 and not row.name.endswith(study_page.ORDERS)
    ]


def _values(row: Row) -> dict[str, Any]:
    """The numbers of a row."""
    result: dict[str, Any] = {"predicted": 100 * row.predicted}
    named: dict[str, SeedMean | None] = {"tail": row.tail, "head": row.head, "gain": row.gain}
    for name, value in named.items():
        if value is not None:
            result |= {name: 100 * value.mean, f"{name}_low": 100 * value.low, f"{name}_high": 100 * value.high}
    return result


def _color() -> alt.Color:
    return alt.Color("family:N", scale=alt.Scale(domain=list(FAMILIES), range=list(FAMILIES.values())))


def gain(found: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Tail accuracy minus AT-BSL's, with intervals."""
    shown = [record for record in found if "gain" in record]
    order = [title + mark for title in VARIANTS.values() for mark in ("", MARK)]
    base = alt.Chart().encode(y=alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=330)))
    title = "tail under AutoAttack, minus AT-BSL (points)"
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("gain:Q", title=title), color=_color())
    whiskers = base.mark_rule().encode(x=alt.X("gain_low:Q", title=title), x2="gain_high:Q", color=_color())
    zero = alt.Chart().mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(0))
    layers = alt.layer(zero, whiskers, dots, data=alt.Data(values=shown)).properties(width=330)
    return layers.facet(row=_rows(shown)).resolve_scale(y="independent")


def frontier(found: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """Accuracy of head against tail."""
    base = alt.Chart().encode(
        x=alt.X("head:Q", title="head under AutoAttack (%)", scale=alt.Scale(zero=False, padding=25)),
        y=alt.Y("tail:Q", title="tail under AutoAttack (%)", scale=alt.Scale(zero=False, padding=25)),
    )
    return _scattered(base, found, "head")


def prior(found: list[dict[str, Any]]) -> alt.TopLevelMixin:
    """How often the tail is predicted, against its accuracy."""
    base = alt.Chart().encode(
        x=alt.X(
            "predicted:Q", title="clean images predicted as tail (%; 30 are)", scale=alt.Scale(zero=False, padding=25)
        ),
        y=alt.Y("tail:Q", title="tail under AutoAttack (%)", scale=alt.Scale(zero=False, padding=25)),
    )
    return _scattered(base, found)


def _scattered(base: alt.Chart, found: list[dict[str, Any]], across: str = "") -> alt.TopLevelMixin:
    """Dots with their names and intervals, a panel for each data set."""
    shown = [record for record in found if "tail" in record]
    whiskers = [base.mark_rule(opacity=0.5).encode(y="tail_low:Q", y2="tail_high:Q", color=_color())]
    if across:
        whiskers.append(base.mark_rule(opacity=0.5).encode(x=f"{across}_low:Q", x2=f"{across}_high:Q", color=_color()))
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(color=_color())
    names = base.mark_text(align="left", dx=7, fontSize=9, color=GREY).encode(text="short:N")
    layers = alt.layer(*whiskers, dots, names, data=alt.Data(values=shown)).properties(width=560, height=260)
    facets = layers.facet(row=_rows(shown))
    return facets.resolve_scale(x="independent", y="independent")


def _rows(found: list[dict[str, Any]]) -> alt.Row:
    """A panel for each data set, its title above it."""
    return alt.Row("data:N", title=None, sort=_titles(found), header=alt.Header(labelOrient="top", labelAnchor="start"))


def _titles(found: list[dict[str, Any]]) -> list[str]:
    """The panels in their order."""
    return list(dict.fromkeys(record["data"] for record in found))


FIGURES = {"gain": gain, "frontier": frontier, "prior": prior}


def draw(root: Path) -> dict[str, str]:
    """Name -> SVG."""
    result, version = records(root), frame.vega_lite_version()
    return {
        name: vl_convert.vegalite_to_svg(make(result).to_dict(), vl_version=version, config=CONFIG)
        for name, make in FIGURES.items()
    }


def values(svg: str) -> list[str]:
    """What a figure's marks and axes show, in words. Positions depend on the fonts that a machine has, these do not."""
    return re.findall(r'aria-label="([^"]*)"', svg)


def main(root: Path) -> None:
    """Writes the figures below `root`."""
    (root / FOLDER).mkdir(exist_ok=True)
    for name, text in draw(root).items():
        (root / FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
