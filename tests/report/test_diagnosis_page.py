"""The command and the page of a class-wise diagnosis: a card's numbers, text stays text, nothing is overwritten."""

import json
import shutil

import fabricated
import pages
import pytest
from pages import HOSTILE, Page

from ltrobust.analysis import diagnose_runs
from ltrobust.commands import diagnose
from ltrobust.report import run_page

SECTIONS = [
    "summary",
    "classes",
    "spread",
    "consistency",
    "confusion",
    "targets",
    "temperature",
    "norms",
    "missing",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Workdir, card, JSON and page of two networks with hostile class names under `diagnose`."""
    workdir = tmp_path_factory.mktemp("runs") / "a & <b>"
    workdir.mkdir()
    skills = {"teacher/last": 0.6, "student/last": 0.8}
    card = fabricated.write_run(workdir, protocol="diagnose", names=HOSTILE, skills=skills)
    stores = [workdir / "verdicts" / f"diagnose-32-{name}-last" for name in ("student", "teacher")]
    path = diagnose.run(stores, workdir / "diagnosis")
    return workdir, json.loads(card.read_text()), json.loads(path.with_suffix(".json").read_text()), path


@pytest.mark.slow
def test_the_numbers_are_the_cards(done):
    _, card, result, _ = done
    assert [model["name"] for model in result["models"]] == ["student/last", "teacher/last"]
    for model in result["models"]:
        network = card["networks"][model["name"]]
        assert list(model["columns"]) == list(network["columns"])
        for name, column in network["columns"].items():
            entry = model["columns"][name]
            for key in ("correct", "total", "per_class", "overall"):
                assert entry[key] == column[key], (name, key)
            assert entry["groups"]["tail_third"]["value"] == column["tail_third"]["value"]
            for key in ("worst", "worst10"):  # one network has one interval, on whatever page
                assert entry["inequality"][key] == {part: column[key][part] for part in ("value", "low", "high")}
            assert entry["inequality"]["mean"] == column["balanced"]
            assert entry["inequality"]["nsd"]["value"] == pytest.approx(column["nsd"])
        assert model["columns"]["all_attacks"]["confusion"] == network["confusion"]["all_attacks"]
        assert model["columns"]["all_attacks"]["most_frequent_confusion"] == network["most_frequent_confusion"]
        assert model["class_norms"]["values"] == network["classifier"]["class_norms"]
        assert model["verdicts_sha256"] == network["verdicts"]["sha256"]


def test_the_page_stands_alone_and_names_are_text(done):
    page = Page(done[3].read_text())
    pages.check_alone(page)
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == SECTIONS
    for section in ("classes", "confusion", "targets"):
        for name in HOSTILE[:5]:
            assert name in page.text[section], section
    assert "only those of CIFAR-100" in page.text["missing"]


def test_the_page_has_the_numbers_of_the_json(done):
    result, page = done[2], Page(done[3].read_text())
    student, teacher = result["models"]
    written = [f"{100 * model['columns']['clean']['overall']['value']:.1f}" for model in (student, teacher)]
    assert [cell.split(" ")[0] for cell in page.row("summary", "all images, %")] == written
    assert page.row("temperature", "5")[0].startswith(f"{100 * student['temperature'][2]['rate']['value']:.1f} [")
    pair = next(p for p in student["consistency"] if (p["first"], p["second"]) == ("clean", "pgd20"))
    column = page.rows["consistency"][0].index("pgd20")
    assert page.row("consistency", "clean")[column - 1] == f"{pair['spearman']['value']:.2f}"
    assert page.row("consistency", "pgd20")[0] == f"{pair['kendall']['value']:.2f}"


def test_a_workdir_stands_for_its_students_last_weights_and_nothing_is_overwritten(done, tmp_path, capsys):
    workdir, _, result, _ = done
    diagnose.main([str(workdir), f"--out={tmp_path}", "--column=mim20"], "ltrobust diagnose")
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("student/last, percent", "Temperature-PGD", "Classifier row length"))
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    one = json.loads(first["diagnosis.json"])
    assert one["column"] == "mim20"
    assert one["models"] == result["models"][:1]
    (tmp_path / "diagnosis.json").unlink()  # a page alone is not overwritten either
    diagnose.main([str(workdir), f"--out={tmp_path}"], "ltrobust diagnose")
    assert {path.name for path in tmp_path.iterdir()} == {"diagnosis.html", "diagnosis-2.json", "diagnosis-2.html"}
    assert (tmp_path / "diagnosis.html").read_bytes() == first["diagnosis.html"]


def test_the_page_of_the_run_stays_that_of_its_other_evaluations(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "run")
    fabricated.write_run(tmp_path / "run", names=HOSTILE, skills={"student/last": 0.8})
    shown, *others = run_page.gather(tmp_path / "run", cache_dir="").evaluations
    assert shown.card.protocol.name == "quick"
    assert [other.card.protocol.name for other in others] == ["diagnose"]


def test_a_store_of_anybodys_function_lacks_what_it_cannot_have(done, tmp_path):
    shutil.copytree(done[0] / "verdicts" / "diagnose-32-student-last", tmp_path / "verdicts" / "mine")
    provenance = tmp_path / "verdicts" / "mine" / "provenance.json"
    provenance.write_text(json.dumps(json.loads(provenance.read_text()) | {"about": {}}))
    path = diagnose.run([tmp_path / "verdicts" / "mine"], tmp_path / "out")
    page = Page(path.read_text())
    assert "mine: no lengths of classifier rows are recorded" in page.text["missing"]
    assert page.row("targets", "9")


def test_what_cannot_be_diagnosed_is_refused_by_name(done, tmp_path):
    student = done[0] / "verdicts" / "diagnose-32-student-last"

    def changed(name, **changes):
        shutil.copytree(student, tmp_path / name)
        provenance = json.loads((student / "provenance.json").read_text())
        (tmp_path / name / "provenance.json").write_text(json.dumps(provenance | changes))
        return tmp_path / name

    images = json.loads((student / "provenance.json").read_text())["images"]
    with pytest.raises(ValueError, match="differ in images"):
        diagnose_runs.diagnose([student, changed("images", images=images | {"sha256": "0"})])
    with pytest.raises(ValueError, match="differ in threat"):
        diagnose_runs.diagnose([student, changed("threat", threat={"norm": "l2"})])
    with pytest.raises(ValueError, match="differ in protocol"):
        diagnose_runs.diagnose([student, changed("protocol", protocol={"name": "quick"})])
    with pytest.raises(ValueError, match="given twice"):
        diagnose_runs.diagnose([student, done[0]])
    with pytest.raises(ValueError, match=r"no column 'aa' under attack; there are fgsm, .*all_attacks"):
        diagnose.main([str(student), "--column=aa"], "ltrobust diagnose")
    with pytest.raises(ValueError, match="not a verdict store, and as a workdir it holds no result card"):
        diagnose.main([str(tmp_path)], "ltrobust diagnose")
    half = changed("half") / "verdicts.jsonl"
    half.write_bytes(b"".join(half.read_bytes().splitlines(keepends=True)[:2000]))
    with pytest.raises(ValueError, match="finish the evaluation"):
        diagnose.main([str(half.parent)], "ltrobust diagnose")


def test_a_browser_has_nothing_to_complain_of(done, tmp_path):
    pages.check_in_browser(pages.browser(), done[3], 'id="norms"', tmp_path)
