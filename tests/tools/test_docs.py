"""The documentation's site is built without a warning, needs no network, and does not hide dead links."""

import os
import re
import shutil
import urllib.parse

import pytest

from tools import docs

pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.ci]


def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path):
    assert docs.build(tmp_path / "site") == 0
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*src=\"(\w+:)?//|<link[^>]*href=\"(\w+:)?//", text)
        assert loaded == [], page
        # Links to other pages lead to files of the site.
        for target in re.findall(r"<a[^>]*href=\"([^\"#:]+)(?:#[^\"]*)?\"", text):
            assert (page.parent / urllib.parse.unquote(target)).exists(), (page, target)
    assert "def create(" in re.sub(
        r"<[^>]+>", "", (tmp_path / "site/source/ltrobust/models/__init__.py.html").read_text()
    )


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("[a page](other.md#a-heading) [a file](../pyproject.toml) [a folder](../docs/) $x^2$", 0),
        ("[a page](gone.md)", 1),
        ("[a heading](other.md#gone)", 1),
        ("[a file](../gone.py)", 1),
        ("![a picture](gone.svg)", 1),
    ],
)
def test_dead_links_fail_the_build(tmp_path, monkeypatch, capfd, line, status):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("conf.py", "site_parts.py"):
        shutil.copy(docs.ROOT / "docs" / name, folder)
    for name in ("templates", "static"):
        shutil.copytree(docs.ROOT / "docs" / name, folder / name)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (folder / "index.md").write_text(f"# Start\n\n{line}\n\n```{{toctree}}\nother\n```\n")
    (folder / "other.md").write_text("# Other\n\n## A heading\n")
    monkeypatch.setenv("PYTHONPATH", str(docs.ROOT), prepend=os.pathsep)
    monkeypatch.setattr(docs, "ROOT", tmp_path)

    assert docs.build(tmp_path / "site") == status, capfd.readouterr().err
    if not status:
        page = (tmp_path / "site" / "docs" / "index.html").read_text()
        assert "<msup>" in page
        assert 'href="../source/pyproject.toml.html"' in page
