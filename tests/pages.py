"""Pages as tests read them: parsed, and opened in a browser."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

import pytest

# Names of ten classes, five of which break a page that does not escape them.
HOSTILE = ["<script>alert(1)</script>", "\"&amp;'", "</style>", "http://example.org", "-->", *"56789"]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """What a test wants to know of a page: tags and attributes, rows of cells and text by section, scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.section = [], [], ""
        self.rows, self.text, self.scripts = {}, {}, []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attributes)["id"]
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" in self.open:
            return
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.tags[-1][1].get("type"), data))
            return
        self.text[self.section] = self.text.get(self.section, "") + data
        if self.rows.get(self.section) and {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    @property
    def charts(self):
        """Name of each chart -> its specification; the last JSON of a page holds its themes."""
        names = [attributes["data-chart"] for _, attributes in self.tags if "data-chart" in attributes]
        specs = [json.loads(text) for kind, text in self.scripts if kind == "application/json"]
        return dict(zip(names, specs[:-1], strict=True))

    def row(self, section, name):
        """The cells behind the first row of that name."""
        return next(row[1:] for row in self.rows[section] if row and row[0] == name)


def check_alone(page):
    """Asserts that a page fetches nothing and runs no script but its own; returns the charts, which have descriptions.

    The policy lets only scripts of known digests run, none of which comes from data, and forbids to compile text.
    """
    tags = [tag for tag, _ in page.tags]
    assert not {"link", "iframe", "object", "base", "form", "embed"} & set(tags)
    for tag, attributes in page.tags:
        assert attributes["src"].startswith("data:image/png;base64,") if tag == "img" else "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
        assert "url(" not in attributes.get("style", "")
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    scripts = policy.split("script-src ")[1]
    running = [text for kind, text in page.scripts if kind != "application/json"]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert scripts == " ".join(f"'sha256-{digest}'" for digest in digests)
    drawn = [attributes for _, attributes in page.tags if "data-chart" in attributes]
    assert drawn
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    assert len({attributes["data-chart"] for attributes in drawn}) == len(drawn)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    for spec in page.charts.values():
        assert not {"url", "href"} & _keys(spec)  # of data, images or links
        # A class is data, never an expression or the name of a field.
        assert not set(HOSTILE[:5]) & _code(spec)
    return drawn


def records(spec):
    """All data of a chart."""
    return [entry for values in spec["datasets"].values() for entry in values]


def _keys(part):
    """All keys of a specification."""
    if isinstance(part, dict):
        return set(part) | _keys(list(part.values()))
    return set().union(*map(_keys, part)) if isinstance(part, list) else set()


def _code(part):
    """What Vega evaluates or looks up: tests, expressions and fields."""
    if isinstance(part, list):
        return set().union(*map(_code, part))
    if not isinstance(part, dict):
        return set()
    result = {
        value for key, value in part.items() if key in ("expr", "test", "field", "labelExpr") and isinstance(value, str)
    }
    return result | set().union(*(_code(value) for key, value in part.items() if key not in ("values", "datasets")))


def browser():
    """The path of Chromium; skips the test where there is none."""
    result = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return result or pytest.skip("needs Chromium to open the page in: none of its usual names is on the PATH")


def opened(chromium, path, marker, profile):
    """What the browser prints to its console for a page, at a phone's width."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=390,800"]
    flags.append("--virtual-time-budget=20000")  # charts are drawn before the page is read
    command = [chromium, *flags, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert marker in result.stdout, result.stderr
    assert 'data-drawn="all"' in result.stdout, result.stderr
    return [line for line in result.stderr.splitlines() if "CONSOLE" in line]


def check_in_browser(chromium, path, marker, folder):
    """Asserts that the browser has nothing to complain of, and that a phone need not scroll sideways."""
    assert opened(chromium, path, marker, folder / "one") == []
    # The same page with a script, which its policy would not let run, measures itself; an image from outside is missed.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    probe = (
        "<script>const root = document.documentElement; const draw = new MutationObserver(() => "
        "console.log(root.scrollWidth, innerWidth)); draw.observe(document.body, {attributes: true})</script>"
    )
    copy = folder / "copy.html"
    copy.write_text(text.replace("</body>", f"{probe}</body>"))
    (line,) = opened(chromium, copy, marker, folder / "two")
    width, window = map(int, re.search(r'"(\d+) (\d+)"', line).groups())
    assert width <= window <= 500
