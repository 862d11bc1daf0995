"""The fields of a verdict: one definition, from which arrays, lines and the documentation follow."""

import dataclasses
import hashlib
import io
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

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "concepts" / "protocols.md"
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


def read(content: bytes, block: int = 2**22):
    return lines.parse(io.BytesIO(content), block)


def test_a_line_is_read_as_it_was_written():
    for line in (LINE, dataclasses.replace(LINE, adversarial_at=None)):
        result, broken, _ = read(lines.encode(line))
        assert list(result) == ["pgd20"]
        assert (repr(dict(result["pgd20"])), broken) == (repr({3: line}), 0)  # NaN is not equal to itself
    assert math.isnan(read(lines.encode(LINE))[0]["pgd20"][3].probability)
    assert "adversarial_at" not in json.loads(lines.encode(dataclasses.replace(LINE, adversarial_at=None)))


@pytest.mark.parametrize("change", ["a field is missing", "a field is unknown"])
def test_a_line_of_other_fields_is_none(change):
    values = json.loads(lines.encode(LINE))
    del values["crc"], values["norm" if "missing" in change else "adversarial_at"]
    content = json.dumps(values if "missing" in change else values | {"weather": 1}, separators=(",", ":"))
    assert read(seal(content))[:2] == ({}, 1)


def test_of_a_block_only_the_lines_that_are_none_are_left_out():
    rng, whole = np.random.default_rng(0), dataclasses.replace(LINE, probability=0.25, confidence=0.5)
    written = [
        dataclasses.replace(whole, attack=attack, image=int(image), margin=float(rng.normal()))
        for attack in ("clean", "pgd20")
        for image in rng.permutation(40)
    ]
    values = json.loads(lines.encode(LINE))
    del values["crc"]
    bad = [seal('{"attack":"clean"}'), seal("[1]"), seal(json.dumps(values | {"image": "x"}))]
    for wrong in (
        {"image": 3.7},
        {"image": True},
        {"image": -1},
        {"image": 2**70},
        {"prediction": 1.9},
        {"prediction": -2},
        {"tied": "false"},
        {"margin": "0.5"},
        {"margin": 10**400},
        {"adversarial_at": -5},
        {"attack": 5},
    ):
        assert read(seal(json.dumps(values | wrong)))[:2] == ({}, 1), wrong
    assert read(seal(json.dumps(values) + "," + json.dumps(values)))[:2] == ({}, 1)
    assert read(seal('{"a":' * 100_000 + "1" + "}" * 100_000))[:2] == ({}, 1)
    texts = [lines.encode(line) for line in written]
    for place in (3, 20, 21):
        texts.insert(place, bad.pop())
    texts[50:50] = [b"\n", texts[40][:-5] + b"\n"]
    content = b"".join(texts) + lines.encode(dataclasses.replace(written[0], prediction=11))
    result, broken, digest = read(content, block=600)  # a few lines
    assert (broken, digest) == (4, hashlib.sha256(content).hexdigest())
    for attack, verdicts in result.items():
        assert dict(verdicts) == {line.image: line for line in written if line.attack == attack}, "the first one counts"
        assert list(verdicts) == list(range(40))
        assert verdicts.predictions(np.array([7, 40, -1])).tolist() == [verdicts[7].prediction, -1, -1]
    assert 40 not in result["clean"]
    assert not len(lines.empty("clean").rows)
    assert lines.empty("clean").predictions(np.array([0, 1])).tolist() == [-1, -1]


def seal(content: str) -> bytes:
    """A line of any content with the right checksum."""
    return f'{content[:-1]},"crc":"{zlib.crc32(content.encode()):08x}"}}\n'.encode()


def test_the_documentation_names_every_field_of_a_line():
    table = DOCS.read_text().split("<!-- verdict-fields:begin -->")[1].split("<!-- verdict-fields:end -->")[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(named) == sorted([*(field.name for field in dataclasses.fields(Line)), "crc"])
