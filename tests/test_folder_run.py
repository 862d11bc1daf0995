"""A run on one's own images: from a folder to card, page and evaluation, and what happens when the images change."""

import contextlib
import io
import json
import os
import shutil

import digits_folder
import pages
import pytest
from PIL import Image

from ltrobust import recipes
from ltrobust import run as runs
from ltrobust.report import run_page

ODD = b"two \x1b[31m\xe9"  # moves the terminal's colour, and is no UTF-8
PRINTED = r"two \x1b[31m\xe9"
COUNTS = [12, 40, 20]  # the most frequent class is the second one


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The images' folder, a locked configuration, and the workdir of its finished run."""
    place = tmp_path_factory.mktemp("mine")
    config = recipes.load("configs/folder.py")
    config.data.dir = str(digits_folder.write(place / "images", COUNTS, test=5))
    for split in ("train", "test"):
        (place / "images" / split / "digit 2").rename(place / "images" / split / os.fsdecode(ODD))
    (place / "images" / "train" / "digit 0" / ".DS_Store").write_bytes(b"")
    (place / "images" / "train" / "digit 1" / "gone.png").symlink_to(place / "nowhere")
    config.data.cache_dir = str(place / "cache")
    config.data.image_size, config.data.channels = 8, 1
    config.model.name, config.model.width = "small_resnet", 4
    config.student.method, config.student.epochs, config.student.batch_size = "at_bsl", 1, 16
    config.student.attack.steps = 1
    config.student.augmentation.crop_padding = 1
    config.eval.protocol, config.eval.limit, config.eval.keep_images = "validation", 4, True
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.warns(UserWarning, match="dangling link"):
        runs.train(config, place / "run")
    return place, config, place / "run", printed.getvalue()


@pytest.mark.slow
def test_the_card_says_whose_images_these_are(mine):
    card = json.loads((mine[2] / "results" / "validation.json").read_text())
    data = card["data"]
    assert (data["name"], data["class_names"]) == ("folder", ["digit 0", "digit 1", PRINTED])
    held_out = data["validation_counts"]
    assert [a + b for a, b in zip(data["class_counts"], held_out, strict=True)] == COUNTS
    assert data["imbalance_ratio"] == 40 / 12
    assert data["image_shape"] == [8, 8, 1]
    assert set(data["fingerprints"]) == {"chosen", "train", "validation", "pixels", "images"}
    assert len(data["test_images_sha256"]) == len(data["test_labels_sha256"]) == 64
    assert (data["test_images"], data["evaluated"]) == (15, 12)
    assert card["config"]["data"]["image_size"] == 8
    assert str(mine[0]) not in json.dumps(card)
    dangling = {"count": 1, "classes": {"digit 1": 1}, "names": ["train/digit 1/gone.png"]}
    hidden = {"count": 1, "classes": {"digit 0": 1}, "names": ["train/digit 0/.DS_Store"]}
    assert data["files"] == {
        "train": {"used": COUNTS, "passed_over": {"hidden": hidden, "dangling link": dangling}, "findings": {}},
        "test": {"used": [5, 5, 5], "passed_over": {}, "findings": {}},
    }
    assert "1 file skipped, dangling link: train/digit 1/gone.png" in data["notes"]


@pytest.mark.slow
def test_the_terminal_says_what_was_used_and_passed_over(mine):
    printed = mine[3]
    assert "train of folder: 72 images in 3 classes; decoded now, copy in " in printed
    rows = [line.split() for line in printed.splitlines()]
    assert ["digit", "0", "12", "1"] in rows
    assert ["digit", "1", "40", "1"] in rows
    assert ["all", "72", "1", "1"] in rows
    assert [*PRINTED.split(), "5"] in rows
    assert "\x1b" not in printed


@pytest.mark.slow
def test_test_images_that_are_training_images_are_named_on_terminal_card_and_page(mine, tmp_path, capsys):
    """A test split of copies: two files as they are and one encoded again, which loses a little."""
    place, config, *_ = mine
    images = shutil.copytree(place / "images", tmp_path / "images", symlinks=True)
    train, test = (images / split / "digit 1" for split in ("train", "test"))
    for number in (3, 4):
        shutil.copy(train / f"{number:04d}.png", test / f"copy{number}.png")
    Image.open(train / "0005.png").save(test / "encoded.jpg", quality=95)
    config = config.copy_and_resolve_references()
    config.data.dir, config.eval.limit = str(images), 0
    with pytest.warns(UserWarning, match="dangling link"):
        data = json.loads(runs.train(config, tmp_path / "run").read_text())["data"]
    result = {(entry["part"], entry["other"]): entry for entry in data["overlap"]["pairs"]}
    named = [name for pair in ("training", "validation") for name in result["test", pair]["named"]]
    assert {tuple(sorted(name)) for name in named} == {
        ("exact", "test/digit 1/copy3.png", "train/digit 1/0003.png"),
        ("exact", "test/digit 1/copy4.png", "train/digit 1/0004.png"),
        ("near", "test/digit 1/encoded.jpg", "train/digit 1/0005.png"),
    }
    printed = capsys.readouterr().out
    text = pages.Page(run_page.write(tmp_path / "run", data_dir=str(images), cache_dir="").read_text()).text["summary"]
    assert data["overlap"]["warnings"]
    for sentence in data["overlap"]["warnings"]:
        assert f"warning: {sentence}." in printed
        assert f"Warning: {sentence}." in text


def test_the_page_shows_the_same_images(mine):
    path = run_page.write(mine[2], data_dir=mine[1].data.dir, cache_dir=mine[1].data.cache_dir)
    text = path.read_text()
    assert PRINTED in text
    assert "dangling link: train/digit 1/gone.png" in text
    assert "the test images found here are not those" not in text
    assert f"fewer than 10 validation images of 3 of 3 classes: digit 0 has 2, {PRINTED} has 4, digit 1 has 8" in text
    assert "No weights were selected: a class has too few validation images." in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:train of")
def test_few_validation_images_of_a_class_select_no_weights(mine, capsys):
    card = json.loads((mine[2] / "results" / "validation.json").read_text())
    assert list(card["networks"]) == ["student/last"]
    assert card["selection_rule"] == "no weights (fewest validation images of a class: 2)"
    few = f"fewer than 10 validation images of 3 of 3 classes: digit 0 has 2, {PRINTED} has 4, digit 1 has 8"
    assert few in card["data"]["notes"]
    (record,) = map(json.loads, (mine[2] / "metrics.jsonl").read_text().splitlines())
    assert record["selected_epoch"] == 0
    # With a lower floor they are selected, as they always were.
    lower = mine[1].copy_and_resolve_references().unlock()
    lower.student.selection_floor = 2
    card = json.loads(runs.train(lower.lock(), mine[0] / "lower").read_text())
    assert list(card["networks"]) == ["student/last", "student/selected"]
    assert card["selection_rule"].startswith("highest running mean")
    assert "selected: highest running mean" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:train of")
def test_a_restored_network_has_the_numbers_of_the_run_and_other_images_are_refused(mine):
    place, config, workdir, _ = mine
    trained = json.loads((workdir / "results" / "validation.json").read_text())["networks"]
    assert json.loads(runs.evaluate(config, workdir).read_text())["networks"] == trained
    changed = place / "images" / "train" / "digit 1" / "0000.png"
    Image.new("L", (8, 8), 9).save(changed)
    for call in (runs.evaluate, runs.train):
        with pytest.raises(ValueError, match=r"trained on other images than those found now .*of the part 'images'"):
            call(config, workdir)
