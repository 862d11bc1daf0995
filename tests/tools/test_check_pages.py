"""The check of this repository's pages: what is out of date is named with what mends it, and nothing else is."""

import json
import shutil

import fabricated
import jsonschema
import pytest

import ltrobust
from ltrobust.analysis.schema.card import Card
from ltrobust.runtime import typed_json
from tools import (
    card_schema,
    check_pages,
    claim_file,
    compiled,
    data_files,
    design_page,
    links,
    published_rows,
    speed,
    study_figures,
    summary,
    torch_table,
)

ROOT = check_pages.ROOT


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def copy(tmp_path):
    """Pages with generated tables, which are new, beside links to what they are made of."""
    pages = {speed.PAGE, compiled.PAGE, data_files.PAGE, design_page.PAGE, torch_table.PAGE, str(claim_file.FILE)}
    for page in pages | {page for page, _, _ in summary.blocks(ROOT)}:
        (tmp_path / page).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / page, tmp_path / page)
    for folder in ("results", "benchmarks", "configs", "ltrobust"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    summary.main(tmp_path)
    speed.main(tmp_path)
    compiled.main(tmp_path)
    data_files.main(tmp_path)
    design_page.main(tmp_path)
    torch_table.main(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_changed_digit_in_a_generated_table_is_found_and_the_command_mends_it(copy):
    assert list(check_pages.tables(copy)) == []
    commands = {
        ("docs/results/imbalance.md", "sweep-imbalance_cifar10_cpu"): summary,
        ("docs/results/cifar10.md", "recipe-cifar10_cpu"): summary,
        ("docs/study.md", "claims-tail"): summary,
        ("docs/study.md", "controls"): summary,
        ("docs/study.md", "passes"): summary,
        ("README.md", "results"): summary,
        (speed.PAGE, "speed"): speed,
        (speed.PAGE, "measurements"): speed,
        (compiled.PAGE, "compiled"): compiled,
        (data_files.PAGE, "data-files"): data_files,
    }
    for page, marker in commands:
        before, begin, rest = (copy / page).read_text().partition(f"<!-- {marker}:begin -->")
        table, end, after = rest.partition(f"<!-- {marker}:end -->")
        digit = next(letter for letter in table if letter.isdigit())
        (copy / page).write_text(before + begin + table.replace(digit, str((int(digit) + 1) % 10), 1) + end + after)
    for command in (None, compiled, data_files, speed, summary):
        if command:
            command.main(copy)
            commands = {place: needed for place, needed in commands.items() if needed is not command}
        result = {(stale.path, stale.fault.split("`")[1], stale.mend) for stale in check_pages.tables(copy)}
        assert result == {(*place, f"python -m {needed.__name__}") for place, needed in commands.items()}


def test_cards_that_no_page_shows_are_found(tmp_path):
    write(tmp_path / "results" / "a" / "card.json", "")
    write(tmp_path / "results" / "sweeps" / "b" / "card.json", "")
    write(tmp_path / "docs" / "results" / "page.md", "<!-- recipe-a:begin -->\n<!-- sweep-b:begin -->\n")
    assert list(check_pages.shown(tmp_path)) == []
    write(tmp_path / "docs" / "results" / "page.md", "<!-- recipe-a:begin -->\n")
    (stale,) = check_pages.shown(tmp_path)
    assert stale.fault == "no page shows `sweep-b`"


def test_an_edited_table_of_published_numbers_is_found_and_the_command_mends_it(tmp_path):
    page = tmp_path / published_rows.PAGE
    write(page, "<!-- published:begin --><!-- published:end -->")
    published_rows.main(tmp_path)
    assert list(check_pages.published(tmp_path)) == []
    written = page.read_text()
    write(page, written.replace("not run", "99.99", 1))
    (stale,) = check_pages.published(tmp_path)
    assert stale.mend == "python -m tools.published_rows"
    published_rows.main(tmp_path)
    assert page.read_text() == written


def test_arithmetic_of_an_older_network_is_found(tmp_path):
    path = tmp_path / "benchmarks" / "results" / "floors.json"
    floors = json.loads((ROOT / "benchmarks" / "results" / "floors.json").read_text())
    floors["networks"]["resnet18"]["parameters"] += 1
    write(path, json.dumps(floors))
    (stale,) = check_pages.arithmetic(tmp_path)
    assert stale.path == "benchmarks/results/floors.json"


def test_cards_with_missing_fields_edited_checkouts_or_some_images_only_are_found(tmp_path):
    committed, results = ROOT / "results" / "digits" / "at_bsl-seed0.json", tmp_path / "results"
    edited = {"commit": "0" * 40 + "+changes"}
    changes = {
        "a/good.json": lambda card: None,
        "a/lacks.json": lambda card: card.pop("threat"),
        "a/some.json": lambda card: card["data"].update(evaluated=8),
        "a/edited.json": lambda card: card["training"]["student"]["software"].update(edited),
        "sweeps/a/some.json": lambda card: card["data"].update(evaluated=8),
    }
    for name, change in changes.items():
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(committed, results / name)
        fabricated.change_card(results / name, change)
    write(results / summary.AGREEMENT / "edited.json", json.dumps({"software": edited}))
    (results / summary.DIAGNOSIS).mkdir()
    shutil.copy(ROOT / "results" / summary.DIAGNOSIS / "digits.json", results / summary.DIAGNOSIS / "good.json")
    write(results / summary.DIAGNOSIS / "old.json", '{"version": 1}')
    result = {stale.path: stale.fault.replace(f"{tmp_path}/", "") for stale in check_pages.committed_cards(tmp_path)}
    assert result == {
        "results/a/lacks.json": "results/a/lacks.json is no card of version 3: threat is missing. Put back a copy of "
        "it",
        "results/a/some.json": "the card is of 8 of 797 test images",
        "results/a/edited.json": "student is from an edited checkout",
        f"results/{summary.AGREEMENT}/edited.json": "it is from an edited checkout",
        f"results/{summary.DIAGNOSIS}/old.json": f"results/{summary.DIAGNOSIS}/old.json is no diagnosis of version 2 "
        "(it has 1); run ltrobust diagnose again",
    }


def test_committed_cards_are_valid_by_the_schema():
    schema = json.loads((ROOT / card_schema.FILE).read_text())
    assert schema == typed_json.schema(Card)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    paths = [
        path for folder in ("digits", "cifar10_cpu") for path in sorted((ROOT / "results" / folder).glob("*.json"))
    ]
    paths += [next(folder.glob("*.json")) for folder in sorted((ROOT / "results" / "sweeps").iterdir())]
    for path in paths:
        card = json.loads(path.read_text())
        assert not list(validator.iter_errors(card)), path
    card["data"]["evaluated"] = "many"
    card["colour"] = "blue"
    assert len(list(validator.iter_errors(card))) == 2


def test_a_schema_that_is_not_that_of_the_classes_is_found(tmp_path):
    write(tmp_path / card_schema.FILE, card_schema.text())
    assert list(check_pages.schema(tmp_path)) == []
    write(tmp_path / card_schema.FILE, card_schema.text().replace("UTC", "GMT"))
    assert [stale.mend for stale in check_pages.schema(tmp_path)] == ["python -m tools.card_schema"]


def test_a_notebook_with_outputs_or_equal_ids_is_found(tmp_path):
    cell = {"cell_type": "code", "id": "a", "outputs": [], "execution_count": None}
    path = tmp_path / "examples" / "another.ipynb"
    for cells, faults in (
        ([cell, {"cell_type": "markdown", "id": "b"}], []),
        ([cell | {"execution_count": 1}], ["cells have outputs"]),
        ([cell | {"outputs": ["1"]}, cell], ["cells have outputs", "two cells have one id"]),
    ):
        write(path, json.dumps({"cells": cells}))
        assert [stale.fault for stale in check_pages.notebooks(tmp_path)] == faults


def test_figures_of_other_cards_are_found(tmp_path, monkeypatch):
    draw = {"gain": '<path aria-label="tail: 0.5"/>', "prior": '<path aria-label="tail: 0.7"/>'}
    monkeypatch.setattr(study_figures, "draw", lambda root: draw)
    for name, text in draw.items():
        write(tmp_path / study_figures.FOLDER / f"{name}.svg", text.replace("path", "text").replace("0.7", "0.6"))
    (stale,) = check_pages.figures(tmp_path)
    assert (stale.path, stale.mend) == ("docs/figures/prior.svg", "python -m tools.study_figures")


def test_another_version_is_found(tmp_path):
    for version, pages in ((ltrobust.__version__, []), ("0.0.9", ["CITATION.cff", "CHANGELOG.md"])):
        write(tmp_path / "CITATION.cff", f"title: x\nversion: {version}\n")
        write(tmp_path / "CHANGELOG.md", f"# Changes\n\n## {version} (not released)\n")
        assert [stale.path for stale in check_pages.version(tmp_path)] == pages


def test_a_configuration_without_its_command_is_found(tmp_path):
    write(tmp_path / "configs" / "default.py", '"""Every key."""\n')
    write(tmp_path / "configs" / "good.py", '"""Digits.\n\n    python main.py --config=configs/good.py\n"""\n')
    write(tmp_path / "configs" / "bad.py", '"""Digits.\n\n    python main.py --config=configs/good.py\n"""\n')
    assert [stale.path for stale in check_pages.configurations(tmp_path)] == ["configs/bad.py"]


def test_the_table_of_rooms_is_made_of_their_docstrings(tmp_path):
    """Imports between rooms, and which of them work without JAX, are held by tests/test_layers.py."""
    write(tmp_path / "ltrobust" / "__init__.py", "")
    write(tmp_path / "ltrobust" / "names.py", '"""Names of things.\n\nMore.\n"""\n')
    write(tmp_path / "ltrobust" / "data" / "__init__.py", '"""Images with labels."""\n')
    rows = design_page.table(tmp_path).splitlines()[2:]
    assert rows == [
        "| [`data/`](../../ltrobust/data/) | Images with labels |",
        "| [`names.py`](../../ltrobust/names.py) | Names of things |",
    ]
    write(tmp_path / "ltrobust" / "more" / "__init__.py", "")
    with pytest.raises(ValueError, match=r"ltrobust/more/__init__\.py has no docstring"):
        design_page.table(tmp_path)


def test_links_and_paths_that_lead_nowhere_are_found(tmp_path):
    write(tmp_path / "docs" / "other.md", "# A title, and `code`\n\n```\n# no title\n[a](no.md)\n```\n")
    write(tmp_path / "ltrobust" / "here.py", "")
    write(
        tmp_path / "README.md",
        "[a](docs/other.md) [b](docs/other.md#a-title-and-code) [c](https://example.org/x) [d](#here)\n"
        "`ltrobust/here.py` `configs/NAME.py` `docs/*.md` ![f](docs/gone.png)\n"
        "[e](docs/other.md#no-title)\n[g](docs/gone.md)\n`ltrobust/gone.py`\n\n## Here\n",
    )
    assert list(links.dead(tmp_path)) == [
        ("README.md", "docs/gone.png"),
        ("README.md", "docs/other.md#no-title"),
        ("README.md", "docs/gone.md"),
        ("README.md", "ltrobust/gone.py"),
    ]


def test_the_command_prints_every_fault_and_ends_with_status_1(tmp_path, monkeypatch, capsys):
    write(tmp_path / "README.md", "[a](gone.md)\n")
    monkeypatch.setattr(check_pages, "CHECKS", (check_pages.targets,))
    assert check_pages.main(tmp_path) == 1
    assert "README.md: `gone.md` leads nowhere." in capsys.readouterr().out
    write(tmp_path / "README.md", "no link\n")
    assert check_pages.main(tmp_path) == 0
