"""Tables on a terminal: every interval by its bounds, which hold the value and are those of the card."""

import dataclasses
import os
import re

import numpy as np
import pytest
from absl import logging
from fabricated import write_run

import ltrobust
from ltrobust.analysis import cards, evaluated_networks, intervals
from ltrobust.report import run_page, tables

CELL = re.compile(r"(\d+\.\d\d) \[(\d+\.\d), (\d+\.\d)\]")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return cards.read(write_run(tmp_path_factory.mktemp("run")))


def test_every_number_of_a_card_s_tables_has_bounds_that_hold_it(card):
    text = tables.render(card) + tables.render_classes(card, "student/last")
    assert "±" not in text
    cells = [tuple(map(float, result)) for result in CELL.findall(text)]
    # Networks, columns and views; then classes and columns.
    columns = len(card.networks["student/last"].columns)
    assert len(cells) == len(card.networks) * 3 * 3 + 10 * columns
    assert all(low - 0.05 <= value <= high + 0.05 for value, low, high in cells)


def test_a_wilson_interval_is_printed_as_it_is_and_not_as_half_of_its_width():
    assert tables.percent(intervals.wilson(0, 50)) == "0.00 [0.0, 7.1]"
    assert tables.percent(intervals.wilson(20, 20)) == "100.00 [83.9, 100.0]"
    assert tables.percent(intervals.wilson(0, 0)) == tables.percent(None) == "-"


@pytest.mark.slow
def test_an_evaluation_s_summary_prints_bounds_too():
    images = np.zeros((20, 2, 2, 1), np.float32)
    labels = np.repeat([0, 1], 10)
    evaluation = ltrobust.evaluate(
        lambda points: points.sum((1, 2)) * np.array([[0.0, 1.0]], np.float32) + np.array([3.0, 0.5], np.float32),
        images,
        labels,
        protocol="validation",
        threat=ltrobust.Threat(radius=1),
        progress=False,
    )
    lines = evaluation.summary().splitlines()
    assert "±" not in evaluation.summary()
    clean = next(line for line in lines if line.startswith("clean"))
    assert clean.count("[") == 3


def test_names_on_a_card_reach_neither_terminal_nor_page_as_they_are(tmp_path, monkeypatch):
    """Cards of earlier runs have class names as they are on disk."""
    monkeypatch.setattr(logging, "warning", lambda *words: None)  # a worker of a parallel run cannot send these names
    workdir = tmp_path / os.fsdecode(b"caf\xe9")
    names = [f"{number} \x1b[31m\udce9" for number in range(10)]
    text = tables.render_classes(cards.read(write_run(workdir, names=names)), "student/last")
    assert r"7 \x1b[31m\udce9" in text
    assert "\x1b" not in text
    text.encode()
    for _ in range(2):  # the page is known as ours, and replaced
        assert r"\udce9" in run_page.write(workdir).read_text(encoding="utf-8")


def test_items_of_the_panel_are_named_in_words(tmp_path):
    text = tables.render(cards.read(write_run(tmp_path, protocol="standard")))
    assert "trustworthy, with warnings.\n  warning: broken by Square only (P12): 3 <b>images</b>" in text
    assert "P12 warn" not in text


def test_many_medium_and_few_shot_classes_follow_where_the_long_tail_is_the_data_s_own(card):
    assert "shot" not in tables.render(card)
    config = {**card.config, "data": {**card.config["data"], "imbalance_ratio": 0.0}}
    counts = [101, 100, 20, 19, 500, 5, 5, 5, 5, 5]
    natural = dataclasses.replace(card, config=config, data=dataclasses.replace(card.data, class_counts=counts))
    column = card.networks["student/last"].columns["clean"]
    result = evaluated_networks.shots(natural, column)
    accuracy = np.array(column.correct) / np.array(column.total)
    groups = {"many-shot": [0, 4], "medium-shot": [1, 2], "few-shot": [3, 5, 6, 7, 8, 9]}
    assert {name: mean.value for name, mean in result.items()} == {
        name: pytest.approx(accuracy[classes].mean()) for name, classes in groups.items()
    }
    header, rule, first = tables.render(natural).split("\n\n")[1].splitlines()[:3]
    assert header.split()[-3:] == list(groups)
    assert len(header) == len(rule) == len(first)
    assert tables.percent(result["few-shot"]) in tables.render(natural)
    none_between = dataclasses.replace(natural, data=dataclasses.replace(card.data, class_counts=[101] * 5 + [5] * 5))
    assert evaluated_networks.shots(none_between, column) == {}
