"""The page of a run: whole, alone, true to the cards, and honest about what it lacks."""

import base64
import io
import json
import re
import shutil

import fabricated
import numpy as np
import pages
import pytest
from pages import HOSTILE, Page
from PIL import Image

from ltrobust.analysis import cards, compare_runs
from ltrobust.data import sources
from ltrobust.evaluation import store
from ltrobust.report import run_page, tables

SECTIONS = ["summary", "classes", "tail", "confusion", "comparison", "teacher", "pictures", "effort", "radius"]
SECTIONS += ["training", "sanity", "cost"]
PHASES = ("teacher", "student")


def draw(workdir):
    return Page(run_page.write(workdir, cache_dir="").read_text())


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
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == SECTIONS
    assert [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"] == SECTIONS
    assert len(pages.check_alone(page)) > 10


def test_the_style_sheet_fetches_nothing_and_knows_dark_and_paper():
    from ltrobust.report.style import STYLE

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
    view = compare_runs.compare_stores(*folders)["overall"]
    cells = page.row("comparison", "all images")
    assert cells[:2] == [f"{100 * view['first']:.1f}", f"{100 * view['second']:.1f}"]
    assert cells[2].startswith(f"{100 * view['difference']:+.1f} [")
    assert cells[3:5] == [str(view["b"]), str(view["c"])]


def test_teacher_and_student_are_the_cards_and_the_stores(run):
    workdir, card, page = run
    counts = card["data"]["class_counts"]
    rows = [row for row in page.rows["teacher"] if row[0].startswith(HOSTILE[9])]
    exposure, sure = rows
    assert exposure[1:4] == ["27", f"{27 / counts[9]:.2f}", "10.0"]
    assert exposure[4:] == [f"{counts[9]}", "1.00", f"{100 * counts[9] / sum(counts):.1f}"]
    left_out = sum(max(count - 27, 0) for count in counts)
    assert f"{left_out:,} of {sum(counts):,} training images are left out, the same ones" in page.text["teacher"]
    # Fabricated: 0.875 clean; attacked 0.75 where right to the end, 0.125 where broken.
    assert sure[1].startswith("87.5 [")
    verdicts = [store.read(workdir / card["networks"][f"{name}/last"]["verdicts"]["folder"]) for name in PHASES]
    _, labels, teacher = store.correct(*verdicts[0])
    _, _, student = store.correct(*verdicts[1])
    clean = np.array([verdicts[0][1]["clean"][image]["prediction"] for image in range(len(labels))]) == labels
    nine = labels == 9
    expected = np.mean(np.where(teacher, 0.75, np.where(clean, 0.125, 0.875))[nine])
    assert sure[2].startswith(f"{100 * expected:.1f} [")
    shares = page.row("teacher", "all images")
    outcomes = (teacher & student, teacher & ~student, student & ~teacher, ~teacher & ~student)
    assert shares[:5] == [str(len(labels)), *(f"{100 * found.mean():.1f}" for found in outcomes)]
    assert "tail" in [row[0] for row in page.rows["teacher"]]


def test_verdicts_without_probabilities_are_read_and_said_so(run, tmp_path):
    workdir, _, _ = run
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    (copy / "report.html").unlink()
    for path in (copy / "results").glob("*.json"):
        old = json.loads(path.read_text())
        for network in old["networks"].values():
            lines = copy / network["verdicts"]["folder"] / "verdicts.jsonl"
            records = [json.loads(line) for line in lines.read_text().splitlines()]
            plain = [{k: v for k, v in r.items() if k not in ("probability", "crc")} for r in records]
            lines.write_bytes(b"".join(map(store.encode, plain)))
            network["verdicts"]["sha256"] = cards.digest_file(lines)
        path.write_text(json.dumps(old))
    page = draw(copy)
    assert "before probabilities were recorded" in page.text["teacher"]
    assert page.row("teacher", "all images")
    assert "is not there any more" not in page.text["effort"]


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
    assert all("Nothing is evaluated yet" in page.text[name] for name in [*SECTIONS[1:9], "sanity"])
    assert "after epoch 4" in page.text["training"]
    with pytest.raises(ValueError, match="holds no result card"):
        run_page.write(plain / "verdicts")


def test_only_an_untouched_page_of_ours_is_replaced(plain):
    path = run_page.write(plain)
    assert run_page.write(plain) == path
    written = path.read_bytes()
    for content in (written.replace(b"Summary", b"My words"), b"", b"mine", written + b"<!-- mine -->"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not replaced; move it away"):
            run_page.write(plain)
        assert path.read_bytes() == content
    path.rename(plain / "page.html")
    (plain / "page.html").write_bytes(written)
    path.symlink_to(plain / "page.html")
    with pytest.raises(ValueError, match="not replaced"):
        run_page.write(plain)


def test_a_hundred_classes_stay_small_and_readable(tmp_path):
    fabricated.write_run(tmp_path, classes=100, skills={"teacher/last": 0.6, "student/last": 0.75})
    page = draw(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 400_000
    assert len(page.rows["confusion"]) == 21
    assert [a["class"] for tag, a in page.tags if tag == "img"] == ["pixels wide"]
    assert len([row for row in page.rows["classes"] if row[0].startswith("class ")]) == 101


@pytest.fixture(scope="module")
def chromium():
    return pages.browser()


def test_a_browser_has_nothing_to_complain_of_and_a_phone_need_not_scroll_sideways(run, chromium, tmp_path):
    pages.check_in_browser(chromium, run[0] / "report.html", 'id="cost"', tmp_path)
