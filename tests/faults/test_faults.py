"""Every fault of docs/faults.md is injected, and its message must hold the facts that are written beside the fault.

`python -m pytest tests/faults --write-faults` writes the page again; its wording is not compared here.
"""

import fault_archive
import fault_checkpoint
import fault_command
import fault_compile
import fault_data
import fault_evaluate
import fault_feed
import fault_image_list
import fault_python
import fault_store
import fault_torch
import fault_training
import fault_weights
import injection
import pytest

MODULES = [
    module.__name__
    for module in (
        fault_command,
        fault_data,
        fault_image_list,
        fault_feed,
        fault_archive,
        fault_training,
        fault_checkpoint,
        fault_store,
        fault_evaluate,
        fault_weights,
        fault_compile,
        fault_python,
        fault_torch,
    )
]
injection.FAULTS.sort(key=lambda fault: MODULES.index(fault.inject.__module__))  # the order of the page


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.title, marks=pytest.mark.ci if fault.title == "SIGKILL" else ())
        for fault in injection.FAULTS
    ],
)
def test_the_user_is_told_the_facts(fault, place, rows):
    reported = fault.inject(place)
    text = injection.plain(reported.message, place.folder)
    assert str(place.folder) not in text
    assert bool(text) == bool(fault.facts.value), "a message must name the value that is wrong"
    assert fault.facts.missing(text) == [], text
    if rows is not None:
        rows[fault.title] = injection.row(fault, reported.happens, text)


def test_the_page_has_these_rows_and_no_others(rows):
    titles = [fault.title for fault in injection.FAULTS]
    assert len(set(titles)) == len(titles)
    assert rows is not None or list(injection.page_rows()) == titles


def test_a_message_without_its_value_or_its_remedy_is_noticed():
    facts = injection.Facts(value="student.epoch", allowed=("[1, 9]", "9"), remedy="student.epochs")
    whole = "there is no student.epoch; did you mean student.epochs? It lies in [1, 9], below 9."
    assert facts.missing(whole) == []
    assert facts.missing("there is no such key; did you mean student.epochs? It lies in [1, 9], below 9.") == [
        "student.epoch"
    ]
    assert facts.missing("there is no student.epoch. It lies in [1, 9], below 9.") == ["student.epochs"]
    assert facts.missing(whole.replace(", below 9", "")) == ["9"]
