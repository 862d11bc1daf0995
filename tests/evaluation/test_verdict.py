"""The fields of a verdict: one definition, from which arrays, lines and the documentation follow."""

import dataclasses
import json
import math
import pathlib
import re
import zlib

import numpy as np
import pytest

from ltrobust.evaluation import lines, verdict
from ltrobust.evaluation.lines import Line
from ltrobust.evaluation.verdict import Verdict

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "protocols.md"
LINE = Line(attack="pgd20", image=3, label=1, adversarial_at=768, prediction=2, margin=-0.5, norm=0.03, tied=True)


def test_arrays_have_the_fields_types_and_defaults():
    seen = verdict.unseen(3)
    assert seen.dtype.names == verdict.FIELDS == tuple(field.name for field in dataclasses.fields(Verdict))
    assert {str(seen.dtype[name]) for name in verdict.FIELDS} == {"int64", "float64", "bool"}
    assert repr(Verdict(*seen[0].item())) == repr(Verdict())
    seen[1] = verdict.row(LINE)
    assert (seen["prediction"].tolist(), seen["tied"].tolist()) == ([-1, 2, -1], [False, True, False])


def test_a_table_wants_every_field_and_no_other():
    columns = {name: np.zeros(2) for name in verdict.FIELDS}
    assert verdict.table(**columns).shape == (2,)
    with pytest.raises(TypeError, match="missing or unknown: norm, weather"):
        verdict.table(**{("weather" if name == "norm" else name): values for name, values in columns.items()})


def test_a_line_is_read_as_it_was_written():
    for line in (LINE, dataclasses.replace(LINE, adversarial_at=None)):
        found, broken = lines.parse(lines.encode(line))
        assert (repr(found), broken) == (repr({"pgd20": {3: line}}), 0)  # NaN is not equal to itself
    assert math.isnan(lines.parse(lines.encode(LINE))[0]["pgd20"][3].probability)
    assert "adversarial_at" not in json.loads(lines.encode(dataclasses.replace(LINE, adversarial_at=None)))


@pytest.mark.parametrize("change", ["a field is missing", "a field is unknown"])
def test_a_line_of_other_fields_is_none(change):
    values = json.loads(lines.encode(LINE))
    del values["crc"], values["norm" if "missing" in change else "adversarial_at"]
    content = json.dumps(values if "missing" in change else values | {"weather": 1}, separators=(",", ":"))
    text = f'{content[:-1]},"crc":"{zlib.crc32(content.encode()):08x}"}}\n'
    assert lines.parse(text.encode()) == ({}, 1)


def test_the_documentation_names_every_field_of_a_line():
    table = DOCS.read_text().split("| field of a line | content, unit |\n|---|---|\n")[1].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted([*(field.name for field in dataclasses.fields(Line)), "crc"])
