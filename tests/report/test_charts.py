"""Specifications of charts: valid, drawn by the library, true to their records, and safe with names from outside."""

import json

import altair
import hypothesis.strategies as st
import pytest
import vl_convert
from hypothesis import given, settings
from pages import HOSTILE

from ltrobust.report import charts, frame

LONG = "x" * 10_000
names = st.lists(st.text(max_size=30) | st.sampled_from([*HOSTILE, LONG]), min_size=1, max_size=4, unique=True)
values = st.floats(0, 100)


def point(name, value=50.0, **more):
    known = {"name": name, "series": name, "value": value, "low": value / 2, "high": (value + 100) / 2, "text": "t"}
    return known | more


def svg(spec):
    return vl_convert.vegalite_to_svg({**spec, "width": 300}, vl_version=frame.vega_lite_version())


def every_chart(found):
    """Each kind of chart of the same names."""
    yield charts.rows([point(name, open=True, index=n) for n, name in enumerate(found)], "x", rule=0)
    yield charts.rows([point(name) | {"series": s} for name in found for s in ("a", "b")], "x", bars=True)
    yield charts.classes([point(name, images=n + 1, index=n) for n, name in enumerate(found)], "y", "x")
    means = [point(name) | {"from": 1, "to": 10} for name in found]
    yield charts.classes([point(name, images=n + 1, index=n) for n, name in enumerate(found)], "y", "x", means)
    yield charts.lines([point(name, x=x) for name in found for x in (1, 10)], "x", "y", log_x=True, mark=(2, found[0]))
    yield charts.lines([point(name, x=x + 1.5) for name in found for x in (1, 2)], "x", "y", log_y=True, steps=True)
    yield charts.scatter([point(name, x=9, x_low=8, x_high=10) for name in found], "x", "y", diagonal=True)
    yield charts.scatter([point(name, x=9) for name in found], "x", "y", domain=None, log_x=True)
    cells = [{"true": n, "predicted": n, "count": 3, "share": 1.0, "index": n} for n in range(len(found))]
    yield charts.heat(cells, found)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 25])
def test_every_chart_is_valid_and_drawn(number):
    for spec in every_chart([f"class {n}" for n in range(number)]):
        altair.LayerChart.from_dict(spec, validate=True)
        assert svg(spec).startswith("<svg")


@pytest.mark.slow
@settings(max_examples=3, deadline=None)
@given(names)
def test_names_are_data_in_every_chart(found):
    """Without its data and scales a specification is the same whatever the names are."""

    def skeleton(part):
        if isinstance(part, dict):
            left_out = ("datasets", "domain", "sort", "name", "range")
            return {key: skeleton(value) for key, value in part.items() if key not in left_out}
        return [skeleton(value) for value in part] if isinstance(part, list) else part

    plain = [f"n{place}" for place in range(len(found))]
    for hostile, harmless in zip(every_chart(found), every_chart(plain), strict=True):
        one, other = skeleton(hostile), skeleton(harmless)
        for spec in (one, other):
            for layer in spec["layer"]:
                for channel in layer["encoding"].values():
                    if isinstance(channel, dict) and channel.get("legend"):
                        channel["legend"].pop("columns")  # long names have a line each
        assert json.dumps(one) == json.dumps(other)


def test_hostile_names_are_text_in_files():
    drawn = svg(next(every_chart(HOSTILE[:5])))
    assert "<script" not in drawn
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in drawn


@given(st.lists(st.floats(0.001, 1e6), min_size=1))
def test_a_logarithmic_axis_has_a_few_ticks_inside(found):
    ticks = charts.log_axis([{"x": value} for value in found], "x").to_dict()["values"]
    assert 2 <= len(ticks) <= 12
    assert all(min(found) * 0.999 <= tick <= max(found) * 1.001 for tick in ticks)


def test_what_has_no_value_is_not_drawn():
    missing = point("b") | {"value": None, "low": None, "high": None}
    drawn = svg(charts.rows([point("a"), missing], "x"))
    assert drawn.count('aria-roledescription="point"') == 1


def test_the_chosen_class_is_a_parameter_of_every_chart():
    for spec in every_chart(["a", "b"]):
        assert [parameter["value"] for parameter in spec["params"] if parameter["name"] == "chosen"] == [-1]
