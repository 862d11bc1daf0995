"""Axes have a few ticks inside, and put values where they belong."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ltrobust.report.charts import Axis, Row, Series, Value, around, lines, rows

numbers = st.floats(-1e4, 1e4).map(lambda value: round(value, 3))
positive = st.floats(1e-3, 1e5)


@given(numbers, st.floats(1e-2, 1e4), st.booleans())
def test_an_axis_has_a_few_ticks_inside(low, span, logarithmic):
    low = abs(low) + 1e-3 if logarithmic else low
    axis = Axis("", low, low + span, logarithmic)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    slack = 1e-5 * span
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    places = [axis.place(tick) for tick in ticks]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)


def test_values_lie_where_they_belong():
    assert [Axis("", 0, 100).place(value) for value in (-5, 0, 25, 100, 120)] == [0, 0, 0.25, 1, 1]
    assert Axis("", 1, 100, logarithmic=True).place(10) == pytest.approx(0.5)
    assert Axis("", 0, 100).ticks() == [0, 20, 40, 60, 80, 100]
    assert Axis("", 520, 521, logarithmic=True).ticks() == [520, 521]
    assert Axis("", 0, 0.05).write(0.1 + 0.2) == "0.3"
    assert (Axis("", 0, 0).place(0), Axis("", 3, 3).ticks()[-1]) == (0, 4)


@given(st.lists(st.none() | numbers))
def test_bounds_hold_every_value_and_are_never_equal(values):
    low, high = around(values)
    assert low < high
    assert all(low <= value <= high for value in values if value is not None)
    assert around(values, floor=-1e6, ceiling=1e6) == (-1e6, 1e6)


def test_what_has_no_value_is_not_drawn():
    drawn = rows(
        "label", [Row("a", [Value(None, None, None, 0), Value(50, None, None, 1)])], Axis("", 0, 100), bars=False
    )
    assert len(drawn.findall("circle")) == 1
    empty = lines("label", [Series("", [], [], 0)], Axis("epoch", 1, 2), Axis("", 0, 1))
    assert empty.get("aria-label") == "label"
    assert empty.find("circle") is None
