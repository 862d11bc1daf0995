"""Words and links of pages are counted as they are defined."""

from tools import check_pages, words

PAGE = """# Two words

One $a b + c$ [link](https://example.org) and `configs/digits.py`, | a | 3 |
<!-- table:begin -->
many generated words
<!-- table:end -->
<!-- a comment -->

```bash
ltrobust config  # [no](link)
```
"""


def test_generated_words_and_comments_do_not_count(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs" / "guides").mkdir(parents=True)
    (tmp_path / "docs" / "guides" / "a.md").write_text(PAGE)
    (tmp_path / "CHANGELOG.md").write_text("words " * 100)
    assert words.counts(tmp_path) == {"CHANGELOG.md": (100, 0, 0), "docs/guides/a.md": (13, 1, 1)}
    assert words.total(tmp_path) == 13
    monkeypatch.setattr(words, "LIMIT", 13)
    assert words.main(tmp_path) == 0
    assert list(check_pages.length(tmp_path)) == []
    monkeypatch.setattr(words, "LIMIT", 12)
    assert words.main(tmp_path) == 1
    assert [stale.fault for stale in check_pages.length(tmp_path)] == ["13 hand-written words are more than 12"]
    assert "   13      1         1  docs/guides/a.md" in capsys.readouterr().out
