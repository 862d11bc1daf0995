"""Statements about differences: their numbers, and what the cards do not bear out."""

import pathlib
import re
import shutil

import fabricated
import pytest

from ltrobust.analysis import cards, seeds
from ltrobust.analysis.intervals import SeedMean
from tools import check_pages, claim_file, claims

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
expected = "open"
{DIFFERENCE}view = "overall"
expected = "EXPECTED"
"""
# A statement that shows nothing.
MORE = f"""
[[claim]]
page = "docs/page.md"
marker = "moreNUMBER"
text = "{{0}}"
{DIFFERENCE.replace('"self_distillation"', '"at_bsl"')}view = "overall"
expected = "any"
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
    assert claims.computed(root, claims.read(root)[0].differences[0]) == (tail, [0, 1, 2])
    text = f"- The tail gains {100 * tail.mean:+.1f} [{100 * tail.low:.1f}, {100 * tail.high:.1f}] points, "
    assert claims.markers(root) == [("docs/page.md", "said")]
    sentence, _, note = claims.block(root, "docs/page.md", "said").split("\n")
    assert sentence == f"{text}{100 * overall.mean:+.1f} overall."
    assert note.startswith("Exploratory, 3 pairs of seeds.")
    assert "this page's statements (2 tests) none has p below 0.05. So few seeds" in note
    assert note.endswith(" None of these networks had the panel of sanity checks.")
    assert claims.block(root, "docs/page.md", "other") == ""


def test_a_difference_of_differences_is_paired_by_seed(root):
    one = claims.read(root)[0].differences[0]
    swapped = claim_file.Difference(**(vars(one) | {"base_first": "at_bsl", "base_second": "self_distillation"}))
    double, single = (claims.computed(root, each).points.mean for each in (swapped, one))
    assert double == pytest.approx(2 * single)


def test_differences_are_marked_where_they_stand_after_the_correction_over_their_page(root, monkeypatch):
    p_values = {"tail_third": 0.03, "overall": 0.001}

    def computed(root, difference):
        p = p_values[difference.view] if difference.first != difference.second else 0.5
        return claims.Result(SeedMean(0.1, 0.01, 0.05, 0.15, p), [0, 1, 2])

    monkeypatch.setattr(claims, "computed", computed)
    sentence, _, note = claims.block(root, "docs/page.md", "said").split("\n")
    assert sentence == "- The tail gains +10.0 [5.0, 15.0] ‡ points, +10.0 overall."
    assert "this page's statements (2 tests) 2 have p below 0.05 (marked ‡)" in note
    # Beside twenty that show nothing, under other markers of the same page, the limit is another.
    others = "".join(MORE.replace("NUMBER", str(number)) for number in range(20))
    (root / "docs" / "claims.toml").write_text((TEXT + others).replace("EXPECTED", "any"))
    sentence, _, note = claims.block(root, "docs/page.md", "said").split("\n")
    assert sentence == "- The tail gains +10.0 [5.0, 15.0] points, +10.0 overall."
    assert "this page's statements (3 tests) 1 has p below" in note, "the same difference is one test"


def test_the_primary_comparison_is_no_member_of_the_family(root):
    (root / "docs" / "claims.toml").write_text(
        TEXT.replace('"open"', '"open"\nprimary = true').replace("EXPECTED", "any")
    )
    text = claims.block(root, "docs/page.md", "said")
    assert "(1 tests)" in text
    assert "\nExploratory but for the primary comparison, 3 pairs" in text


def test_kept_predictions_give_the_error_of_the_verdicts(root):
    for kind in ("sweeps", "evidence"):
        (root / "results" / kind).mkdir()
        (root / "results" / kind / "controls_digits").symlink_to(ROOT / "results" / kind / "controls_digits")
    one = claim_file.Difference(
        "sweeps/controls_digits", "self_distillation", "at_bsl", "autoattack", "head_third", "any"
    )
    kept = claims.computed(root, one).points
    (root / "results" / "evidence" / "controls_digits").unlink()
    independent = claims.computed(root, one).points
    assert kept.mean == independent.mean
    assert kept.high - kept.low < independent.high - independent.low


def test_a_teacher_that_is_not_the_student_s_is_named(root):
    def swap(card):
        card["training"]["student"]["teachers"]["teacher"]["params_sha256"] = "0" * 64

    (root / "results" / "sweeps").mkdir()
    shutil.copytree(ROOT / "results" / "sweeps" / "controls_digits", root / "results" / "sweeps" / "controls_digits")
    text = TEXT.replace('second = "at_bsl"', 'second = "self_distillation:teacher/last"').replace("EXPECTED", "any")
    (root / "docs" / "claims.toml").write_text(text.replace('folder = "digits"', 'folder = "sweeps/controls_digits"'))
    assert not list(claims.strangers(root))
    fabricated.change_card(root / "results" / "sweeps" / "controls_digits" / "self_distillation-seed1.json", swap)
    stale = [entry.fault for entry in check_pages.statements(root)]
    assert sum("teacher/last, seed 1, is not the teacher of self_distillation" in fault for fault in stale) == 2


def test_a_statement_that_the_cards_do_not_bear_out_is_named(root):
    (root / "docs" / "claims.toml").write_text(TEXT.replace("EXPECTED", "below"))
    stale = list(check_pages.statements(root))
    assert "self_distillation minus at_bsl, pgd20, overall is +" in stale[-1].fault
    assert "which is not `below`" in stale[-1].fault
    with pytest.raises(ValueError, match="holds no card of trades"):
        claims.computed(root, claim_file.Difference("digits", "trades", "at_bsl", "pgd20", "overall", "any"))


BAD = {
    "a key that no claim has": ('marker = "said"', 'marker = "said"\ndispite = "x"', "unknown ['dispite']"),
    "a key that no difference has": ('column = "pgd20"', 'column = "pgd20"\ncolour = "x"', "unknown ['colour']"),
    "a missing key": ('column = "pgd20"\n', "", "missing ['column']"),
    "an unknown view": ('view = "tail_third"', 'view = "tail"', "view is 'tail'; choose one of overall, balanced"),
    "an unknown outcome": ('"open"', '"up"', "expected is 'up'; choose one of above, below, open, any"),
    "one base": ('"open"', '"open"\nbase_first = "at_bsl"', "base_first or base_second is missing"),
    "a base of minima": (
        'view = "tail_third"',
        'view = "worst"\nbase_first = "at_bsl"\nbase_second = "at_bsl"',
        "changes of minima have no valid interval",
    ),
    "a number too many": ("{{1.mean}}".replace("{{", "{").replace("}}", "}"), "{2}", "names [0, 2] of 2 differences"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_claim_that_cannot_be_read_is_refused_by_name(root, case):
    old, new, message = BAD[case]
    assert old in TEXT
    (root / "docs" / "claims.toml").write_text(TEXT.replace(old, new, 1).replace("EXPECTED", "any"))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        claim_file.read(root)
    assert "The tail gains" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"), [('"pgd20"', '"autoattack"'), ('second = "at_bsl"', 'second = "at_bsl:student/ema"')]
)
def test_a_column_or_network_that_the_cards_lack_is_named(root, old, new):
    (root / "docs" / "claims.toml").write_text(TEXT.replace(old, new).replace("EXPECTED", "any"))
    with pytest.raises(ValueError, match=r"the card of .*, seed 0, has no column `.*` of student/"):
        claims.block(root, "docs/page.md", "said")


def test_no_claims_are_no_statements(root):
    (root / "docs" / "claims.toml").write_text("")
    assert claims.markers(root) == []


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
    sentence, _, _ = claims.block(root, "docs/page.md", "said").split("\n")
    assert sentence.endswith(f" overall. {despite}".rstrip())
