"""Every fault of docs/faults.md is injected; the page says what happens then.

`python -m pytest tests/faults --write-faults` writes the page anew.
"""

import fault_checkpoint
import fault_command
import fault_data
import fault_evaluate
import fault_store
import fault_training
import injection
import pytest

MODULES = [
    module.__name__
    for module in (fault_command, fault_data, fault_training, fault_checkpoint, fault_store, fault_evaluate)
]
injection.FAULTS.sort(key=lambda fault: MODULES.index(fault.inject.__module__))  # the order of the page


@pytest.mark.parametrize("fault", injection.FAULTS, ids=lambda fault: fault.title)
def test_the_page_says_what_happens(fault, place, rows):
    line = injection.row(fault, injection.render(fault.inject(place), place.folder))
    assert str(place.folder) not in line
    if rows is not None:
        rows[fault.title] = line
    else:
        assert injection.page_rows().get(fault.title) == line


def test_the_page_has_these_rows_and_no_others(rows):
    titles = [fault.title for fault in injection.FAULTS]
    assert len(set(titles)) == len(titles)
    assert rows is not None or list(injection.page_rows()) == titles
