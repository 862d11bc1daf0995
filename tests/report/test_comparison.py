"""The text of a comparison: every row, numbers in percent, and no winner without evidence."""

import dataclasses
import json

import numpy as np
import pytest

from ltrobust.analysis.compare import compare
from ltrobust.analysis.schema.paired import PairedComparison
from ltrobust.report.comparison import render
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import write_json

NAMES = ("teacher", "student")


def compared(table, training_counts=None):
    """A comparison from one row (both, only first, only second, neither) per class."""
    outcome = np.concatenate([np.repeat([0, 1, 2, 3], row) for row in table])
    labels = np.repeat(np.arange(len(table)), np.sum(table, axis=1))
    return compare(np.isin(outcome, [0, 1]), np.isin(outcome, [0, 2]), labels, len(table), training_counts)


def row(text, start):
    """Cells of the one line that starts with a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_rows_and_numbers():
    result = compared([(45, 25, 10, 20), (50, 10, 30, 10)], np.array([500, 10]))
    text = render(result, NAMES, ["cat", "dog"])
    assert "teacher minus student, the same 200 test images" in text
    assert row(text, "overall")[:4] == ["overall", "65.00", "67.50", "-2.50"]
    assert row(text, "overall")[-1] == "no difference shown"
    assert row(text, "few_count (1 class)")[5:9] == ["10", "30", "0.0022", "0.0015"]
    assert row(text, "few_count")[-1] == "student"
    assert row(text, "many_count")[-1] == "teacher"
    assert row(text, "worst class ")[5:10] == ["-"] * 5
    assert "worst class: dog of teacher, cat of student." in text
    assert row(text, "cat")[:7] == ["cat", "100", "70.00", "55.00", "+15.00", "25", "10"]
    assert row(text, "cat")[7:] == ["0.0167", "0.0113", "0.0167", "teacher"]
    assert row(text, "dog")[-3:] == ["0.0015", "0.0044", "student"]
    for definition in ("third: by index", "rare80: the rarest", "count: many >= 100", "rarest1: the rarest class"):
        assert definition in text


def test_the_text_is_the_same_from_json(tmp_path):
    result = compared([(45, 25, 10, 20), (0, 0, 0, 0), (50, 10, 30, 10)], np.array([500, 50, 10]))
    write_json(tmp_path / "comparison.json", typed_json.plain(result))
    read = typed_json.parse(PairedComparison, json.loads((tmp_path / "comparison.json").read_text()))
    text = render(read, NAMES)
    assert text == render(result, NAMES)
    assert "without test images, left out: 1." in text
    assert "corrected by Holm over 2 classes" in text


def test_nobody_is_ahead_of_itself():
    text = render(compared([(10, 0, 0, 10)] * 3), NAMES)
    assert text.count("no difference shown") == 3 + 3
    assert "groups, means over classes" not in text


def test_few_differing_images_show_nothing_though_their_interval_excludes_0():
    result = compared([(500, 5, 0, 495)])
    assert result.overall.low > 0
    assert result.balanced.low > 0
    text = render(result, NAMES)
    assert row(text, "overall")[-4:-2] == ["0.0625", "0.0312"]
    assert row(text, "overall")[-2:] == ["0.1250", "no difference shown"]
    assert row(text, "balanced (1 class)")[-1] == "no difference shown"


def test_a_mean_over_unequal_classes_is_not_judged_by_the_pooled_test():
    # 30 lost of 1,000 images and 30 won of 100: pooled, nothing differs.
    text = render(compared([(400, 0, 30, 570), (30, 30, 0, 40)]), NAMES)
    assert row(text, "balanced")[5:] == ["30", "30", "1.0000", "1.0000", "1.0000", "teacher"]
    assert row(text, "overall")[-1] == "no difference shown"


def test_of_many_classes_only_those_that_differ_are_printed():
    rows = [(20, 3, 2, 25)] * 30
    assert "none of 30 classes differs at corrected p < 0.05" in render(compared(rows), NAMES)
    text = render(compared([*rows[:29], (10, 0, 30, 10)]), NAMES)
    assert "1 of 30 classes, those with corrected p < 0.05" in text
    assert row(text, "29 ")[-4:] == ["<0.0001", "<0.0001", "<0.0001", "student"]


def test_a_biased_interval_beside_its_value_shows_nothing():
    result = compared([(40, 10, 10, 40)] * 2)
    worst = dataclasses.replace(result.worst, difference=0.0, low=-0.2, high=-0.01)
    result = dataclasses.replace(result, worst=worst)
    assert row(render(result, NAMES), "worst class ")[-1] == "no difference shown"


def test_tables_are_refused_without_different_names():
    result = compared([(1, 1, 1, 1)] * 2)
    with pytest.raises(ValueError, match="both models are called 'a'"):
        render(result, ("a", "a"))
    with pytest.raises(ValueError, match="3 class names for 2 classes"):
        render(result, NAMES, ["x", "y", "z"])
