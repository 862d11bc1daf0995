"""Comparing runs: names of networks, pairs over seeds, refusals, and the page against the numbers."""

import json
import pathlib
import re
import shutil

import fabricated
import listed
import numpy as np
import pages
import pytest

from ltrobust.analysis import cards, compare_runs, results
from ltrobust.commands import compare
from ltrobust.data import sources
from ltrobust.evaluation import store
from ltrobust.report import run_page

ROOT = pathlib.Path(__file__).resolve().parents[1]
SKILLS = {"plain": 0.6, "better": 0.8}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of two methods: `plain` and `better`, seeds 0 to 2; their verdicts repeat, in another order."""
    folder = tmp_path_factory.mktemp("compared")
    for method, skill in SKILLS.items():
        first = folder / f"{method}-seed0"
        first.mkdir()
        networks = {"student/last": skill} | ({"teacher/last": 0.5} if method == "plain" else {})
        fabricated.write_run(first, names=pages.HOSTILE, keep_images=method == "plain", skills=networks)
        for seed in (1, 2):
            copy = folder / f"{method}-seed{seed}"
            shutil.copytree(first, copy)
            fabricated.change_card(copy / "results" / "quick.json", lambda card, n=seed: card["config"].update(seed=n))
            config = json.loads((copy / "config.json").read_text())
            (copy / "config.json").write_text(json.dumps(config | {"seed": seed}))
    return folder


@pytest.fixture(scope="module")
def compared(made):
    """The page and the numbers of three networks; the first is the reference."""
    arguments = [str(made / name) for name in ("plain-seed0", "better-seed0", "plain-seed0:teacher")]
    out = [f"--html={made / 'page.html'}", f"--json={made / 'numbers.json'}", "--cache_dir="]
    compare.main([*arguments, *out], "ltrobust compare")
    return json.loads((made / "numbers.json").read_text()), pages.Page((made / "page.html").read_text())


def right(made, network, column=None):
    (chosen, *_) = results.candidates(str(made / network))
    return store.correct(chosen.provenance, chosen.verdicts(), column)


def test_numbers_are_those_of_the_verdicts(made, compared):
    numbers, _ = compared
    assert [model["name"] for model in numbers["models"]] == ["plain-seed0", "better-seed0", "plain-seed0:teacher"]
    assert [model["network"] for model in numbers["models"]] == ["student/last", "student/last", "teacher/last"]
    ids, labels, reference = right(made, "plain-seed0")
    for pair, network in zip(numbers["comparisons"], ("better-seed0", "plain-seed0:teacher"), strict=True):
        _, _, model = right(made, network)
        assert pair["reference"] == "plain-seed0"
        assert [entry["image"] for entry in pair["flips"]["won"]] == ids[model & ~reference].tolist() != []
        assert [entry["image"] for entry in pair["flips"]["lost"]] == ids[reference & ~model].tolist()
        for index, entry in enumerate(pair["result"]["per_class"]):
            of = labels == index
            assert entry["difference"] == pytest.approx(model[of].mean() - reference[of].mean())
        _, _, clean = right(made, network, "clean")
        _, _, before = right(made, "plain-seed0", "clean")
        assert pair["columns"]["clean"]["difference"] == pytest.approx(clean.mean() - before.mean())


def test_the_page_is_the_numbers_and_stands_alone(compared):
    numbers, page = compared
    drawn = pages.check_alone(page)
    assert len(drawn) == 1 + 2 * 2
    assert all(name in page.text["pair1"] for name in pages.HOSTILE[:5])
    pair = numbers["comparisons"][0]
    overall = pair["result"]["overall"]["test"]
    counted = next(row for row in page.rows["pair1"] if row[0] == "all images" and len(row) == 5)
    assert counted[2:] == [str(overall["b"]), str(overall["c"]), f"{overall['b'] - overall['c']:+d}"]
    tail = next(row for row in page.rows["pair1"] if row[0] == "tail" and len(row) == 5)
    test = numbers["comparisons"][0]["result"]["groups"]["tail_third"]["test"]
    assert tail[2:4] == [str(test["b"]), str(test["c"])]
    # Every image that flips is named once, in its class.
    flips = [row for row in page.rows["pair1"] if len(row) == 3 and row[1].isdigit()]
    assert sum(int(row[1]) for row in flips) == len(pair["flips"]["won"]) + len(pair["flips"]["lost"])
    first = pair["flips"]["won"][0]
    assert any(f"{first['image']} ({first['broken_by'][0]})" in row[2] for row in flips)
    # The reference kept its adversarial images: what it lost is shown with the change, what it won without.
    images = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert images.count("adversarial image") >= 3
    assert images.count("image") > images.count("adversarial image")


def test_seeds_are_paired_and_their_spread_is_the_interval(made, tmp_path, capsys):
    sides = [[str(made / f"{method}-seed{seed}") for seed in range(3)] for method in ("better", "plain")]
    out = tmp_path / "out.json"
    compare.main(
        [*sides[0], "--against", *sides[1], f"--json={out}", f"--html={tmp_path / 'page.html'}"], "ltrobust compare"
    )
    numbers = json.loads(out.read_text())
    assert numbers["sides"] == ["better", "plain"]
    view = numbers["seeds"]["views"]["overall"]
    each = right(made, "better-seed0")[2].mean() - right(made, "plain-seed0")[2].mean()
    np.testing.assert_allclose(view["values"], [each] * 3)
    # Three equal differences: interval and test are as the images make them.
    assert view["low"] < each < view["high"]
    assert (view["p"] < 0.05) == (view["low"] > 0)
    assert view["p"] <= view["p_holm"] <= 1
    assert numbers["seeds"]["primary"] is None
    text = capsys.readouterr().out
    assert "better minus plain over 3 seeds" in text
    assert text.endswith(f"\ncomparison: {tmp_path / 'page.html'}\n")
    assert "The primary comparison is that of tail accuracy in the headline of standard: it is missing" in text
    page = pages.Page((tmp_path / "page.html").read_text())
    pages.check_alone(page)
    assert page.row("seeds", "all images")[:3] == [f"{100 * each:+.2f}"] * 3


def test_a_difference_has_one_sign_however_the_reference_is_given(made, capsys):
    plain, better = str(made / "plain-seed0"), str(made / "better-seed0")
    compare.main([plain, better], "ltrobust compare")
    text = capsys.readouterr().out
    compare.main([better, "--against", plain], "ltrobust compare")
    assert capsys.readouterr().out == text
    assert "better-seed0 minus plain-seed0, the same" in text
    assert "difference: better-seed0 minus plain-seed0" in text
    spelled = [compare_runs.compare_all([plain, better]), compare_runs.compare_all([better], [plain])]
    over_seeds = compare_runs.compare_all(*([str(made / f"{m}-seed{n}") for n in (0, 1)] for m in ("better", "plain")))
    for numbers in (*spelled, over_seeds):
        pair = numbers.comparisons[0]
        assert pair.difference == "better-seed0 minus plain-seed0"
        assert pair.result.overall.difference > 0
    assert over_seeds.seeds.views["overall"].mean > 0
    stores = [str(results.candidates(name)[0].folder) for name in (plain, better)]
    assert compare_runs.compare_all(stores).comparisons[0].result.overall.difference > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plain-seed0"], "needs a reference and at least one more"),
        (["plain-seed0", "plain-seed0"], "given twice"),
        (["plain-seed0", "nowhere"], "nowhere is not a folder"),
        (["plain-seed0", "better-seed0:teacher"], "no evaluated network 'teacher'; it has student/last"),
        (["plain-seed0", "plain-seed0/verdicts"], "holds no result card"),
        (["plain-seed0", "better-seed0", "--column=square"], "no column 'square'"),
        (["plain-seed0", "--against", "better-seed0", "better-seed1"], "1 runs against 2"),
        (
            ["plain-seed0", "plain-seed1", "--against", "better-seed1", "better-seed0"],
            "training seed 0 and better-seed1 1",
        ),
        (["plain-seed0", "better-seed0", "--against", "plain-seed0:teacher", "better-seed1"], "seed 0 occurs twice"),
        (["plain-seed0", "better-seed0", "--json={taken}"], "nothing is overwritten"),
        (["plain-seed0", "better-seed0", "--html=nowhere/page.html"], "is not a folder; make it first"),
    ],
)
def test_what_is_refused_and_why(made, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(made)
    (tmp_path / "taken.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        compare.main([word.format(taken=tmp_path / "taken.json") for word in arguments], "ltrobust compare")
    assert (tmp_path / "taken.json").read_text() == "{}"


def test_the_evaluation_that_all_have_is_compared(made, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    fabricated.write_run(other, protocol="standard", skills={"student/last": 0.7})
    with pytest.raises(ValueError, match="differ in protocol"):
        compare_runs.compare_all([str(made / "plain-seed0"), str(other)])
    # The weightier protocol comes first, where all have it; otherwise the next.
    fabricated.write_run(other, skills={"student/last": 0.7})
    result = compare_runs.compare_all([str(other), str(made / "plain-seed0")])
    assert result.protocol.name == "quick"
    store_folder = next((other / "verdicts").glob("quick*"))
    assert results.candidates(str(store_folder))[0].network == ""
    again = compare_runs.compare_all([str(store_folder), str(made / "plain-seed0")])
    assert again.comparisons[0].result == result.comparisons[0].result
    (store_folder / "verdicts.jsonl").write_bytes((store_folder / "verdicts.jsonl").read_bytes() + b"\n")
    with pytest.raises(ValueError, match="other verdicts than the card"):
        compare_runs.compare_all([str(other), str(made / "plain-seed0")])


def test_a_store_has_one_network(made):
    folder = next((made / "plain-seed0" / "verdicts").iterdir())
    with pytest.raises(ValueError, match=r"is a verdict store, which has one network; leave ':student' out"):
        results.candidates(f"{folder}:student")


def test_networks_that_share_an_evaluation_in_pairs_only_are_refused(monkeypatch, tmp_path):
    evaluated = {"first": ("quick", "standard"), "second": ("quick",), "third": ("standard",)}

    def candidates(argument):
        same = dict.fromkeys(results.SAME)
        return [results.Candidate(tmp_path, same | {"protocol": {"name": name}}) for name in evaluated[argument]]

    monkeypatch.setattr(results, "candidates", candidates)
    with pytest.raises(ValueError, match="no evaluation is common to all of first, second, third; evaluate them alike"):
        results.read_alike(list(evaluated))
    with pytest.raises(ValueError, match="second and third differ in protocol"):
        results.read_alike(["second", "third"])


def test_other_images_than_those_evaluated_are_refused():
    test = sources.load("digits", "test")
    ids, card = np.array([5, 700]), cards.read(ROOT / "results" / "digits" / "at_bsl-seed0.json")
    provenance = {"images": {"sha256": cards.digest([test.images[ids]])}}
    result = results.evaluated_images(card, provenance, ids, data_dir="", cache_dir="")
    np.testing.assert_array_equal(result, test.images)
    for other in (ids + 1, ids + 700):
        with pytest.raises(ValueError, match="are not those that were evaluated; name the folder of their data"):
            results.evaluated_images(card, provenance, other, data_dir="", cache_dir="")


@pytest.mark.parametrize("beside", ["data", "lists"])
def test_pictures_of_an_image_list_are_found_wherever_its_lists_are(made, tmp_path, beside):
    data, lists = tmp_path / "data", tmp_path / beside
    for folder in (data, lists):
        folder.mkdir(exist_ok=True)
    test = sources.load("digits", "test")
    files = listed.as_files(data, test.images)
    lines = {"test": [f"{name} {label}\n" for name, label in zip(files.names, test.labels, strict=True)]}
    lines["train"] = [
        f"{shutil.copy(data / '0.png', data / f'train{label}.png').name} {label}\n" for label in range(10)
    ]
    for part, text in lines.items():
        (lists / f"{part}.txt").write_text("".join(text))
    form = {"name": "image_list", "image_size": 8, "resize": 8, "channels": 1}
    form["lists"] = {part: str(lists / f"{part}.txt") for part in lines}
    for name in ("plain-seed0", "better-seed0"):
        digits_in_files(shutil.copytree(made / name, tmp_path / name), form, files.digest())
    page, runs = tmp_path / "page.html", [str(tmp_path / name) for name in ("plain-seed0", "better-seed0")]
    compare.main([*runs, f"--html={page}", f"--data_dir={data}"], "ltrobust compare")
    assert "no pictures" not in page.read_text()
    assert any(tag == "img" for tag, _ in pages.Page(page.read_text()).tags)


def digits_in_files(workdir, form, digest):
    """Changes a run on digits as if it had read them from a list."""
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= form
    (workdir / "config.json").write_text(json.dumps(config))
    fabricated.change_card(
        workdir / "results" / "quick.json",
        lambda card: card.update(config=cards.describe_config(config), data=card["data"] | {"name": form["name"]}),
    )
    for path in workdir.glob("verdicts/*/provenance.json"):
        provenance = json.loads(path.read_text())
        provenance["images"]["sha256"] = digest
        path.write_text(json.dumps(provenance))


def test_a_browser_opens_the_page_without_complaint(made, compared, tmp_path):
    pages.check_in_browser(pages.browser(), made / "page.html", 'id="pair2"', tmp_path)


@pytest.mark.parametrize("change", ["worst", "correct"])
def test_a_card_edited_by_hand_is_named_and_not_shown(tmp_path, caplog, change):
    path = fabricated.write_run(tmp_path)
    assert results.evaluations(tmp_path, {})[0].networks == cards.read(path).networks
    card = json.loads(path.read_text())
    column = card["networks"]["student/last"]["columns"]["clean"]
    if change == "worst":
        column["worst"]["value"] = 0.987
    else:
        column["correct"][0] += 1
    path.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"quick\.json was changed after it was written; evaluate again"):
        results.candidates(str(tmp_path))
    run_page.write(tmp_path, cache_dir="")
    page = pages.Page((tmp_path / "report.html").read_text())
    assert "quick.json was changed" in page.text["missing"]
    assert "summary" not in page.text


def test_a_card_of_another_run_is_named_and_not_shown(made, tmp_path, caplog):
    path = fabricated.write_run(tmp_path)
    shutil.copy(made / "better-seed1" / "results" / "quick.json", path.with_name("other.json"))
    missing = {"summary": []}
    assert len(results.evaluations(tmp_path, missing)) == 1
    (line,) = missing["summary"]
    assert f"other.json is the card of another run than {tmp_path} (seed: 0 -> 1); move it away." in line
    # A folder that is no workdir may hold cards of any run.
    (tmp_path / "config.json").unlink()
    results.evaluations(tmp_path, missing)
    assert missing["summary"] == [line]


def resealed(text):
    content = json.loads(text)
    return json.dumps(content | {"sha256": cards.seal(content)})


DAMAGE = {
    "cut off": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[1, 2]",
    "another program's": lambda text: '{"layers": 12}',
    "without counts": lambda text: resealed(text.replace('"correct"', '"right"')),
    "without confusion": lambda text: resealed(text.replace('"confusion"', '"mixed"')),
    "with text for a number": lambda text: resealed(text.replace('"evaluated": 797', '"evaluated": "797"')),
    "more right than there are": lambda text: text.replace('"correct": [', '"correct": [9'),
    "with a network that is a number": lambda text: json.dumps(json.loads(text) | {"networks": {"student/last": 1}}),
    "with a negative number of images": lambda text: resealed(
        re.sub(r'"class_counts": \[\d+', '"class_counts": [-5', text)
    ),
    "with more images than are counted": lambda text: resealed(
        re.sub(r'"class_counts": \[\d+', f'"class_counts": [{10**30}', text)
    ),
    "with a class that is none": lambda text: resealed(re.sub(r'"class_index": \d+', '"class_index": 10', text)),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_card_is_named_and_passed_over(made, tmp_path, caplog, damage):
    fabricated.write_run(tmp_path)
    other = fabricated.write_run(tmp_path, protocol="standard")
    other.write_text(DAMAGE[damage](other.read_text()))
    missing = {"summary": []}
    (shown,) = results.evaluations(tmp_path, missing)
    assert shown.card.protocol.name == "quick"
    assert "standard.json" in missing["summary"][0]
    assert "standard.json is skipped: " in caplog.text
    run_page.write(tmp_path, cache_dir="")
    assert "standard.json" in pages.Page((tmp_path / "report.html").read_text()).text["summary"]
    result = compare_runs.compare_all([str(made / "better-seed0"), str(tmp_path)])
    assert result.protocol.name == "quick"
    assert caplog.text.count("standard.json is skipped") == 1
    with pytest.raises(ValueError, match=r"standard\.json"):
        results.read_card(other)
