"""Kept networks give their kept predictions again."""

import pathlib

import pytest

from tools import evidence

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.ci
def test_a_kept_network_is_evaluated_again_to_the_same_predictions(tmp_path):
    folder = ROOT / "results" / "evidence" / "controls_digits" / "at_bsl-seed0"
    result = evidence.evaluate(folder, tmp_path, limit=2)
    # Tests compile with other settings than users, so that last bits of a margin may differ.
    assert sum(result.values()) <= 2
    assert result["clean"] == 0


def test_a_folder_of_predictions_alone_cannot_be_evaluated(tmp_path):
    folder = tmp_path / "results" / "evidence" / "controls_digits" / "at_bsl-seed0"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds predictions alone; only networks whose weights\.safetensors are kept"):
        evidence.evaluate(folder, tmp_path / "out")
