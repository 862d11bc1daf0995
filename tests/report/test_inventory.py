"""The table of used and passed-over files."""

from ltrobust.analysis.schema.card import Files
from ltrobust.report import tables
from ltrobust.runtime import typed_json

FILES = {
    "used": [4, 10],
    "passed_over": {"hidden": {"count": 3, "classes": {"": 1, "b": 2}, "names": []}},
    "findings": {},
}


def test_every_class_has_a_line_and_files_in_no_class_too():
    rows = [line.split() for line in tables.render_files(typed_json.parse(Files, FILES), ["a", "b"]).splitlines()]
    assert " ".join(rows[0]) == "class used skipped: hidden"
    assert rows[2:] == [["a", "4"], ["b", "10", "2"], ["(no", "class)", "1"], ["all", "14", "3"]]


def test_of_many_classes_only_those_with_something_passed_over():
    names = [f"c{number}" for number in range(100)]
    files = {
        "used": [1] * 100,
        "passed_over": {"hidden": {"count": 5, "classes": {"c7": 5}, "names": []}},
        "findings": {},
    }
    assert [line.split() for line in tables.render_files(typed_json.parse(Files, files), names).splitlines()][2:] == [
        ["c7", "1", "5"],
        ["all", "100", "5"],
    ]
    assert tables.render_files(typed_json.parse(Files, {**files, "passed_over": {}}), names).splitlines()[
        -1
    ].split() == ["all", "100"]
