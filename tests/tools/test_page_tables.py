"""Tables of docs/methods/ and docs/concepts/: those of the code, one for each method, and found where they are not."""

import shutil

import pytest

from ltrobust import methods
from tools import check_pages, method_tables, protocol_tables

ROOT = check_pages.ROOT


@pytest.fixture
def copy(tmp_path):
    """The pages with generated tables."""
    for folder in (method_tables.FOLDER, protocol_tables.FOLDER):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    method_tables.main(tmp_path)
    protocol_tables.main(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_changed_table_is_found_and_the_command_mends_it(copy):
    assert list(check_pages.documented(copy)) == []
    for page, old, module in (
        ("docs/methods/adversarial_training.md", "| `beta` | `6` |", method_tables),
        ("docs/concepts/sanity.md", "| 0.2 / 0.5 |", protocol_tables),
    ):
        text = (copy / page).read_text()
        (copy / page).write_text(text.replace(old, old.replace("6", "7").replace("5", "4")))
        (stale,) = check_pages.documented(copy)
        assert (stale.path, stale.mend) == (page, f"python -m {module.__name__}")
        module.main(copy)
        assert (copy / page).read_text() == text


def test_every_method_and_wrapper_has_one_table():
    markers = [marker for _, marker, _ in method_tables.blocks(ROOT)]
    named = [marker.removeprefix("method-") for marker in markers if marker.startswith("method-")]
    assert sorted(named) == sorted([*methods.REGISTRY, *methods.WRAPPERS])


def test_a_table_of_no_method_is_refused(tmp_path):
    page = tmp_path / method_tables.FOLDER / "page.md"
    page.parent.mkdir(parents=True)
    page.write_text("<!-- method-nothing:begin -->\n<!-- method-nothing:end -->\n")
    with pytest.raises(ValueError, match="no table is called method-nothing; known: method-NAME, methods, "):
        method_tables.main(tmp_path)
