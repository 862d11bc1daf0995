"""Charts by Vega-Altair: records in, Vega-Lite specifications out. No JAX.

Text from outside (names of classes, networks and runs) is data here: it never names a field and is in no expression.
Records with an `index` belong to a class; `chosen` is the class that the page highlights in all charts, -1 for none.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

Record = Mapping[str, Any]
Spec = dict[str, Any]

# One set of colours for light, dark and paper: all have a contrast of at least 3 on white and on the dark background.
BLUE, ORANGE, GREEN, PINK, OCHRE, GREY = "#3b82c4", "#d9702e", "#23946e", "#c0699f", "#a87f12", "#7d8894"
COLORS = (BLUE, ORANGE, GREEN, PINK, OCHRE, GREY)
_SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
_DASHES = ((1, 0), (7, 3), (2, 2), (8, 3, 2, 3), (12, 3), (4, 2))
_CHOSEN = "chosen < 0 || datum.index == chosen"


def rows(
    records: Sequence[Record],
    title: str,
    colors: Sequence[str] = COLORS,
    *,
    domain: tuple[float, float] | None = None,
    bars: bool = False,
    rule: float | None = None,
) -> Spec:
    """One line per name with the values of all series: bars from 0, or dots, with intervals as whiskers.

    Args:
      records: `name`, `series`, `value`, `low` and `high` (None where there is no interval), `text` for the hover;
        optional `index`, `open` (drawn hollow) and `detail`. Names and series keep their order.
      title: of the horizontal axis, with its unit.
      colors: of the series, in order.
      domain: of the horizontal axis.
      bars: whether values are drawn as bars.
      rule: where a vertical line is drawn.
    """
    series = _values(records, "series")
    several = len(series) > 1
    scale = alt.Scale(domain=list(domain), clamp=True) if domain else alt.Scale(zero=bars)
    base = alt.Chart(_data(records)).encode(
        y=alt.Y("name:N", sort=_values(records, "name"), title=None, axis=alt.Axis(labelLimit=170, grid=False)),
        tooltip=_tooltip(records, several),
        opacity=_faded(records),
    )
    if several:
        base = base.encode(yOffset=alt.YOffset("series:N", sort=series))
    x = alt.X("value:Q", title=title, scale=scale)
    color = _color(series, colors)
    mark = base.mark_bar() if bars else base.mark_point(size=46, filled=True, opacity=1)
    drawn = mark.encode(x=x, color=color)
    layers = [drawn]
    if any(record["low"] is not None for record in records):
        whiskers = base.mark_rule(strokeWidth=1.2).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
        layers = [drawn, whiskers] if bars else [whiskers.encode(color=color), drawn]
    if not bars and any(record.get("open") for record in records):
        # A hollow dot shows the page below it.
        layers[-1] = base.mark_point(size=46, strokeWidth=1.6).encode(
            x=x, color=color, fill=alt.condition("datum.open", alt.value("transparent"), alt.value(colors[0]))
        )
    if rule is not None:
        layers.insert(0, alt.Chart(_data([{"at": rule}])).mark_rule(strokeDash=[3, 3]).encode(x="at:Q"))
    height = len(_values(records, "name")) * (11 * len(series) + 9)
    return _spec(layers, height=max(height, 40))


def classes(records: Sequence[Record], title: str, x_title: str, means: Sequence[Record] | None = None) -> Spec:
    """Accuracy by class from the head to the tail, one colour per network.

    Args:
      records: as of `rows`, in the order of the classes; with `images`, the number of training images.
      title: of the vertical axis.
      x_title: of the horizontal one.
      means: of many classes, which are dots at their training images: groups of classes as lines, with `from`, `to`,
        `series`, `value`, `low`, `high` and `text`. None draws every class at its own place, under its name.
    """
    series = _values(records, "series")
    color = _color(series, COLORS)
    y = alt.Scale(domain=[0, 100])
    if means is None:
        x = alt.X(
            "name:N", sort=_values(records, "name"), title=x_title, axis=alt.Axis(labelAngle=-40, labelOverlap=False)
        )
        base = alt.Chart(_data(records)).encode(
            x=x, tooltip=_tooltip(records, len(series) > 1), opacity=_faded(records), color=color
        )
        if len(series) > 1:
            base = base.encode(xOffset=alt.XOffset("series:N", sort=series, scale=alt.Scale(paddingOuter=0.4)))
        whiskers = base.mark_rule(strokeWidth=1.2).encode(y=alt.Y("low:Q", title=title, scale=y), y2="high:Q")
        dots = base.mark_point(size=44, filled=True, opacity=1).encode(
            y=alt.Y("value:Q", title=title), shape=_shape(series)
        )
        return _spec([whiskers, dots], height=300)
    log = alt.Scale(type="log", nice=False, padding=8)
    x = alt.X("images:Q", title=x_title, scale=log, axis=log_axis(records, "images"))
    base = alt.Chart(_data(records)).encode(
        x=x, tooltip=_tooltip(records, len(series) > 1), opacity=_faded(records, strong=0.55), color=color
    )
    dots = base.mark_point(size=22, filled=True).encode(y=alt.Y("value:Q", title=title, scale=y), shape=_shape(series))
    groups = alt.Chart(_data(means)).encode(
        x=alt.X("from:Q", title=x_title, scale=log), x2="to:Q", color=color, tooltip=_tooltip(means, len(series) > 1)
    )
    bands = groups.mark_rect(opacity=0.18).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    lines = groups.mark_rule(strokeWidth=2.5).encode(y=alt.Y("value:Q", title=title))
    return _spec([dots, bands, lines], height=300)


def lines(
    records: Sequence[Record],
    x_title: str,
    y_title: str,
    *,
    domain: tuple[float, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    steps: bool = False,
    dots: bool = False,
    mark: tuple[float, str] | None = None,
) -> Spec:
    """Lines over a number.

    Args:
      records: `x`, `value`, `series` and `text`; `low` and `high` are drawn as a band.
      x_title, y_title: of the axes, with their units.
      domain: of the vertical axis.
      log_x, log_y: whether an axis is logarithmic.
      steps: whether a line holds its value until the next x.
      dots: whether every record has a dot.
      mark: where a vertical line is drawn, and the word at it.
    """
    series = _values(records, "series")
    y = alt.Scale(domain=list(domain)) if domain else alt.Scale(type="log", nice=False) if log_y else alt.Scale()
    dash = alt.StrokeDash(
        "series:N",
        scale=alt.Scale(domain=series, range=[list(_DASHES[n % len(_DASHES)]) for n in range(len(series))]),
        legend=_legend(series, "stroke"),
    )
    whole = all(float(record["x"]).is_integer() for record in records)
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(type="log", nice=False) if log_x else alt.Scale(zero=False, nice=False),
        axis=log_axis(records, "x")
        if log_x
        else alt.Axis(tickCount=5, tickMinStep=1, format=",d")  # "g" writes 60 as 6e+1
        if whole
        else alt.Axis(tickCount=5),
    )
    base = alt.Chart(_data(records)).encode(x=x, color=_color(series, COLORS, "stroke"))
    value = alt.Y("value:Q", title=y_title, scale=y)
    layers = []
    if any(record.get("low") is not None for record in records):
        layers.append(base.mark_area(opacity=0.16).encode(y=alt.Y("low:Q", title=y_title, scale=y), y2="high:Q"))
    drawn = base.mark_line(strokeWidth=2, interpolate="step-after" if steps else "linear")
    layers.append(drawn.encode(y=value, strokeDash=dash))
    # Points that are hardly seen are what the pointer finds.
    points = base.mark_point(size=36, filled=True, opacity=1 if dots or len(records) <= len(series) else 0.01)
    layers.append(points.encode(y=value, tooltip=_tooltip(records, len(series) > 1)))
    if mark is not None:
        at = alt.Chart(_data([{"at": mark[0], "word": mark[1]}])).encode(x="at:Q")
        layers.append(at.mark_rule(strokeDash=[3, 3]))
        above = at.mark_text(align="right", dx=4, baseline="bottom")  # inside, it would hide lines
        layers.append(above.encode(text="word:N", y=alt.value(-3)))
    return _spec(layers, height=230)


def scatter(
    records: Sequence[Record],
    x_title: str,
    y_title: str,
    colors: Sequence[str] = COLORS,
    *,
    domain: tuple[float, float] | None = (0, 100),
    log_x: bool = False,
    diagonal: bool = False,
) -> Spec:
    """Points, with intervals in both directions where records have them, a colour per series.

    Args:
      records: `x`, `value`, `series`, `text`; optional `x_low`, `x_high`, `low`, `high`, `index`.
      x_title, y_title: of the axes, with their units.
      colors: of the series, in order.
      domain: of the vertical axis; None follows the values.
      log_x: whether the horizontal axis is logarithmic.
      diagonal: whether the line of equal values is drawn, with both axes from 0 to 100.
    """
    series = _values(records, "series")
    scale = alt.Scale(domain=[0, 100]) if diagonal else alt.Scale(zero=False, nice=False, padding=10)
    if log_x:
        scale = alt.Scale(type="log", nice=False, padding=10)
    y_scale = alt.Scale(domain=list(domain)) if domain else alt.Scale()
    base = alt.Chart(_data(records)).encode(
        color=_color(series, colors), tooltip=_tooltip(records, len(series) > 1), opacity=_faded(records)
    )
    axis = log_axis(records, "x") if log_x else alt.Axis()
    x = alt.X("x:Q", title=x_title, scale=scale, axis=axis)
    y = alt.Y("value:Q", title=y_title, scale=y_scale)
    layers = []
    if diagonal:
        ends = alt.Chart(_data([{"x": 0, "value": 0}, {"x": 100, "value": 100}]))
        layers.append(ends.mark_line(strokeDash=[3, 3], strokeWidth=1, color=GREY).encode(x=x, y=y))
    if any("x_low" in record for record in records):
        layers.append(base.mark_rule().encode(x=alt.X("x_low:Q", title=x_title, scale=scale), x2="x_high:Q", y=y))
        layers.append(base.mark_rule().encode(x=x, y=alt.Y("low:Q", title=y_title, scale=y_scale), y2="high:Q"))
    layers.append(
        base.mark_point(size=60 if diagonal else 30, filled=True, opacity=1).encode(x=x, y=y, shape=_shape(series))
    )
    return _spec(layers, height=320)


def heat(cells: Sequence[Record], names: Sequence[str]) -> Spec:
    """Counts by true class (row) and predicted class (column); the stronger, the larger the share of the row.

    Args:
      cells: `true` and `predicted` (places in `names`), `count`, `share` of the row and `index`, the true class.
        Cells without images may be left out.
      names: of the classes in the order of rows and columns; of more than 20, they are shown at the pointer only.
    """
    few = len(names) <= 20
    places = list(range(len(names)))
    lookup = [{"place": place, "name": name} for place, name in enumerate(names)]
    chart = alt.Chart(_data(cells))
    for key in ("true", "predicted"):
        chart = chart.transform_lookup(
            lookup=key, from_=alt.LookupData(data=_data(lookup), key="place", fields=["name"]), as_=[f"{key}_name"]
        )
    sides = {}
    for key, channel in (("true", alt.Y), ("predicted", alt.X)):
        kind = "true class" if key == "true" else "predicted class"
        if few:
            axis = alt.Axis(labelAngle=-40 if channel is alt.X else 0, labelLimit=110, labelOverlap=False, grid=False)
            scale = alt.Scale(domain=list(names))
            sides[key] = channel(f"{key}_name:N", title=kind, axis=axis, scale=scale)
        else:
            axis = alt.Axis(values=places[:: max(1, len(names) // 10)], labelExpr="datum.value + 1", labelAngle=0)
            title = f"{kind}, rank by training images"
            sides[key] = channel(f"{key}:O", title=title, axis=axis, scale=alt.Scale(domain=places))
    tooltip = [
        alt.Tooltip("true_name:N", title="true class"),
        alt.Tooltip("predicted_name:N", title="predicted"),
        alt.Tooltip("count:Q", title="images", format=","),
        alt.Tooltip("share:Q", title="share of the class", format=".1%"),
    ]
    base = chart.encode(x=sides["predicted"], y=sides["true"], tooltip=tooltip)
    tint = alt.Opacity("share:Q", legend=None, scale=alt.Scale(type="sqrt", domain=[0, 1], range=[0.02, 0.9]))
    stroke = alt.condition("datum.index == chosen", alt.value(ORANGE), alt.value("transparent"))
    layers = [base.mark_rect(color=BLUE, strokeWidth=2).encode(opacity=tint, stroke=stroke)]
    if few:
        layers.append(base.mark_text(fontSize=11).encode(text=alt.Text("count:Q", format=",")))
    drawn = _spec(layers, height=24 * len(names) if few else 460)
    return drawn if few else drawn | {"usermeta": {"renderer": "canvas"}}


def _spec(layers: Sequence[alt.Chart], *, height: int) -> Spec:
    """The specification of a chart as wide as the page gives it. Tests validate it; for users that takes too long."""
    chosen = alt.param(name="chosen", value=-1)
    return alt.layer(*layers, width="container", height=height).add_params(chosen).to_dict(validate=False)


def _data(records: Sequence[Record]) -> alt.InlineData:
    return alt.InlineData(values=[dict(record) for record in records])


def _values(records: Sequence[Record], key: str) -> list[str]:
    """Different values of a field, in order."""
    return list(dict.fromkeys(record[key] for record in records))


def _legend(series: Sequence[str], symbol: str | None = None) -> alt.Legend | None:
    """Of several series, above the chart; long names have a line each, so that a phone has room for them."""
    if len(series) < 2:
        return None
    more: Spec = {} if symbol is None else {"symbolType": symbol, "symbolStrokeWidth": 2}
    columns = 1 if max(map(len, series)) > 18 else 2
    return alt.Legend(title=None, orient="top", columns=columns, symbolOpacity=1, **more)


def log_axis(records: Sequence[Record], key: str) -> alt.Axis:
    """A logarithmic axis with round numbers, or with its ends where there are less than two of them."""
    values = [float(record[key]) for record in records]
    low, high = min(values), max(values)
    leading = (1, 2, 5) if high / low < 200 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [digit * 10.0**exponent for exponent in exponents for digit in leading]
    inside = [value for value in inside if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    return alt.Axis(values=inside if len(inside) > 1 else [low, high], format=",~g")


def _shape(series: Sequence[str]) -> alt.Shape:
    """A fixed shape for each series, for those who cannot tell the colours apart."""
    scale = alt.Scale(domain=list(series), range=[_SHAPES[number % len(_SHAPES)] for number in range(len(series))])
    return alt.Shape("series:N", scale=scale, legend=_legend(series))


def _color(series: Sequence[str], colors: Sequence[str], symbol: str | None = None) -> alt.Color:
    """A fixed colour for each series."""
    shown = [colors[number % len(colors)] for number in range(len(series))]
    return alt.Color("series:N", scale=alt.Scale(domain=list(series), range=shown), legend=_legend(series, symbol))


def _faded(records: Sequence[Record], strong: float = 1.0) -> Any:
    """Records of other classes than the chosen one step back."""
    of_classes = any("index" in record for record in records)
    return alt.condition(_CHOSEN, alt.value(strong), alt.value(0.15)) if of_classes else alt.value(strong)


def _tooltip(records: Sequence[Record], several: bool) -> list[alt.Tooltip]:
    """What the pointer shows: names and the text of the value."""
    known = {key for record in records for key in record}
    shown = [alt.Tooltip("name:N", title="of")] if "name" in known else []
    shown += [alt.Tooltip("series:N", title="shown")] if several else []
    shown += [alt.Tooltip("x_text:N", title="at")] if "x_text" in known else []
    shown.append(alt.Tooltip("text:N", title="value"))
    return shown + ([alt.Tooltip("detail:N", title="images")] if "detail" in known else [])
