"""The page of a run: whole, alone, true to the cards, and honest about what it lacks."""

import base64
import html.parser
import io
import json
import re
import shutil
import subprocess

import fabricated
import numpy as np
import pytest
from PIL import Image

from ltrobust import compare, report
from ltrobust.data import sources
from ltrobust.evaluation import store
from ltrobust.reporting import tables

SECTIONS = ["summary", "classes", "tail", "confusion", "comparison", "pictures", "effort", "radius", "training"]
SECTIONS += ["sanity", "cost"]
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


def draw(workdir):
    return Page(report.write(workdir, cache_dir="").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder, card and page of a run with everything: hostile names, pictures, several protocols and radii."""
    workdir = tmp_path_factory.mktemp("runs") / "a & <b>"
    workdir.mkdir()
    fabricated.write_run(workdir, names=HOSTILE, skills={"student/last": 0.8})
    fabricated.write_run(workdir, protocol="standard", radius=16.0, names=HOSTILE, skills={"student/last": 0.75})
    card = fabricated.write_run(workdir, protocol="standard", names=HOSTILE, keep_images=True)
    return workdir, json.loads(card.read_text()), draw(workdir)


@pytest.fixture
def plain(tmp_path):
    """Folder of a run under `quick`, of one network, without pictures."""
    fabricated.write_run(tmp_path, skills={"student/last": 0.7})
    return tmp_path


def percent(estimate):
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * estimate[key] for key in ("value", "low", "high")))


def test_the_page_stands_alone_and_all_sections_are_there(run):
    _, _, page = run
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(tags)
    for tag, attributes in page.tags:
        assert attributes["src"].startswith("data:image/png;base64,") if tag == "img" else "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
        assert "url(" not in attributes.get("style", "")
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == SECTIONS
    assert [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"] == SECTIONS
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) > 10
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_the_style_sheet_fetches_nothing_and_knows_dark_and_paper():
    from ltrobust.reporting.style import STYLE

    assert not re.search(r"url\(|@import|@font-face|//", STYLE)
    assert "prefers-color-scheme: dark" in STYLE
    assert "@media print" in STYLE
    assert STYLE.count("{") == STYLE.count("}")


def test_strings_from_outside_are_text(run):
    _, _, page = run
    for name in HOSTILE[:5]:
        assert name in page.text["classes"]
    assert "3 <b>images</b>" in page.text["sanity"]
    assert "a & <b>" in page.text[""]


def test_the_headline_is_the_cards(run):
    _, card, page = run
    networks = ["teacher/last", "student/last", "student/selected"]
    assert page.rows["summary"][0] == ["", *networks]
    rows = page.rows["summary"]
    for column in ("clean", "pgd20", "worst", "autoattack"):
        start = rows.index([tables.titles(card)[column]])
        for offset, view in enumerate(["overall", "head_third", "medium_third", "tail_third", "worst"], start=1):
            found = [card["networks"][name]["columns"][column][view] for name in networks]
            assert rows[start + offset][1:] == [percent(estimate) for estimate in found]
    for text in (card["created"], card["software"]["commit"], "linf, radius 32/255", "797 of 797", "AutoAttack"):
        assert text in page.text["summary"]
    # The others are told in a line each: another protocol, another radius.
    others = [row for row in rows if row[0].startswith(("quick", "standard"))]
    assert {row[0].split(" test")[0] for row in others} == {
        "quick, linf 32/255, 797 of 797",
        "standard, linf 16/255, 797 of 797",
    }


def test_classes_confusion_and_thieves_are_the_cards(run):
    _, card, page = run
    network, counts = card["networks"]["student/last"], card["data"]["class_counts"]
    attacked = network["columns"]["autoattack"]
    assert counts == sorted(counts, reverse=True)
    for index, name in enumerate(HOSTILE):
        cells = page.row("classes", f"{name} ({counts[index]})")
        assert cells[1:] == [
            percent(attacked["per_class"][index]),
            f"{attacked['correct'][index]} of {attacked['total'][index]}",
        ]
        assert page.row("confusion", name) == [str(count) for count in network["confusion"]["autoattack"][index]]
        by, share = network["thief"][index]
        assert page.row("confusion", f"{name} ({counts[index]})") == [
            f"{HOSTILE[by]} ({counts[by]})",
            f"{100 * share:.1f}",
        ]


def test_differences_are_those_of_the_stores(run):
    workdir, card, page = run
    folders = [workdir / card["networks"][name]["verdicts"]["folder"] for name in ("student/last", "teacher/last")]
    view = compare.compare_stores(*folders)["overall"]
    cells = page.row("comparison", "all images")
    assert cells[:2] == [f"{100 * view['first']:.1f}", f"{100 * view['second']:.1f}"]
    assert cells[2].startswith(f"{100 * view['difference']:+.1f} [")
    assert cells[3:5] == [str(view["b"]), str(view["c"])]


def test_efforts_end_where_the_card_does(run):
    _, card, page = run
    columns = card["networks"]["student/last"]["columns"]
    table = [row for row in page.rows["effort"] if len(row) == 7]
    ends = {row[0]: row for row in table}
    assert ends["square"][-1] == str(sum(columns["autoattack"]["correct"]))
    assert ends["apgd-t"][1] == ends["apgd-ce"][-1] == str(sum(columns["apgd-ce"]["correct"]))
    assert ends["PGD-20"][-1] == str(sum(columns["pgd20"]["correct"]))
    assert page.row("effort", "PGD-20")[0] == percent(columns["pgd20"]["overall"])
    # Survivors never come back.
    numbers = [[int(cell) for cell in row[1:] if cell.isdigit()] for row in table[1:]]
    assert all(row == sorted(row, reverse=True) for row in numbers)
    assert len([row for row in page.rows["radius"] if row[0].startswith("student/last")]) == 2


def test_pictures_are_test_images_and_what_the_store_says_of_them(run):
    workdir, card, page = run
    folder = workdir / card["networks"]["student/last"]["verdicts"]["folder"]
    _, verdicts = store.read(folder)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    told = re.findall(r"test image (\d+); predicted (.*?), after (\S+) (.*?); change times", page.text["pictures"])
    assert len(images) == 3 * len(told) == 27
    test = sources.load("digits", "test", cache_dir="")
    for number, (identity, before, attack, after) in enumerate(told):
        drawn = [np.array(Image.open(io.BytesIO(base64.b64decode(src[22:])))) for src in images[3 * number :][:2]]
        record = verdicts[attack][int(identity)]
        np.testing.assert_array_equal(drawn[0], test.images[int(identity), ..., 0])
        kept = store.read_adversarial(folder, record, (8, 8))
        np.testing.assert_array_equal(drawn[1], np.round(255 * kept).astype(np.uint8))
        assert HOSTILE[record["prediction"]] == after != before == HOSTILE[test.labels[int(identity)]]


def test_training_and_cost_are_the_records(run):
    _, _, page = run
    assert page.text["training"].count("after epoch 4") == 2
    assert page.row("training", "6") == ["0.3333", "50.0", "60.0", "60.0", "30.0", "0.05"]
    assert page.row("training", "5")[2:5] == ["-", "-", "-"]
    assert page.row("cost", "teacher") == ["6", "17.0", "1.50", "9.5"]


def test_what_was_not_recorded_is_said(plain):
    page = draw(plain)
    assert "--config.eval.keep_images=True" in page.text["pictures"]
    assert "--config.eval.protocol=standard" in page.text["sanity"]
    assert "--config.eval.protocol=standard" in page.text["effort"]
    assert "--config.eval.checkpoint=teacher" in page.text["comparison"]
    assert "--config.threat.radius" in page.text["radius"]
    # Verdicts that are not the card's are not used.
    lines = next((plain / "verdicts").iterdir()) / "verdicts.jsonl"
    lines.write_text(lines.read_text() + "\n")
    assert "other verdicts than the card" in draw(plain).text["effort"]
    shutil.rmtree(lines.parent)
    said = draw(plain).text["effort"]
    assert "is not there any more" in said
    assert str(plain) not in said
    card = plain / "results" / "quick.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"card_version": 1}))
    page = draw(plain)
    assert "quick.json is a card of version 1" in page.text["summary"]
    assert all("Nothing is evaluated yet" in page.text[name] for name in [*SECTIONS[1:8], "sanity"])
    assert "after epoch 4" in page.text["training"]
    with pytest.raises(ValueError, match="holds no result card"):
        report.write(plain / "verdicts")


def test_only_an_untouched_page_of_ours_is_replaced(plain):
    path = report.write(plain)
    assert report.write(plain) == path
    written = path.read_bytes()
    for content in (written.replace(b"Summary", b"My words"), b"", b"mine", written + b"<!-- mine -->"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not replaced; move it away"):
            report.write(plain)
        assert path.read_bytes() == content
    path.rename(plain / "page.html")
    (plain / "page.html").write_bytes(written)
    path.symlink_to(plain / "page.html")
    with pytest.raises(ValueError, match="not replaced"):
        report.write(plain)


def test_a_hundred_classes_stay_small_and_readable(tmp_path):
    fabricated.write_run(tmp_path, classes=100, skills={"teacher/last": 0.6, "student/last": 0.75})
    page = draw(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 400_000
    assert len(page.rows["confusion"]) == 21
    assert [a["class"] for tag, a in page.tags if tag == "img"] == ["pixels wide"]
    assert len([row for row in page.rows["classes"] if row[0].startswith("class ")]) == 101


@pytest.fixture(scope="module")
def chromium():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or pytest.skip("needs Chromium to open the page in: none of its usual names is on the PATH")


def opened(chromium, path, profile):
    """What the browser prints to its console for a page, at a phone's width."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=390,800"]
    command = [chromium, *flags, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 'id="cost"' in result.stdout, result.stderr
    return [line for line in result.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_has_nothing_to_complain_of_and_a_phone_need_not_scroll_sideways(run, chromium, tmp_path):
    path = run[0] / "report.html"
    assert opened(chromium, path, tmp_path / "one") == []
    # The same page with a script, which its policy would not let run, measures itself; an image from outside is missed.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    probe = "<script>const root = document.documentElement; console.log(root.scrollWidth, innerWidth)</script>"
    copy = tmp_path / "copy.html"
    copy.write_text(text.replace("</body>", f"{probe}</body>"))
    (line,) = opened(chromium, copy, tmp_path / "two")
    width, window = map(int, re.search(r'"(\d+) (\d+)"', line).groups())
    assert width <= window <= 500
