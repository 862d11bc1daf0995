"""Charts as SVG. No JAX.

Written by hand: a chart takes its colours from the page's style sheet, so that one drawing serves light, dark and
paper, and is a few kilobytes of text. Every chart has an axis with a title on each side and an `aria-label`. Besides
colour, series differ in dashes, in filled and hollow dots, or in their place. Lengths are in units of a picture 400
wide, shown at 340 to 480 pixels.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltrobust.report.markup import Element, element

STYLES = 8
_WIDTH, _HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 16, 42
_LANE = 11  # height of one value among those of a row
# An advance that few letters exceed at the style sheet's 12 units: names are drawn without being measured.
_LETTER, _LONGEST_NAME = 6.8, 22


@dataclasses.dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high`, or to `low + 1` where that is not larger; the title names the unit."""

    title: str
    low: float
    high: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if not self.high > self.low:  # one epoch, or differences that are all 0
            object.__setattr__(self, "high", self.low + 1)

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1; a value outside lies on the border."""
        low, high, value = (math.log(v) if self.logarithmic else v for v in (self.low, self.high, max(value, self.low)))
        return min(1.0, (value - low) / (high - low))

    def ticks(self) -> list[float]:
        """About five round numbers; of a logarithmic axis without two of them, its ends."""
        if self.logarithmic:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            leading = (1, 2, 5) if self.high / self.low < 200 else (1,)
            inside = [digit * 10.0**exponent for exponent in exponents for digit in leading]
            inside = [value for value in inside if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
            return inside if len(inside) > 1 else [self.low, self.high]
        span = self.high - self.low
        rough = 10.0 ** math.floor(math.log10(span / 4))
        step = rough * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(span / (rough * factor) - 4.5))
        first, last = math.ceil(self.low / step - 1e-6), math.floor(self.high / step + 1e-6)
        return [step * number for number in range(first, last + 1)]

    def write(self, value: float) -> str:
        """A tick's text, to four digits."""
        return f"{float(f'{value:.4g}'):,.10g}"


@dataclasses.dataclass(frozen=True)
class Series:
    """Points in order of x, with a line through them unless `joined` is False.

    `low` and `high` are drawn as a band; `steps` goes to the next x before it changes.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    steps: bool = False
    dots: bool = False
    joined: bool = True


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a row, with its interval where there is one; `hollow` for a value that shows nothing by itself."""

    value: float | None
    low: float | None
    high: float | None
    style: int
    hollow: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """Values under one name, each in a lane of its own."""

    name: str
    values: Sequence[Value]


def in_percent(estimate: Mapping[str, Any] | None, style: int, *, hollow: bool = False) -> Value:
    """An estimate of a card, `value`, `low` and `high` as fractions; None has nothing to draw."""
    found = [(estimate or {}).get(key) for key in ("value", "low", "high")]
    return Value(*(None if number is None else 100 * number for number in found), style=style, hollow=hollow)


def around(
    values: Sequence[float | None], *, floor: float = math.inf, ceiling: float = -math.inf
) -> tuple[float, float]:
    """Bounds of an axis that holds all values, `floor` and `ceiling`, with a little room beyond the values."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return min(low - room if low < floor else floor, floor), max(high + room if high > ceiling else ceiling, ceiling)


def lines(label: str, series: Sequence[Series], x: Axis, y: Axis, marks: Sequence[tuple[float, str]] = ()) -> Element:
    """Lines with bands; `marks` are places on the x axis with a word on each."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def at(horizontal: float, vertical: float) -> tuple[float, float]:
        return _LEFT + x.place(horizontal) * (right - _LEFT), bottom - y.place(vertical) * (bottom - _TOP)

    parts = []
    for value in y.ticks():
        height = at(x.low, value)[1]
        parts.append(_line((_LEFT, height), (right, height), "grid"))
        parts.append(_text(y.write(value), _LEFT - 4, height + 4, "end"))
    for value in x.ticks():
        place = at(value, y.low)[0]
        parts.append(_line((place, bottom), (place, bottom + 4), "axis"))
        parts.append(_text(x.write(value), place, bottom + 16, "middle"))
    parts.append(_line((_LEFT, bottom), (right, bottom), "axis"))
    parts += [_text(x.title, (_LEFT + right) / 2, _HEIGHT - 6, "middle"), _upright(y.title, (_TOP + bottom) / 2)]
    for entry in series:
        if len(entry.low):
            upper = [at(*point) for point in zip(entry.x, entry.high, strict=True)]
            lower = [at(*point) for point in zip(entry.x, entry.low, strict=True)]
            outline = _path([*upper, *reversed(lower)]) + "Z"
            parts.append(element("path", d=outline, class_=f"band s{entry.style % STYLES}"))
    for entry in series:
        points = [at(*point) for point in zip(entry.x, entry.y, strict=True)]
        corners = [corner for one, two in itertools.pairwise(points) for corner in (one, (two[0], one[1]))]
        drawn = [*corners, *points[-1:]] if entry.steps else points
        if entry.joined:
            parts.append(element("path", d=_path(drawn), class_=f"line s{entry.style % STYLES}"))
        if entry.dots or len(points) == 1:
            parts += [
                _dot(point, entry.style, radius=3 if entry.joined else 2, hollow=entry.style % 2 == 1)
                for point in points
            ]
    for place, word in marks:
        horizontal = at(place, y.low)[0]
        beyond = horizontal > (_LEFT + right) / 2
        parts.append(_line((horizontal, _TOP), (horizontal, bottom), "mark"))
        parts.append(_text(word, horizontal + (-4 if beyond else 4), _TOP - 3, "end" if beyond else "start"))
    return _picture(label, _HEIGHT, parts)


def rows(label: str, entries: Sequence[Row], axis: Axis, *, bars: bool) -> Element:
    """Values by row against one horizontal axis: bars from 0, or dots, with intervals as whiskers."""
    left = 10 + _LETTER * max(min(len(row.name), _LONGEST_NAME) for row in entries)
    right = _WIDTH - _RIGHT - 6
    tops, bottom = [], float(_TOP)
    for row in entries:
        tops.append(bottom)
        bottom += _LANE * len(row.values) + 6

    def across(value: float) -> float:
        return left + axis.place(value) * (right - left)

    parts = []
    for value in axis.ticks():
        place = across(value)
        parts.append(_line((place, _TOP - 4), (place, bottom), "axis" if value == 0 else "grid"))
        parts.append(_text(axis.write(value), place, bottom + 14, "middle"))
    parts.append(_text(axis.title, (left + right) / 2, bottom + 32, "middle"))
    for row, top in zip(entries, tops, strict=True):
        middle = top + _LANE * len(row.values) / 2
        parts.append(_text(_short(row.name), left - 5, middle + 4, "end"))
        for lane, value in enumerate(row.values):
            parts += _value(value, across, top + _LANE * (lane + 0.5), bars)
    return _picture(label, bottom + 38, parts)


def legend(names: Sequence[tuple[str, int]], shape: str = "line") -> Element:
    """What each style stands for; `shape` is `line`, `bar` or `dot`."""

    def sample(style: int) -> Element:
        drawn = {
            "line": element("path", d="M0 5H24", class_=f"line s{style % STYLES}"),
            "bar": element("rect", x=1, y=1, width=22, height=8, class_=f"bar s{style % STYLES}"),
            "dot": _dot((12, 5), style),
        }[shape]
        return element("svg", drawn, width=24, height=10, viewBox="0 0 24 10", aria_hidden="true")

    return element("p", *(element("span", sample(style), name) for name, style in names), class_="legend")


def _value(value: Value, across: Callable[[float], float], middle: float, bars: bool) -> list[Element]:
    """A bar or a dot, and its whisker."""
    if value.value is None:
        return []
    style, place = f"s{value.style % STYLES}", across(value.value)
    parts = []
    if bars:
        height = _LANE - 3
        parts.append(
            element(
                "rect",
                x=_n(across(0)),
                y=_n(middle - height / 2),
                height=height,
                width=_n(max(0.0, place - across(0))),
                class_=f"bar {style}",
            )
        )
    if value.low is not None and value.high is not None:
        kind = "whisker" if bars else f"line solid {style}"
        parts.append(_line((across(value.low), middle), (across(value.high), middle), kind))
    if not bars:
        parts.append(_dot((place, middle), value.style, hollow=value.hollow))
    return parts


def _dot(point: tuple[float, float], style: int, *, hollow: bool = False, radius: float = 3) -> Element:
    """A point."""
    kind = "dot hollow" if hollow else "dot"
    return element("circle", cx=_n(point[0]), cy=_n(point[1]), r=radius, class_=f"{kind} s{style % STYLES}")


def _picture(label: str, height: float, parts: Sequence[Element]) -> Element:
    """The SVG around its parts."""
    return element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_n(height)}", role="img", aria_label=label)


def _line(one: tuple[float, float], two: tuple[float, float], class_: str) -> Element:
    return element("path", d=_path([one, two]), class_=class_)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Path data through points."""
    return "".join(f"{'L' if number else 'M'}{_n(x)} {_n(y)}" for number, (x, y) in enumerate(points))


def _text(words: str, x: float, y: float, anchor: str) -> Element:
    return element("text", words, x=_n(x), y=_n(y), text_anchor=anchor)


def _upright(words: str, middle: float) -> Element:
    """The title of a vertical axis."""
    return element("text", words, transform=f"translate(10 {_n(middle)}) rotate(-90)", text_anchor="middle")


def _short(name: str) -> str:
    """A name that leaves room for the chart."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _n(number: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{number:.1f}".removesuffix(".0")
