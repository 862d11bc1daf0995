"""The tables of the study: which rows are compared with which, and what is said of too few seeds."""

import dataclasses
import pathlib
import shutil

import pytest

from ltrobust.analysis import cards
from tools import evidence_files, study_page

ROOT = pathlib.Path(__file__).resolve().parents[2]
CARD = cards.read(ROOT / "results" / "sweeps" / "controls_digits" / "at_bsl-seed0.json")


def group(**seeds: int) -> study_page.Group:
    """Runs of each variant that all have the same card but for their seeds."""
    runs = {
        variant: {seed: dataclasses.replace(CARD, config={**CARD.config, "seed": seed}) for seed in range(number)}
        for variant, number in seeds.items()
    }
    return study_page.Group("digits", runs)


def test_every_row_is_paired_with_at_bsl_of_the_same_images():
    result = {row.name: row for row in study_page.rows(group(at_bsl=2, natural=2, self_distillation_reversed=2))}
    assert list(result) == ["at_bsl", "natural", "self_distillation_reversed"]
    assert result["at_bsl"].gain is None
    assert result["self_distillation_reversed"].gain is None, "there is no AT-BSL in that order"
    gain = result["natural"].gain
    assert gain is not None
    assert gain.mean == 0
    assert gain.low < 0 < gain.high, "equal runs have the interval of drawing the images"
    assert study_page.baseline_of("self_distillation_reversed") == "at_bsl_reversed"
    assert study_page.baseline_of("pgd_at_balanced") == "at_bsl"


def test_one_seed_has_no_interval_and_no_comparison():
    (first, second) = study_page.rows(group(at_bsl=1, self_distillation=1))
    assert (first.tail, second.gain) == (None, None)
    assert 0.2 < first.predicted < 0.4


def test_a_row_with_a_network_that_is_not_trustworthy_has_a_mark_and_a_remark():
    runs = group(at_bsl=2, natural=2)
    failing = cards.read(ROOT / "results" / "sweeps" / "controls_digits" / "counts_teacher-seed3.json")
    runs.cards["natural"][1] = dataclasses.replace(failing, config={**failing.config, "seed": 1})
    base, marked = study_page.rows(runs)
    assert (base.title, base.remarks) == ("AT-BSL", [])
    assert marked.title == "natural training †"
    (remark,) = marked.remarks
    assert remark.startswith("† natural training, seed 1: not trustworthy. zero gradient at a random start (P17): ")
    assert "DLR, 1 of 78 images" in remark
    text = study_page.table([base, marked])
    assert text.endswith(f"\n\n{remark}")
    assert "(76 to 83 a class)" in study_page.about(runs)


def test_the_primary_comparison_says_on_how_many_pairs_it_rests_and_of_what_networks():
    runs = group(at_bsl=3, self_distillation=2)._replace(planned=5)
    failing = cards.read(ROOT / "results" / "sweeps" / "controls_digits" / "counts_teacher-seed3.json")
    runs.cards["self_distillation"][1] = dataclasses.replace(failing, config={**failing.config, "seed": 1})
    result = study_page.rows(runs)
    (row,) = [row for row in result if row.name == "self_distillation"]
    assert (row.number, row.pairs) == (2, [0, 1])
    gain = study_page.gain_of(result)
    assert gain == row.gain
    text = study_page.primary(runs, result, 0.5)
    assert "(0.5000 with Holm's correction over the data sets), 2 pairs of seeds." in text
    assert " Interim: 5 pairs are planned. 1 of the 4 networks are not trustworthy (†). " in text
    finished = study_page.primary(runs._replace(planned=2), result, 0.5)
    assert "Interim" not in finished
    missing = group(at_bsl=2, self_distillation=1)
    assert study_page.gain_of(study_page.rows(missing)) is None
    assert "fewer than two seeds" in study_page.primary(missing, study_page.rows(missing), 0.5)


def test_a_row_with_seeds_that_at_bsl_lacks_says_how_many_pairs_it_has():
    text = study_page.table(study_page.rows(group(at_bsl=2, natural=3)))
    assert "| natural training | 3 (2 pairs) |" in text


def test_every_run_has_its_commit_and_minutes():
    header, _, *lines = study_page.runs(group(at_bsl=2, natural=1)).splitlines()
    assert header == "|  | seed 0 | seed 1 |"
    commit = CARD.training["student"].software["commit"][:8]
    run = f"{commit}, {CARD.seconds / 60:.0f} min"
    assert lines == [f"| AT-BSL | {run} | {run} |", f"| natural training | {run} | - |"]


def test_a_sweep_without_seeds_is_no_study(tmp_path):
    (tmp_path / "configs" / "sweeps").mkdir(parents=True)
    (tmp_path / "configs" / "sweeps" / "short.py").write_text("AXES = {}")
    with pytest.raises(ValueError, match="has no `seed` in AXES"):
        study_page.planned_seeds(tmp_path, "short")


@pytest.fixture
def evidence(tmp_path):
    """Cards of two networks and their predictions."""
    for kind in ("sweeps", "evidence"):
        shutil.copytree(ROOT / "results" / kind / "controls_digits", tmp_path / "results" / kind / "controls_digits")
    return tmp_path / "results" / "sweeps" / "controls_digits"


def test_images_that_differ_are_those_of_the_predictions(evidence):
    one, two = (evidence / f"{name}-seed0.json" for name in ("at_bsl", "self_distillation"))
    differ = evidence_files.differing(one, two, "autoattack")
    assert differ is not None
    columns = [cards.read(path).networks["student/last"].columns["autoattack"] for path in (one, two)]
    least = [abs(a - b) for a, b in zip(*(column.correct for column in columns), strict=True)]
    assert all(differ >= least)
    assert differ.sum() > sum(least)
    assert evidence_files.differing(one, one, "autoattack").sum() == 0
    assert evidence_files.differing(one, evidence / "pgd_at_balanced-seed0.json", "autoattack") is None
    assert evidence_files.differing(one, two, "worst") is None, "this column's predictions are not kept"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [lines[0], *lines[2:]], "are of different images"),
        (lambda lines: lines[:1], "is no table of image, label, clean"),
        (lambda lines: [], "is no table of image, label, clean"),
        (lambda lines: ["image,label", *lines[1:]], "is no table of image, label, clean"),
        (lambda lines: [lines[0], lines[1].replace(",", ",x", 1), *lines[2:]], "invalid literal"),
    ],
    ids=["other images", "no rows", "empty", "other columns", "words"],
)
def test_predictions_that_cannot_be_compared_are_refused_by_file(evidence, change, message):
    file = evidence.parents[1] / "evidence" / "controls_digits" / "at_bsl-seed0" / evidence_files.PREDICTIONS
    file.write_text("\n".join(change(file.read_text().splitlines())))
    with pytest.raises(ValueError, match=message) as error:
        evidence_files.differing(
            evidence / "at_bsl-seed0.json", evidence / "self_distillation-seed0.json", "autoattack"
        )
    assert str(file) in str(error.value)


def test_passes_are_counted_from_the_updates_on_the_cards():
    rows = [line.split(" | ") for line in study_page.passes(ROOT).splitlines()[2:]]
    assert [row[-2:] for row in rows] == [["1.53", "1.75 |"], ["1.35", "1.57 |"], ["1.28", "1.49 |"]]


def test_kept_weights_that_are_not_those_of_the_card_are_found(tmp_path):
    (tmp_path / "results" / "sweeps").mkdir(parents=True)
    (tmp_path / "results" / "sweeps" / "controls_digits").symlink_to(ROOT / "results" / "sweeps" / "controls_digits")
    folder = tmp_path / "results" / "evidence" / "controls_digits" / "at_bsl-seed0"
    folder.mkdir(parents=True)
    there = ROOT / "results" / "evidence" / "controls_digits" / "at_bsl-seed0"
    weights = bytearray((there / evidence_files.WEIGHTS).read_bytes())
    predictions = (there / evidence_files.PREDICTIONS).read_text()
    (folder / evidence_files.WEIGHTS).write_bytes(weights)
    (folder / evidence_files.PREDICTIONS).write_text(predictions)
    assert list(evidence_files.faults(tmp_path)) == []
    (folder / evidence_files.WEIGHTS).unlink()
    assert list(evidence_files.faults(tmp_path)) == [], "controls are kept without weights"
    weights[-1] ^= 1
    (folder / evidence_files.WEIGHTS).write_bytes(weights)
    (folder / evidence_files.PREDICTIONS).write_text(predictions.replace("\n0,1,1,", "\n0,1,2,", 1))
    assert [fault for _, fault in evidence_files.faults(tmp_path)] == [
        "weights.safetensors are not those of the card",
        "predictions.csv and the card differ in `clean`",
    ]
