"""The tables of the study: which rows are compared with which, and what is said of too few seeds."""

import dataclasses
import pathlib

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
