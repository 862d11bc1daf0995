"""Tables in the pages are those of the committed cards; numbers over seeds are the textbook's."""

import pathlib

import pytest

from ltrobust.reporting import cards, summary

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/reproducing.md"])
def test_tables_equal_the_cards(page):
    text = (ROOT / page).read_text()
    assert summary.inserted(text, summary.results(ROOT)) == text, "run: python -m ltrobust.reporting.summary"


def test_committed_cards_are_complete_and_name_clean_commits():
    found = [card for folder in (ROOT / "results").iterdir() for card in summary.load(folder)]
    assert found
    for card in found:
        assert set(cards.REQUIRED) <= set(card)
        for run in card["training"].values():
            assert len(run["software"]["commit"]) == 40, "trained from an edited checkout"
        assert card["data"]["evaluated"] == card["data"]["test_images"]


def test_over_seeds_is_mean_deviation_and_t_interval():
    # Three seeds: the half-width is 4.303 / sqrt(3) deviations.
    assert summary.over_seeds([0.1, 0.2, 0.3]) == "20.00 ± 10.00 [-4.84, 44.84]"
    assert summary.one_run({"value": 0.25, "low": 0.2, "high": 0.3125}) == "25.00 [20.00, 31.25]"


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="once each"):
        summary.inserted("text", "block")


def test_cards_are_never_overwritten_and_never_incomplete(tmp_path):
    card = dict.fromkeys(cards.REQUIRED, float("nan"))
    first, second = cards.write(tmp_path, "quick", card), cards.write(tmp_path, "quick", card)
    assert (first.name, second.name) == ("quick.json", "quick-2.json")
    assert "NaN" not in first.read_text()
    del card["threat"]
    with pytest.raises(ValueError, match="lacks threat"):
        cards.write(tmp_path, "quick", card)


def test_the_command_on_a_card_names_no_folder(monkeypatch):
    words = ["/home/someone/main.py", "--config=configs/digits.py", "--workdir=/home/x", "--config.data.dir=/home/y"]
    monkeypatch.setattr("sys.argv", words)
    assert cards.command() == "main.py --config=configs/digits.py"
