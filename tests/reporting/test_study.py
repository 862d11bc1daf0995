"""The short tables of docs/study.md are those of the committed cards."""

import json
import pathlib

import numpy as np
import pytest

from ltrobust.reporting.numbers import t_interval

ROOT = pathlib.Path(__file__).resolve().parents[2]
RATIOS, SEEDS = ("10.0", "50.0", "100.0"), (0, 1, 2)
PASSES = {"teacher": 23, "at_bsl": 23, "logits only": 24, "with gradient matching": 29}  # docs/performance.md


@pytest.fixture(scope="module")
def cells():
    """Cells of every table row of the page by the row's first cell."""
    lines = (ROOT / "docs" / "study.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def card(variant, ratio, seed):
    path = ROOT / "results" / "sweeps" / "imbalance_cifar10_cpu" / f"{variant}-imbalance_ratio{ratio}-seed{seed}.json"
    return json.loads(path.read_text())


def tails(variant, ratio, column, network="student/last"):
    columns = [card(variant, ratio, seed)["networks"][network]["columns"][column] for seed in SEEDS]
    return 100 * np.array([one["tail_third"]["value"] for one in columns])


def written(values, least, most):
    low, high = t_interval(values)
    return f"{np.mean(values):.1f} [{max(low, least):.1f}, {min(high, most):.1f}]"


@pytest.mark.parametrize(
    ("row", "variant", "network"),
    [
        ("PGD-AT", "pgd_at", "student/last"),
        ("AT-BSL", "at_bsl", "student/last"),
        ("self-distillation, logits only", "self_distillation_logits", "student/last"),
        ("self-distillation", "self_distillation", "student/last"),
        ("the teacher", "self_distillation_logits", "teacher/last"),
    ],
)
def test_the_tail(cells, row, variant, network):
    found = [tails(variant, ratio, column, network) for ratio in RATIOS for column in ("pgd20", "worst")]
    assert cells[row] == [written(values, 0, 100) for values in found]


def test_the_gain_over_at_bsl_is_paired_by_seed(cells):
    pairs = [(ratio, column) for ratio in RATIOS for column in ("pgd20", "worst")]
    found = [tails("self_distillation", *pair) - tails("at_bsl", *pair) for pair in pairs]
    assert cells["self-distillation minus AT-BSL"] == [written(values, -100, 100) for values in found]


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_cost_is_that_of_the_updates(cells, ratio):
    training = card("self_distillation_logits", ratio, 0)["training"]
    student, teacher = training["student"]["steps"], training["teacher"]["steps"]
    assert card("at_bsl", ratio, 0)["training"]["student"]["steps"] == student
    forms = ("logits only", "with gradient matching")
    passes = [student * PASSES[form] + teacher * PASSES["teacher"] for form in forms]
    costs = [f"{value / (student * PASSES['at_bsl']):.2f}" for value in passes]
    assert cells[f"ratio {float(ratio):g}: {student} and {teacher}"] == costs
