"""Comparing two verdict stores from the command line."""

import json

import numpy as np
import pytest
from linear import apply, fixture

import ltrobust
from ltrobust.analysis import compare_runs
from ltrobust.commands import compare
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator

ROWS = np.arange(0, 1000, 10)
WEAK = protocols.Protocol(
    "weak",
    (protocols.PGD20, protocols.Apgd("apgd-ce", "ce", steps=5, after=("pgd20",))),
    combined=(("worst", ("pgd20", "apgd-ce")),),
)


def run(folder, change=0.0, radius=8.0):
    weights, images, labels = fixture()
    weights = weights + np.float32(change) * np.roll(weights, 1, axis=0)
    evaluator = make_evaluator(
        apply, protocol=WEAK, threat=ltrobust.Threat(radius=radius), num_classes=10, batch_size=64
    )
    about = {"training_counts": [50, 40, 30, 20, 10, 9, 8, 7, 6, 5], "class_names": list("abcdefghij")}
    return evaluator(weights, images[ROWS], labels[ROWS], ids=ROWS, store=folder, about=about)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return folder, run(folder / "plain"), run(folder / "other", change=0.3)


@pytest.mark.slow
def test_counts_are_those_of_the_evaluations(stores, tmp_path, capsys):
    folder, plain, other = stores
    compare.main([str(folder / "plain"), str(folder / "other"), f"--json={tmp_path / 'out.json'}"], "ltrobust compare")
    result = json.loads((tmp_path / "out.json").read_text())
    (result,) = [pair["result"] for pair in result["comparisons"]]
    # The first is the reference: won is what the other gets right and the reference does not.
    assert result["overall"]["test"]["b"] == int(np.sum(other.robust & ~plain.robust))
    assert result["overall"]["test"]["c"] == int(np.sum(plain.robust & ~other.robust)) > 0
    assert result["overall"]["first"] == pytest.approx(other.robust.mean())
    assert "tail_third" in result["groups"]
    printed = capsys.readouterr().out
    assert "other minus plain" in printed
    assert "tail" in printed


@pytest.mark.parametrize("column", ["clean", "pgd20", "apgd-ce", "worst"])
def test_every_column_can_be_rebuilt_from_the_store(stores, column):
    from ltrobust.evaluation import store

    folder, plain, _ = stores
    ids, labels, right = store.correct(*store.read(folder / "plain"), column)
    np.testing.assert_array_equal(ids, ROWS)
    np.testing.assert_array_equal(labels, plain.labels)
    np.testing.assert_array_equal(right, plain.correct(column))


def test_probabilities_are_the_softmax_of_the_judged_points(stores):
    from ltrobust.analysis import confidence
    from ltrobust.evaluation import store

    folder, plain, _ = stores
    weights, images, labels = fixture()
    logits = np.asarray(apply(weights, images[ROWS]), np.float64)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    provenance, verdicts = store.read(folder / "plain")
    clean, attacked = confidence.true_probabilities(provenance, verdicts)
    np.testing.assert_allclose(clean, softmax[np.arange(len(ROWS)), labels[ROWS]], atol=1e-5)
    np.testing.assert_array_equal(plain.records["pgd20"]["probability"] >= 0, plain.clean)
    # Attacks lower it; what is not attacked keeps it; a broken image's true class has at most one half.
    assert np.all(attacked <= clean)
    np.testing.assert_array_equal(attacked[~plain.clean], clean[~plain.clean])
    broken = plain.clean & ~plain.robust
    assert broken.any()
    assert np.all(attacked[broken] <= 0.5)
    means = confidence.mean_by([np.flatnonzero(labels[ROWS] == label) for label in (3, 99)], attacked)
    assert means[0].value == pytest.approx(attacked[labels[ROWS] == 3].mean())
    assert means[0].low <= means[0].value <= means[0].high
    assert np.isnan(means[1].value)


def test_what_cannot_be_compared_is_refused(stores, tmp_path):
    folder, *_ = stores
    run(tmp_path / "wider", radius=9.0)
    with pytest.raises(ValueError, match="differ in threat"):
        compare_runs.compare_all([str(folder / "plain"), str(tmp_path / "wider")])
    with pytest.raises(ValueError, match="no column 'autoattack'"):
        compare.main([str(folder / "plain"), str(folder / "other"), "--column=autoattack"], "ltrobust compare")
    with pytest.raises(ValueError, match="not a verdict store"):
        compare.main([str(tmp_path), str(folder / "other")], "ltrobust compare")
    half = tmp_path / "half"
    half.mkdir()
    (half / "provenance.json").write_bytes((folder / "plain" / "provenance.json").read_bytes())
    lines = (folder / "plain" / "verdicts.jsonl").read_bytes().splitlines(keepends=True)
    (half / "verdicts.jsonl").write_bytes(b"".join(lines[:150]))
    with pytest.raises(ValueError, match="finish the evaluation"):
        compare.main([str(half), str(folder / "other")], "ltrobust compare")
    (half / "verdicts.jsonl").write_bytes(b"".join(lines[:50]))
    with pytest.raises(ValueError, match="50 of 100 images have verdicts; finish the evaluation"):
        compare.main([str(half), str(folder / "other"), "--column=clean"], "ltrobust compare")
