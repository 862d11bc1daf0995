"""Tables over cards: rows, differences paired by seed, and numbers over seeds that are the textbook's."""

import dataclasses
import json
import math
import pathlib
import shutil

import fabricated
import numpy as np
import pytest
from scipy import stats

from ltrobust.analysis import cards, intervals, seeds
from ltrobust.report import grid, numbers
from ltrobust.runtime.files import write_json
from tools import gradients, headline, summary

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_what_igdm_changes_is_paired_by_seed(tmp_path):
    for variant, cosines in (("ard", (0.5, 0.6)), ("ard+igdm", (0.6, 0.8))):
        for seed, cosine in enumerate(cosines):
            measured = {"cosine": {"value": cosine}, "distance": {"value": 0.4}, "student_remainder": {"value": 0.03}}
            write_json(tmp_path / f"{variant}-seed{seed}.json", measured)
    text = gradients.render(tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("| ard+igdm minus ard |")]
    assert line.split(" | ")[2].partition(", p ")[0] == numbers.over_seeds(
        intervals.t_interval([0.1, 0.2]), unit=1.0, digits=3
    )
    assert line.split(" | ")[2].startswith("0.150 ± 0.071 [")
    (tmp_path / "ard-seed1.json").unlink()
    with pytest.raises(ValueError, match="one seed of ard;"):
        gradients.render(tmp_path)


def test_a_sweep_has_a_row_for_each_variant_over_its_seeds(tmp_path):
    folder = tmp_path / "results" / "sweeps" / "small"
    folder.mkdir(parents=True)
    committed = ROOT / "results" / "digits"
    for seed in (0, 1):
        for variant, source in (("at_bsl+awp", "at_bsl"), ("self_distillation", "self_distillation")):
            path = shutil.copy(committed / f"{source}-seed{seed}.json", folder / f"{variant}-seed{seed}.json")
            fabricated.change_card(path, lambda card: card["data"].update(test_images=1000))
    text = summary.sweep(tmp_path, "small")
    assert "[`configs/sweeps/small.py`](../../configs/sweeps/small.py)" in text
    assert "4 runs: digits" in text
    assert "797 of 1000 test images" in text
    values, other = (
        [
            cards.read(committed / f"{method}-seed{seed}.json").networks["student/last"].columns["clean"]
            for seed in (0, 1)
        ]
        for method in ("at_bsl", "self_distillation")
    )
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| at_bsl+awp")]
    assert rows[0][1] == "2"
    assert rows[0][2] == numbers.over_seeds(seeds.of_columns(values, "overall", ()))
    # Differences to the baseline are paired by seed; with the variant under its name the table has them.
    for path in sorted(folder.glob("at_bsl+awp*")):
        path.rename(folder / path.name.replace("at_bsl+awp", summary.BASELINE))
    (line,) = [
        line for line in summary.sweep(tmp_path, "small").splitlines() if line.startswith("| self_distillation minus")
    ]
    _, number, clean, *_ = line.split(" | ")
    paired = seeds.of_differences(list(zip(other, values, strict=True)), "overall", ())
    assert paired.mean == np.mean([a.overall.value - b.overall.value for a, b in zip(other, values, strict=True)])
    assert (number, clean.partition(", p ")[0]) == ("2", numbers.over_seeds(paired))
    assert f"{summary.REFERENCE} minus {summary.COUNTING}: missing**" in text
    # Another place on the axes has its own tables and differences.
    for path in folder.glob("*.json"):
        copy = shutil.copy(path, path.with_name(path.name.replace("-seed", "-imbalance_ratio50.0-seed")))
        fabricated.change_card(copy, lambda card: card["data"].update(imbalance_ratio=50.0))
    for half in summary.sweep(tmp_path, "small").split("digits, imbalance ratio 50 "):
        assert line in half.splitlines()
    # Rows of one table are of one kind.
    fabricated.change_card(folder / "self_distillation-seed1.json", lambda card: card["threat"].update(radius=4.0))
    with pytest.raises(ValueError, match=r"self_distillation-seed1\.json was not evaluated as"):
        summary.sweep(tmp_path, "small")
    # The tables of single configurations do not take a sweep for one of them.
    assert (summary.recipes(tmp_path), summary.short(tmp_path)) == ([], "")
    assert summary.unshown(tmp_path) == ["sweep-small"]


def test_head_against_tail_says_how_often_the_tail_is_predicted_and_who_is_on_the_frontier():
    card = cards.read(ROOT / "results" / "sweeps" / "controls_digits" / "at_bsl-seed0.json")
    network = card.networks["student/last"]
    assert network.confusion is not None
    column = network.columns["autoattack"]
    head, tail = column.head_third, column.tail_third
    assert head is not None
    assert tail is not None
    worse = dataclasses.replace(
        column,
        head_third=dataclasses.replace(head, value=head.value - 0.1),
        tail_third=dataclasses.replace(tail, value=tail.value - 0.1),
    )
    beaten = dataclasses.replace(
        card,
        networks={"student/last": dataclasses.replace(network, columns={**network.columns, "autoattack": worse})},
    )
    text = grid.render(("variant",), [(("best",), card), (("beaten",), beaten)])
    rows = text.split("Head against tail.")[1].splitlines()
    best, other = (
        next(row for row in rows if row.startswith(f"| {name} ")).split(" | ") for name in ("best", "beaten")
    )
    for column, shown in (("clean", best[5]), ("autoattack", best[6])):
        matrix = np.array(network.confusion[column])
        assert shown == numbers.one_run(intervals.wilson(matrix[:, 7:].sum(), matrix.sum()))
    assert (best[-1], other[-1]) == ("yes |", " |")
    # A row of fewer seeds is not on the frontier, however good, and keeps no other from it.
    text = grid.render(("variant",), [(("two",), beaten), (("two",), beaten), (("one",), card)])
    table = text.split("Head against tail.")[1].split("by class")[0]
    rows = [row.split(" | ") for row in table.splitlines()]
    assert {row[0]: row[-1] for row in rows if row[0] in ("| two", "| one")} == {"| two": "yes |", "| one": "- |"}
    assert "Frontier, of rows with 2 seeds: no other has" in text


def test_the_primary_comparison_is_that_of_standard_and_of_the_declared_variants():
    card = cards.read(ROOT / "results" / "digits" / "at_bsl-seed0.json")
    runs = [(name, dataclasses.replace(card, config={**card.config, "seed": seed})) for name in "ab" for seed in (0, 1)]
    assert "a minus b: missing**" in grid.render_primary(runs, ("a", "b"))
    protocol = dataclasses.replace(card.protocol, name="standard")
    standard = [(name, dataclasses.replace(run, protocol=protocol)) for name, run in runs]
    assert "a minus b: 0.00 ± 0.00 [" in grid.render_primary(standard, ("a", "b"))
    assert "self_distillation minus at_bsl: missing**" in grid.render_primary(standard)
    # Another tail cannot be compared, and a third variant's counts do not matter.
    other = dataclasses.replace(card.data, class_counts=card.data.class_counts[::-1])
    turned = [(name, dataclasses.replace(run, data=other) if name == "a" else run) for name, run in standard]
    assert "missing**, since their classes have other numbers of images" in grid.render_primary(turned, ("a", "b"))
    third = [("c", turned[0][1]), *standard]
    assert grid.render_primary(third, ("a", "b")) == grid.render_primary(standard, ("a", "b"))


def test_who_gains_where_is_held_against_another_seed_of_the_reference():
    rng = np.random.default_rng(0)
    base = {seed: rng.uniform(0.3, 0.6, 5) for seed in (0, 1, 2)}
    gain = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    made = {
        "base": lambda seed: base[seed],
        "reference": lambda seed: base[seed] + gain,
        "opposite": lambda seed: base[seed] - 0.5 * gain,
        "shift": lambda seed: base[seed] + 0.01,
        # Its gains have another order in each seed; with itself of the same seed it would agree.
        "turning": lambda seed: base[seed] + np.roll(gain, seed),
    }
    runs = [
        (
            variant,
            drawn(seed, of(seed)),
        )
        for variant, of in made.items()
        for seed in base
    ]
    rows = {line.split(" | ")[0][2:]: line[2:-2].split(" | ") for line in _gains(runs)}
    assert list(rows) == ["reference", "opposite", "shift", "turning"]
    assert rows["reference"][1:] == ["-20.0", "-10.0", "+0.0", "+10.0", "+20.0", "1.00 [1.00, 1.00]"]
    assert rows["opposite"][1:] == ["+10.0", "+5.0", "+0.0", "-5.0", "-10.0", "-1.00 [-1.00, -1.00]"]
    assert rows["shift"][-1] == "-"
    result = [stats.spearmanr(np.roll(gain, turn), gain).statistic for turn in range(3)]
    assert rows["turning"][-1] == f"{np.mean(result):.2f} [{min(result):.2f}, {max(result):.2f}]"
    # Without a second seed that all have, without the baseline: nothing.
    assert grid.render_gains([card for card in runs if card[1].seed < 1], "base", "reference") == ""
    assert grid.render_gains(runs[3:], "base", "reference") == ""
    assert grid.render_gains([], "base", "reference") == ""
    # Variants whose classes have other numbers of images have no row.
    card = runs[-1][1]
    other = dataclasses.replace(card, data=dataclasses.replace(card.data, class_counts=card.data.class_counts[::-1]))
    assert grid.render_gains([*runs, ("elsewhere", other)], "base", "reference") == grid.render_gains(
        runs, "base", "reference"
    )


def test_the_short_table_has_one_protocol_and_a_dash_for_what_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(headline, "SOURCES", (headline.Source("Digits", "digits"),))
    (tmp_path / "results" / "digits").mkdir(parents=True)
    path = tmp_path / "results" / "digits" / "at_bsl-seed0.json"
    shutil.copy(ROOT / "results" / "digits" / path.name, path)
    fabricated.change_card(
        path, lambda card: card["networks"]["student/last"]["columns"]["worst"].update(tail_third=None)
    )
    assert headline.table(tmp_path).splitlines()[-1].split(" | ")[4] == "-"
    shutil.copy(ROOT / "results" / "sweeps" / "controls_digits" / "at_bsl-seed1.json", path.parent)
    with pytest.raises(ValueError, match="results/digits are of quick, standard; one table has one protocol"):
        headline.table(tmp_path)


def test_a_check_that_failed_is_under_the_headline_once_with_its_seeds(tmp_path, monkeypatch):
    def fail(card):
        item = {"check": "logit scale", "evidence": "PGD-20", "id": "P18", "per_class": [], "status": "fail"}
        card["networks"]["student/last"] |= {"sanity": [item], "sanity_verdict": "not trustworthy"}

    monkeypatch.setattr(headline, "SOURCES", (headline.Source("Digits", "digits"),))
    shutil.copytree(ROOT / "results" / "digits", tmp_path / "results" / "digits")
    for seed in (0, 2):
        fabricated.change_card(tmp_path / "results" / "digits" / f"at_bsl-seed{seed}.json", fail)
    lines = headline.table(tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| method",
        "| AT-BSL †",
        "| self-distillation",
    ]
    (remark,) = [line for line in lines if line.startswith("†")]
    assert remark.startswith("† AT-BSL, seeds 0, 2: not trustworthy, logit scale (P18). [")


def drawn(seed, accuracies):
    """A card of five classes with these accuracies."""
    card = cards.read(ROOT / "results" / "digits" / "at_bsl-seed0.json")
    network = card.networks["student/last"]
    column = dataclasses.replace(
        network.columns["pgd20"], per_class=[intervals.Estimate(value, value, value) for value in accuracies]
    )
    return dataclasses.replace(
        card,
        config={**card.config, "seed": seed},
        data=dataclasses.replace(card.data, class_names=list("abcde")),
        networks={"student/last": dataclasses.replace(network, columns={"pgd20": column})},
    )


def _gains(cards):
    """The table's rows of numbers."""
    return grid.render_gains(cards, "base", "reference").splitlines()[4:]


def test_over_seeds_is_mean_deviation_and_t_interval():
    # Three seeds: the half-width is 4.303 / sqrt(3) deviations.
    assert numbers.over_seeds(intervals.t_interval([0.1, 0.2, 0.3])) == "20.00 ± 10.00 [-4.84, 44.84]"
    assert numbers.one_run(intervals.Estimate(0.25, 0.2, 0.3125)) == "25.00 [20.00, 31.25]"


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="once each"):
        summary.inserted("text", "block")


def test_json_keeps_numbers_on_one_line_and_loses_nothing(tmp_path):
    card = json.loads((ROOT / "results" / "digits" / "at_bsl-seed0.json").read_text())
    write_json(tmp_path / "card.json", card)
    text = (tmp_path / "card.json").read_text()
    assert json.loads(text) == card
    assert '"correct": [' in text
    assert len(text) < 0.85 * len(json.dumps(card, indent=1, sort_keys=True))
    odd = {"b": [[], {}, [1, [2.5, None]], {"é": "a\n"}], "a": (1, True), "c": math.nan, "d": {}}
    write_json(tmp_path / "odd.json", odd)
    expected = {"b": [[], {}, [1, [2.5, None]], {"é": "a\n"}], "a": [1, True], "c": None, "d": {}}
    assert json.loads((tmp_path / "odd.json").read_text()) == expected
    write_json(tmp_path / "plain.json", [])
    assert (tmp_path / "plain.json").read_text() == "[]\n"


def test_cards_are_never_overwritten_and_read_as_they_were_written(tmp_path):
    card = drawn(3, [0.5, float("nan"), 0.25, 1.0, 0.0] * 2)  # ten classes, as its counts
    network = card.networks["student/last"]
    # A card that lacks a column of its protocol is refused.
    columns = dict.fromkeys(("clean", "pgd20", card.protocol.headline), network.columns["pgd20"])
    networks = {"student/last": dataclasses.replace(network, columns=columns)}
    data = dataclasses.replace(card.data, class_names=list("abcdefghij"))
    card = dataclasses.replace(card, data=data, networks=networks)
    first, second = cards.write(tmp_path, "quick", card), cards.write(tmp_path, "quick", card)
    assert (first.name, second.name) == ("quick.json", "quick-2.json")
    assert "NaN" not in first.read_text()
    read = cards.read(first)
    assert math.isnan(read.networks["student/last"].columns["pgd20"].per_class[1].value)
    again = cards.write(tmp_path / "again", "quick", read)
    assert again.read_bytes() == first.read_bytes()


def test_the_command_on_a_card_names_no_folder(monkeypatch):
    words = ["/home/someone/main.py", "--config=configs/digits.py", "--workdir=/home/x", "--config.data.dir=/home/y"]
    monkeypatch.setattr("sys.argv", words)
    assert cards.command() == "main.py --config=configs/digits.py"
    words = ["/home/someone/ltrobust", "offset", "--workdir", "/home/x", "--norm_equalise", "1", "--out=/home/y"]
    monkeypatch.setattr("sys.argv", [*words, "--data_dir", "/home/z"])
    assert cards.command() == "ltrobust offset --norm_equalise 1"


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--code=/home/me/m.py"], "--code=m.py"),
        (["-code", "/home/me/m.py", "--code=package.module"], "-code m.py --code=package.module"),
        (["--code=mine/m.py"], "--code=m.py"),
        (["--config=configs/published.py:mart"], "--config=configs/published.py:mart"),
        (["--config", "/home/me/m.py:mart", "--config.seed=1"], "--config m.py:mart --config.seed=1"),
        (["--config=recorded.py:/home/me/config.json"], "--config=recorded.py:config.json"),
        (["-config=~/m.py", "--config=../me/m.py"], "-config=m.py --config=m.py"),
        (["--config.student.initialize=/home/me/run"], "--config.student.initialize=run"),
        (["--config.teacher.initialize=scratch"], "--config.teacher.initialize=scratch"),
        (["-config.eval.checkpoint", "gs://me/run"], "-config.eval.checkpoint run"),
        (["-workdir=/home/me", "-workdir", "/home/me", "-config.data.dir=/home/me", "-patience=3"], ""),
        (["--config.checkpoint.directory=x", "--weights=last"], "--config.checkpoint.directory=x --weights=last"),
    ],
)
def test_no_flag_on_a_card_names_a_folder_outside(monkeypatch, words, kept):
    monkeypatch.setattr("sys.argv", ["/home/me/ltrobust", "train", *words])
    assert cards.command() == f"ltrobust train {kept}".rstrip()
