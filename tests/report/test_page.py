"""The page of a run: whole, alone, true to the cards, and honest about what it lacks."""

import base64
import importlib.resources
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

from ltrobust.analysis import cards, compare_runs, sample
from ltrobust.data import sources
from ltrobust.evaluation import store
from ltrobust.report import accuracy, run_page, tables

SECTIONS = ["summary", "tail", "pictures", "confusion", "networks", "comparison", "teacher", "effort", "radius"]
SECTIONS += ["training", "sanity", "provenance", "cost"]
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


def test_every_chart_has_a_table_behind_it_and_can_be_highlighted(run):
    _, _, page = run
    assert [tag for tag, _ in page.tags].count("noscript") == 1
    folded = [attributes for tag, attributes in page.tags if tag == "details" and attributes.get("class") == "numbers"]
    assert len(folded) >= len(page.charts)
    of_classes = [name for name, spec in page.charts.items() if '"index":' in json.dumps(spec)]
    assert {"classes-autoattack", "classes-clean", "confusion", "predictions", "difference-1", "exposure"} <= set(
        of_classes
    )
    assert all("chosen" in json.dumps(page.charts[name]["layer"]) for name in of_classes)
    shown = [attributes["value"] for tag, attributes in page.tags if tag == "option"]
    assert shown == ["-1", *map(str, range(10))]


def test_the_style_sheet_fetches_nothing_and_knows_dark_and_paper():
    style = (importlib.resources.files("ltrobust.report") / "templates" / "style.css").read_text()
    assert not re.search(r"url\(|@import|@font-face|//", style)
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert style.count("{") == style.count("}")


def test_strings_from_outside_are_text(run):
    _, _, page = run
    for name in HOSTILE[:5]:
        assert name in page.text["tail"]
        assert name in json.dumps(page.charts["confusion"], ensure_ascii=False).replace('\\"', '"')
    assert "3 <b>images</b>" in page.text["sanity"]
    assert "a & <b>" in page.text[""]


def test_very_long_names_are_shortened_and_stay_different(tmp_path):
    long = ["<script>" * 1250, "<script>" * 1250 + "b", "\n\t\x00", *"3456789"]
    fabricated.write_run(tmp_path, names=long, skills={"teacher/last": 0.6, "student/last": 0.7})
    page = draw(tmp_path)
    pages.check_alone(page)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    assert max(len(cell) for rows in page.rows.values() for row in rows for cell in row) < 2000
    shown = {entry["name"] for entry in pages.records(page.charts["confusion"]) if "name" in entry}
    assert len(shown) == 10


def test_the_large_numbers_are_the_cards(run):
    _, card, page = run
    columns = card["networks"]["student/last"]["columns"]
    estimates = [
        columns["clean"]["overall"],
        *(columns["autoattack"][view] for view in ("overall", "tail_third", "worst")),
    ]
    for estimate in estimates:
        low, high = (f"{100 * estimate[end]:.1f}" for end in ("low", "high"))
        assert f"{100 * estimate['value']:.1f} %95 % interval {low} to {high} %" in page.text["summary"].replace(
            "\n", ""
        )
    assert "Training the teacher took 17.0 s" in page.text["summary"]


def test_charts_draw_the_cards(run):
    _, card, page = run
    drawn = pages.records(page.charts["classes-autoattack"])
    for name in ("teacher/last", "student/last"):
        column = card["networks"][name]["columns"]["autoattack"]
        shown = {entry["index"]: entry for entry in drawn if entry["series"] == name}
        assert len(shown) == 10
        for index, entry in shown.items():
            for key in ("value", "low", "high"):
                assert entry[key] == pytest.approx(100 * column["per_class"][index][key])
            assert entry["detail"].startswith(f"{column['correct'][index]} of {column['total'][index]} ")
    cells = [entry for entry in pages.records(page.charts["confusion"]) if "count" in entry]
    matrix = np.zeros((10, 10), int)
    for cell in cells:
        matrix[cell["true"], cell["predicted"]] = cell["count"]
    assert matrix.tolist() == card["networks"]["student/last"]["confusion"]["autoattack"]
    predicted = [e for e in pages.records(page.charts["predictions"]) if e.get("series", "clean") != "clean"]
    ratios = [entry["value"] for entry in sorted(predicted, key=lambda entry: entry["index"])]
    np.testing.assert_allclose(ratios, matrix.sum(axis=0) / matrix.sum(axis=1))


def test_the_networks_are_the_cards(run):
    workdir, card, page = run
    networks = ["teacher/last", "student/last", "student/selected"]
    assert page.rows["networks"][0] == ["", *networks]
    rows = page.rows["networks"]
    for column in ("clean", "pgd20", "worst", "autoattack"):
        start = rows.index([tables.titles(cards.read(workdir / "results" / "standard-2.json"))[column]])
        for offset, view in enumerate(["overall", "head_third", "medium_third", "tail_third", "worst"], start=1):
            result = [card["networks"][name]["columns"][column][view] for name in networks]
            assert rows[start + offset][1:] == [percent(estimate) for estimate in result]
    for text in (card["created"], card["software"]["commit"], "linf, radius 32/255", "797 of 797", "AutoAttack"):
        assert text in page.text["provenance"]
    # The others have a line each: another protocol, another radius.
    others = [row for row in page.rows["summary"] if row[0].startswith(("quick", "standard"))]
    assert {row[0].split(" test")[0] for row in others} == {
        "quick, linf 32/255, 797 of 797",
        "standard, linf 16/255, 797 of 797",
    }


def test_classes_confusion_and_thieves_are_the_cards(run):
    _, card, page = run
    network, counts = card["networks"]["student/last"], card["data"]["class_counts"]
    attacked = network["columns"]["autoattack"]
    assert page.rows["tail"][0][3:] == ["student/last, %", "student/last, right"]
    assert counts == sorted(counts, reverse=True)
    for index, name in enumerate(HOSTILE):
        cells = page.row("tail", f"{name} ({counts[index]})")
        assert cells[2:] == [
            percent(attacked["per_class"][index]),
            f"{attacked['correct'][index]} of {attacked['total'][index]}",
        ]
        assert page.row("confusion", name) == [str(count) for count in network["confusion"]["autoattack"][index]]
        by, share = network["most_frequent_confusion"][index].values()
        (frequent,) = (row for row in page.rows["confusion"] if row[0] == f"{name} ({counts[index]})" and len(row) == 3)
        assert frequent[1:] == [
            f"{HOSTILE[by]} ({counts[by]})",
            f"{100 * share:.1f}",
        ]


def test_differences_are_those_of_the_stores(run):
    workdir, card, page = run
    teacher, student = (
        str(workdir / card["networks"][name]["verdicts"]["folder"]) for name in ("teacher/last", "student/last")
    )
    view = compare_runs.compare_all([teacher, student]).comparisons[0].result.overall
    cells = page.row("comparison", "all images")
    assert cells[:2] == [f"{100 * view.first:.1f}", f"{100 * view.second:.1f}"]
    assert cells[2].startswith(f"{100 * view.difference:+.1f} [")
    assert cells[3:5] == [str(view.test.b), str(view.test.c)]


def test_teacher_and_student_are_the_cards_and_the_stores(run):
    workdir, card, page = run
    counts = card["data"]["class_counts"]
    rows = [row for row in page.rows["teacher"] if row[0].startswith(HOSTILE[9])]
    exposure, sure, _ = rows  # the third is of the student
    assert exposure[1:4] == ["27", f"{27 / counts[9]:.2f}", "10.0"]
    assert exposure[4:] == [f"{counts[9]}", "1.00", f"{100 * counts[9] / sum(counts):.1f}"]
    left_out = sum(max(count - 27, 0) for count in counts)
    assert f"{left_out:,} of {sum(counts):,} training images are left out, the same ones" in page.text["teacher"]
    # Fabricated: 0.875 clean; attacked 0.75 where right to the end, 0.125 where broken.
    assert sure[1].startswith("87.5 [")
    verdicts = [store.read(workdir / card["networks"][f"{name}/last"]["verdicts"]["folder"]) for name in PHASES]
    _, labels, teacher = store.correct(*verdicts[0])
    _, _, student = store.correct(*verdicts[1])
    clean = np.array([verdicts[0][1]["clean"][image].prediction for image in range(len(labels))]) == labels
    nine = labels == 9
    expected = np.mean(np.where(teacher, 0.75, np.where(clean, 0.125, 0.875))[nine])
    assert sure[2].startswith(f"{100 * expected:.1f} [")
    shares = page.row("teacher", "all images")
    outcomes = (teacher & student, teacher & ~student, student & ~teacher, ~teacher & ~student)
    assert shares[:5] == [str(len(labels)), *(f"{100 * result.mean():.1f}" for result in outcomes)]
    assert "tail" in [row[0] for row in page.rows["teacher"]]


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
    provenance, verdicts = store.read(folder)
    ids, _, right = store.correct(provenance, verdicts)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    pattern = r"([^\n]*?): (\d+\.\d)\s%\s*([^\n]*?): (\d+\.\d)\s%\s*change, \S+ times\s*"
    pattern += r"(head|middle|tail) (survives|breaks): [^\n]*? test image (\d+), (\S+)"
    captions = re.findall(pattern, page.text["pictures"])
    # One image of each kind and group; the last class is broken always.
    assert len(images) == 3 * len(captions) == 18
    assert [caption[4:6] for caption in captions] == [
        (g, w) for w in ("survives", "breaks") for g in ("head", "middle", "tail")
    ]
    test = sources.load("digits", "test", cache_dir="")
    for place, (before, sure, after, unsure, _, what, identity, attack) in enumerate(captions):
        drawn = [np.array(Image.open(io.BytesIO(base64.b64decode(src[22:])))) for src in images[3 * place :][:2]]
        record = verdicts[attack][int(identity)]
        assert right[ids == int(identity)] == [what == "survives"]
        np.testing.assert_array_equal(drawn[0], test.images[int(identity), ..., 0])
        kept = store.read_adversarial(folder, record, (8, 8))
        np.testing.assert_array_equal(drawn[1], np.round(255 * kept).astype(np.uint8))
        assert before == HOSTILE[test.labels[int(identity)]]
        assert after == HOSTILE[record.prediction]
        assert (before == after) == (what == "survives")
        # The predicted class's, not the true one's.
        assert (sure, unsure) == ("93.8", "75.0" if what == "survives" else "62.5")


def test_a_run_as_the_default_one_fills_every_section(tmp_path):
    labels = sources.load("digits", "test", cache_dir="").labels
    kept = sample.choose(labels, np.arange(len(labels)), np.arange(100, 0, -10), (8, 8, 1))
    student = {"student/last": 0.75}
    fabricated.write_run(tmp_path, protocol="standard", limit=6, skills=student)
    for radius in (16.0, 48.0):
        fabricated.write_run(tmp_path, radius=radius, skills=student)
    fabricated.write_run(tmp_path, kept=kept)
    page = draw(tmp_path)
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == SECTIONS
    # The number of few images says so; curves and checks are of the same evaluation.
    assert re.search(r"AutoAttack\s*\d+\.\d %\s*95 %[^%]*%\s*60 of 797 test images under", page.text["summary"])
    assert "linf 32/255, 60 of 797 test images" in page.text["effort"]
    assert "60 of 797 test images" in page.text["sanity"]
    assert page.row("effort", "apgd-ce")
    assert [row[1] for row in page.rows["radius"] if row[0].startswith("student/last")] == ["16", "32", "48"]
    # All other numbers are of all images.
    assert sum(int(row[1]) for row in page.rows["confusion"] if len(row) == 6 and row[1].isdigit()) == 797
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 18


def test_training_and_cost_are_the_records(run):
    _, _, page = run
    assert page.text["training"].count("after epoch 4") == 2
    assert page.row("training", "6") == ["0.3333", "50.0", "60.0", "60.0", "30.0", "0.05"]
    assert page.row("training", "5")[2:5] == ["-", "-", "-"]
    assert page.row("cost", "teacher") == ["6", "17.0", "1.50", "9.5"]


def test_what_was_not_recorded_is_a_line_at_the_end(plain):
    page = draw(plain)
    text = page.text["missing"]
    for option in ("eval.keep_images=True", "eval.protocol=standard", "eval.checkpoint=teacher", "threat.radius"):
        assert f"--config.{option}" in text
    assert not {"pictures", "comparison", "radius", "sanity"} & set(page.text)
    assert [a["id"] for tag, a in page.tags if tag == "section"][-1] == "missing"
    # Verdicts that are not the card's are not used.
    lines = next((plain / "verdicts").iterdir()) / "verdicts.jsonl"
    lines.write_text(lines.read_text() + "\n")
    assert "other verdicts than the card" in draw(plain).text["missing"]
    shutil.rmtree(lines.parent)
    text = draw(plain).text["missing"]
    assert "is not there any more" in text
    assert str(plain) not in text
    card = plain / "results" / "quick.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"card_version": 1}))
    page = draw(plain)
    assert "quick.json is a card of version 1" in page.text["missing"]
    assert "nothing is evaluated yet" in page.text["missing"]
    assert [a["id"] for tag, a in page.tags if tag == "section"] == ["training", "cost", "missing"]
    assert "after epoch 4" in page.text["training"]
    with pytest.raises(ValueError, match="holds no result card"):
        run_page.write(plain / "verdicts")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.update(networks={}), "no network or no evaluated image"),
        (lambda card: card["data"].update(evaluated=0), "no network or no evaluated image"),
        (lambda card: card["software"].pop("commit"), "its software names no commit"),
        (
            lambda card: card["networks"]["student/last"]["columns"].pop("clean"),
            "lacks one of its columns clean, worst",
        ),
        (lambda card: card["networks"]["student/last"]["confusion"].update(clean=[[1]]), "have different lengths"),
    ],
)
def test_a_card_that_contradicts_itself_is_named_and_not_shown(plain, change, message):
    fabricated.change_card(plain / "results" / "quick.json", change)
    assert message in draw(plain).text["missing"]


def test_options_stay_whole(plain):
    command = "main.py --config.eval.also=({0:(1,)},) (--config.seed=1)."
    fabricated.change_card(plain / "results" / "quick.json", lambda card: card.update(command=command))
    words = re.findall("<code[^>]*>([^<]*)</code>", run_page.write(plain, cache_dir="").read_text())
    assert {"--config.eval.also=({0:(1,)},)", "--config.seed=1"} <= set(words)


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


@pytest.mark.slow
def test_a_hundred_classes_stay_small_and_readable(tmp_path):
    fabricated.write_run(tmp_path, classes=100, skills={"teacher/last": 0.6, "student/last": 0.75})
    page = draw(tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    pages.check_alone(page)
    cells = [entry for entry in pages.records(page.charts["confusion"]) if "count" in entry]
    assert sum(cell["count"] for cell in cells) == 2000
    assert page.charts["confusion"]["usermeta"] == {"renderer": "canvas"}  # so many elements are slow as SVG
    # Classes by accuracy, clean and attacked, each with its header.
    assert len([row for row in page.rows["tail"] if row[0].startswith("class ")]) == 2 * 101


def test_a_thousand_classes_are_a_picture():
    matrix = np.eye(1000, dtype=int)
    picture = accuracy.matrix_picture(matrix, range(1000))
    assert np.array(Image.open(io.BytesIO(base64.b64decode(picture[22:]))))[..., 3].sum() == 255 * 1000
    assert len(picture) < 200_000


@pytest.fixture(scope="module")
def chromium():
    return pages.browser()


def test_a_browser_has_nothing_to_complain_of_and_a_phone_need_not_scroll_sideways(run, chromium, tmp_path):
    pages.check_in_browser(chromium, run[0] / "report.html", 'id="cost"', tmp_path)
