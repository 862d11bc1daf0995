"""A run on an image list: trained from files, validated on a separate list, evaluated and shown."""

import contextlib
import io
import json
import shutil

import listed
import pages
import pytest

from ltrobust import recipes
from ltrobust import run as runs
from ltrobust.report import run_page

COUNTS = [103, 40, 12]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The images' folder, a locked configuration, the workdir of its finished run, and what was printed."""
    place = tmp_path_factory.mktemp("mine")
    lists = listed.write(place / "images", train=COUNTS, validation=[3, 3, 3], test=[5, 5, 5])
    listed.truncate(place / "images" / "train/n0/004.jpg")
    config = recipes.load("configs/folder.py")
    config.data.name, config.data.dir, config.data.cache_dir = "image_list", str(place / "images"), ""
    config.data.lists.update(lists)
    config.data.image_size, config.data.skip_unreadable = 8, True
    config.model.name, config.model.width = "small_resnet", 4
    config.student.method, config.student.epochs, config.student.batch_size = "at_bsl", 1, 16
    config.student.attack.steps, config.student.selection_floor = 1, 3
    config.student.augmentation.policy, config.student.augmentation.jitter = "random_resized_crop", (0.4, 0.4, 0.4)
    config.eval.protocol, config.eval.limit, config.eval.keep_images = "validation", 4, True
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.warns(UserWarning, match="1 file skipped"):
        runs.train(config, place / "run")
    return place, config, place / "run", printed.getvalue()


@pytest.mark.slow
def test_card_terminal_and_page_say_what_the_lists_gave(mine):
    place, config, workdir, printed = mine
    data = json.loads((workdir / "results" / "validation.json").read_text())["data"]
    assert (data["name"], data["class_counts"], data["validation_counts"]) == ("image_list", [102, 40, 12], [3, 3, 3])
    assert data["imbalance_ratio"] == 102 / 12
    assert set(data["fingerprints"]) == {"chosen", "train", "validation", "pixels", "images", "classes"}
    assert data["files"]["train"]["passed_over"]["unreadable"]["classes"] == {"0": 1}
    assert data["overlap"]["remarks"]
    assert data["claim"].startswith("files of the user's list")
    assert str(place) not in json.dumps(data)
    for part, number in (("train", 154), ("validation", 9), ("test", 15)):
        assert f"{part} of image_list: {number} images in 3 classes; " in printed
    assert printed.count("many-shot") == 1
    page = run_page.write(workdir, data_dir=config.data.dir, cache_dir="").read_text()
    assert "the test images found here are not those" not in page
    assert pages.Page(page).text["summary"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:train of")
def test_a_restored_network_has_the_numbers_of_the_run_and_other_files_are_refused(mine, tmp_path):
    place, config, workdir, _ = mine
    trained = json.loads((workdir / "results" / "validation.json").read_text())["networks"]
    moved = config.copy_and_resolve_references()
    moved.data.dir = str(shutil.copytree(place / "images", tmp_path / "moved"))
    assert json.loads(runs.evaluate(moved, workdir).read_text())["networks"] == trained
    listed.truncate(tmp_path / "moved" / "train/n1/001.png")
    with pytest.raises(ValueError, match=r"trained on other images than those found now"):
        runs.evaluate(moved, workdir)
