"""Statements about differences: their numbers, and what the cards do not bear out."""

import pathlib
import shutil

import fabricated
import pytest

from ltrobust.analysis import cards, seeds
from tools import check_pages, claims

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIFFERENCE = """
[[claim.differences]]
folder = "digits"
first = "self_distillation"
second = "at_bsl"
column = "pgd20"
"""
TEXT = f"""
[[claim]]
page = "docs/page.md"
marker = "said"
text = '''
The tail gains {{0}} points,
{{1.mean}} overall.'''
{DIFFERENCE}view = "tail_third"
expected = "above"
{DIFFERENCE}view = "overall"
expected = "EXPECTED"
"""


@pytest.fixture
def root(tmp_path):
    """Three seeds of two methods, and one claim."""
    (tmp_path / "results" / "digits").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for seed in (0, 1, 2):
        for method in ("at_bsl", "self_distillation"):
            name = f"results/digits/{method}-seed{seed}.json"
            shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "claims.toml").write_text(TEXT.replace("EXPECTED", "any"))
    return tmp_path


def test_a_statement_has_the_numbers_of_its_cards(root):
    columns = [
        [
            cards.read(path).networks["student/last"].columns["pgd20"]
            for path in sorted(root.rglob(f"{name}-seed*.json"))
        ]
        for name in ("self_distillation", "at_bsl")
    ]
    counts = cards.read(root / "results/digits/at_bsl-seed0.json").data.class_counts
    pairs = list(zip(*columns, strict=True))
    tail, overall = (seeds.of_differences(pairs, view, counts) for view in ("tail_third", "overall"))
    assert claims.computed(root, claims.read(root)[0].differences[0]) == tail
    text = f"- The tail gains {100 * tail.mean:+.1f} [{100 * tail.low:.1f}, {100 * tail.high:.1f}] points, "
    assert claims.markers(root) == [("docs/page.md", "said")]
    assert claims.block(root, "docs/page.md", "said") == f"{text}{100 * overall.mean:+.1f} overall."
    assert claims.block(root, "docs/page.md", "other") == ""


def test_a_difference_of_differences_is_paired_by_seed(root):
    one = claims.read(root)[0].differences[0]
    swapped = claims.Difference(**(vars(one) | {"base_first": "at_bsl", "base_second": "self_distillation"}))
    assert claims.computed(root, swapped).mean == pytest.approx(2 * claims.computed(root, one).mean)


def test_a_statement_that_the_cards_do_not_bear_out_is_named(root):
    (root / "docs" / "claims.toml").write_text(TEXT.replace("EXPECTED", "below"))
    stale = list(check_pages.statements(root))
    assert "self_distillation minus at_bsl, pgd20, overall is +" in stale[-1].fault
    assert "which is not `below`" in stale[-1].fault
    with pytest.raises(ValueError, match="holds no card of trades"):
        claims.computed(root, claims.Difference("digits", "trades", "at_bsl", "pgd20", "overall", "any"))


@pytest.mark.parametrize(
    ("despite", "number"),
    [("", 2), ("Seed 1 fails P17.", 2), ("One run, seed 1, fails P03.", 2), ("One run, seed 1, fails P17.", 0)],
)
def test_a_statement_on_a_network_that_is_not_trustworthy_says_so(root, despite, number):
    def fail(card):
        card["networks"]["student/last"] |= {
            "sanity": [{"check": "gradient", "evidence": "DLR", "id": "P17", "per_class": [], "status": "fail"}],
            "sanity_verdict": "not trustworthy",
        }

    fabricated.change_card(root / "results" / "digits" / "at_bsl-seed1.json", fail)
    text = TEXT.replace("EXPECTED", "any").replace("\n[[claim.diff", f'\ndespite = "{despite}"\n[[claim.diff', 1)
    (root / "docs" / "claims.toml").write_text(text)
    stale = list(check_pages.statements(root))
    assert len(stale) == number, "one for each difference"
    assert all("at_bsl, seed 1, is not trustworthy: P17, DLR" in entry.fault for entry in stale)
    assert claims.block(root, "docs/page.md", "said").endswith(f" overall. {despite}".rstrip())
