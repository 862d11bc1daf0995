"""The table of published numbers: every row has a configuration, command and cost are true."""

import dataclasses
import json
import pathlib
import re
import shutil

import fabricated
import planned
import pytest

from configs import cifar10_distillation, cifar100_distillation, published
from ltrobust.evaluation import protocols
from tools import published_rows
from tools.published_rows import ROWS

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.config}-{row.what}")
def test_every_row_has_a_configuration_and_columns_to_be_held_against(row):
    config = published_rows.configuration(row)
    assert config.data.name in published_rows.SOURCES
    # What the row says of data and network is what its configuration says.
    stated = {"IR 50": 50.0, "IR 10": 10.0}
    assert [config.data.imbalance_ratio == ratio for word, ratio in stated.items() if word in row.what] in ([], [True])
    for word, model in (("WRN-34-10", "wrn_34_10"), ("WRN-28-10", "wrn_28_10"), ("ResNet-18", "resnet18")):
        assert f", {word}" not in row.what or config.model.name == model
    assert ("CIFAR-100" in row.what) == (config.data.name == "cifar100")
    protocol = protocols.get(row.source.protocol)
    columns = {attack.name for attack in protocol.attacks} | dict(protocol.combined).keys()
    assert {row.source.pgd, row.source.aa} <= columns
    assert row.source.caveat
    assert all(re.fullmatch(r"(\d\d\.\d\d?)?", value) for value in (row.clean, row.pgd, row.aa))
    assert row.card == "" or (ROOT / "results" / row.card).is_file()


def test_a_command_is_the_rows_configuration():
    for row in ROWS:
        flags = dict(re.findall(r"--config\.(\S+?)=(\"[^\"]*\"|\S+)", published_rows.command(row)))
        assert flags.pop("eval.protocol") == row.source.protocol
        changed = {key: value for key, value in flags.items() if not key.startswith("teachers.")}
        assert changed.keys() == row.changes.keys()
        teachers = planned.make_method(published_rows.configuration(row), "student").teachers
        own = row.source is published_rows.SELF  # trains its teacher itself
        assert ("teachers.teacher.path" in flags) == (bool(teachers) and not own)
    known = {*published.RECIPES, *cifar10_distillation.BASES, *cifar100_distillation.BASES}
    assert {row.config.split(":")[1].split("+")[0] for row in ROWS if ":" in row.config} <= known


def test_costs_are_the_arithmetic_that_they_say():
    (row,) = [row for row in ROWS if row.config == "published:at_bsl+all_images" and not row.changes]
    # 13,996 training images, 109 whole batches, 100 epochs, 10 + 1 passes.
    assert published_rows.cost(published_rows.configuration(row)) == "10,900 x 128 x 11 = 15.3 million (student)"
    # With a validation part 13,287 (the committed card has that split), and 103 batches.
    row = dataclasses.replace(row, config="published:at_bsl")
    card = json.loads((ROOT / "results" / "cifar10_cpu" / "self_distillation-seed0.json").read_text())
    assert sum(card["data"]["class_counts"]) // 128 == 103
    assert published_rows.cost(published_rows.configuration(row)) == "10,300 x 128 x 11 = 14.5 million (student)"
    (awp,) = [row for row in ROWS if row.changes == {"student.wrappers": ("awp",)}]
    assert "21,800 x 128 x 12" in published_rows.cost(published_rows.configuration(awp))
    assert "(teacher); 10,300 x 128" in published_rows.cost(published_rows.configuration(ROWS[0]))


def test_the_table_has_a_line_for_each_row_and_a_note_for_each_source():
    rows, _, notes = published_rows.table().partition("\n\n")
    assert len(rows.splitlines()) == 2 + len(ROWS)
    assert [note.split(".")[0] for note in notes.splitlines()] == [
        str(number) for number in range(1, 1 + len({row.source for row in ROWS}))
    ]


def test_our_number_is_the_cards(tmp_path):
    assert published_rows.ours(ROWS[0]) == "not run"
    (tmp_path / "results").mkdir()
    committed = ROOT / "results" / "digits" / "at_bsl-seed0.json"
    path = shutil.copy(committed, tmp_path / "results" / "card.json")

    def change(card):
        columns = card["networks"]["student/last"]["columns"]
        columns["clean"]["overall"]["value"], columns["pgd20"]["overall"]["value"] = 0.5, 0.25

    fabricated.change_card(path, change)
    row = dataclasses.replace(ROWS[3], card="card.json")
    assert published_rows.ours(row, tmp_path) == "50.00 / 25.00 / -"
