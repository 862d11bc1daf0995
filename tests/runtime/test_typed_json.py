"""Records as JSON and back: what is read is what was written, and what is wrong is named by its path."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltrobust.analysis.schema import card, comparison, diagnosed_column, diagnosis, network, paired, training
from ltrobust.runtime import typed_json
from ltrobust.runtime.typed_json import Number


class Interval(NamedTuple):
    """An interval.

    Attributes:
      low, high: its ends; NaN
        where there are none.
    """

    low: Number
    high: Number


@dataclasses.dataclass(frozen=True)
class Base:
    """What all have.

    Attributes:
      name: of it.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class Whole(Base):
    """A record with every kind of field.

    Attributes:
      count: how many.
      right: whether it is.
      share: a number.
      kind: one of two.
      interval: or None.
      parts: by name.
      pairs: word and number.
      settings: anything.
      note: may be left out.
    """

    count: int
    right: bool
    share: float
    kind: Literal["a", "b"]
    interval: Interval | None
    parts: Mapping[str, Sequence[Interval]]
    pairs: Sequence[tuple[str, int]]
    settings: Mapping[str, Any]
    note: str = ""


numbers = st.floats(allow_nan=False, allow_infinity=False)
intervals = st.builds(Interval, numbers | st.just(math.nan), numbers)
records = st.builds(
    Whole,
    name=st.text(),
    count=st.integers(),
    right=st.booleans(),
    share=numbers,
    kind=st.sampled_from(["a", "b"]),
    interval=st.none() | intervals,
    parts=st.dictionaries(st.text(), st.lists(intervals, max_size=2).map(tuple), max_size=2),
    pairs=st.lists(st.tuples(st.text(), st.integers()), max_size=2).map(tuple),
    settings=st.dictionaries(st.text(), st.integers() | st.text(), max_size=2),
    note=st.text(),
)
GOOD = typed_json.plain(Whole("x", 1, True, 0.5, "a", Interval(0.0, 1.0), {"p": [Interval(1, 2)]}, [("w", 2)], {}))


@given(records)
def test_what_is_read_is_what_was_written(record):
    content = json.loads(json.dumps(typed_json.plain(record), allow_nan=False))
    read = typed_json.parse(Whole, content)
    assert typed_json.plain(read) == content
    assert str(read) == str(record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": "1"}, "count is '1'; needed is a whole number"),
        ({"count": True}, "count is True; needed is a whole number"),
        ({"count": 1.5}, "count is 1.5; needed is a whole number"),
        ({"share": None}, "share is None; needed is a number"),
        ({"right": 1}, "right is 1; needed is true or false"),
        ({"kind": "c"}, "kind is 'c'; needed is one of a, b"),
        ({"interval": 3}, "interval is 3; needed is an object"),
        ({"interval": {"low": 1}}, "interval.high is missing"),
        ({"parts": {"p": [{"low": "x", "high": 1}]}}, r"parts.p\[0\].low is 'x'; needed is a number"),
        ({"parts": [1]}, r"parts is \[1\]; needed is an object"),
        ({"pairs": [["w"]]}, r"pairs\[0\] is \['w'\]; needed is a list of 2"),
        ({"pairs": "text"}, "pairs is 'text'; needed is a list"),
        ({"notes": ""}, "notes is not a field; did you mean note"),
        ({"settings": "x" * 1000}, r"settings is 'x{59}\.\.\.; needed is an object"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(changes, message):
    with pytest.raises(ValueError, match=message):
        typed_json.parse(Whole, GOOD | changes)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Fields of which some may be NaN.

    Attributes:
      shares, by_name, best: finite.
      loose: NaN where there is none.
      version: of it.
    """

    shares: Sequence[float]
    by_name: Mapping[str, float]
    best: float | None = None
    loose: Sequence[Number] = ()
    version: Literal[1] = 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Numbers([1.0, math.inf], {}), r"^shares\[1\] is inf; needed is a finite number"),
        (Numbers([], {"a": math.nan}), r"^by_name.a is nan"),
        (Numbers([], {}, best=-math.inf), "^best is -inf"),
        (Numbers([np.float32(np.inf)], {}), r"^shares\[0\] is inf"),
        ({"networks": [Numbers([math.nan], {})]}, r"^networks\[0\].shares\[0\] is nan"),
        (Numbers([], {"a": np.arange(2)}), "^by_name.a is array"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(record, message):
    with pytest.raises(ValueError, match=message):
        typed_json.plain(record)


def test_numbers_of_numpy_are_written_as_those_of_python():
    record = Numbers([np.float32(0.5), np.int64(2)], {"a": np.float64(1)}, loose=[math.nan, np.float32(np.nan)])
    content = typed_json.plain({"right": np.bool_(True), "record": record})
    assert content["right"] is True
    assert content["record"] == {
        "shares": [0.5, 2],
        "by_name": {"a": 1.0},
        "best": None,
        "loose": [None, None],
        "version": 1,
    }
    assert {type(number) for number in content["record"]["shares"]} == {float, int}
    assert typed_json.parse(Numbers, json.loads(json.dumps(content["record"]))).shares == (0.5, 2)


def test_a_truth_value_is_none_of_the_numbers_of_a_literal():
    content = typed_json.plain(Numbers([], {}))
    assert typed_json.parse(Numbers, content) == Numbers((), {})
    with pytest.raises(ValueError, match="version is True; needed is one of 1"):
        typed_json.parse(Numbers, content | {"version": True})


def test_two_records_of_one_name_have_no_schema():
    other = dataclasses.make_dataclass("Interval", [("middle", float)])
    both = dataclasses.make_dataclass("Both", [("one", Interval), ("other", other)])
    with pytest.raises(ValueError, match="two records are called Interval"):
        typed_json.schema(both)


def test_a_field_with_a_default_may_be_left_out_and_others_not():
    content = {key: value for key, value in GOOD.items() if key != "note"}
    assert typed_json.parse(Whole, content).note == ""
    with pytest.raises(ValueError, match="name is missing"):
        typed_json.parse(Whole, {key: value for key, value in GOOD.items() if key != "name"})
    with pytest.raises(ValueError, match="the value is 3; needed is an object"):
        typed_json.parse(Whole, 3)


def test_a_schema_has_types_and_descriptions():
    schema = typed_json.schema(Whole)
    assert schema["properties"]["name"] == {"type": "string", "description": "of it."}
    assert schema["properties"]["pairs"]["items"]["prefixItems"] == [{"type": "string"}, {"type": "integer"}]
    assert schema["properties"]["settings"]["additionalProperties"] == {}
    assert schema["properties"]["kind"]["enum"] == ["a", "b"]
    low = schema["$defs"]["Interval"]["properties"]["low"]
    assert low == {"type": ["number", "null"], "description": "its ends; NaN where there are none."}


def test_every_field_of_every_record_is_documented():
    modules = (card, comparison, diagnosed_column, diagnosis, network, paired, training)
    kinds = {kind for module in modules for kind in vars(module).values() if dataclasses.is_dataclass(kind)}
    assert len(kinds) > 40
    for kind in kinds:
        fields = {field.name for field in dataclasses.fields(kind)}
        assert typed_json.descriptions(kind).keys() == fields, kind
