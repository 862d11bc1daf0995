"""Pages as tests read them: parsed, and opened in a browser."""

import html.parser
import re
import shutil
import subprocess

import pytest

# Names of ten classes, five of which break a page that does not escape them.
HOSTILE = ["<script>alert(1)</script>", "\"&amp;'", "</style>", "http://example.org", "-->", *"56789"]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(html.parser.HTMLParser):
    """What a test wants to know of a page: tags and attributes, rows of cells and text by section."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.section = [], [], ""
        self.rows, self.text = {}, {}
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
        self.text[self.section] = self.text.get(self.section, "") + data
        if self.rows.get(self.section) and {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data

    def row(self, section, name):
        """The cells behind the first row of that name."""
        return next(row[1:] for row in self.rows[section] if row and row[0] == name)


def check_alone(page):
    """Asserts that a page has no script and fetches nothing, and that its charts and images have descriptions."""
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(tags)
    for tag, attributes in page.tags:
        assert attributes["src"].startswith("data:image/png;base64,") if tag == "img" else "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
        assert "url(" not in attributes.get("style", "")
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    drawn = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert drawn
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in drawn)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    return drawn


def browser():
    """The path of Chromium; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or pytest.skip("needs Chromium to open the page in: none of its usual names is on the PATH")


def opened(chromium, path, marker, profile):
    """What the browser prints to its console for a page, at a phone's width."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=390,800"]
    command = [chromium, *flags, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert marker in result.stdout, result.stderr
    return [line for line in result.stderr.splitlines() if "CONSOLE" in line]


def check_in_browser(chromium, path, marker, folder):
    """Asserts that the browser has nothing to complain of, and that a phone need not scroll sideways."""
    assert opened(chromium, path, marker, folder / "one") == []
    # The same page with a script, which its policy would not let run, measures itself; an image from outside is missed.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    probe = "<script>const root = document.documentElement; console.log(root.scrollWidth, innerWidth)</script>"
    copy = folder / "copy.html"
    copy.write_text(text.replace("</body>", f"{probe}</body>"))
    (line,) = opened(chromium, copy, marker, folder / "two")
    width, window = map(int, re.search(r'"(\d+) (\d+)"', line).groups())
    assert width <= window <= 500
