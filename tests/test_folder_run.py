"""A run on one's own images: from a folder to card, page and evaluation, and what happens when the images change."""

import json

import digits_folder
import pytest
from PIL import Image

from ltrobust import experiment, recipes, report

COUNTS = [12, 40, 20]  # the most frequent class is the second one


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The images' folder, a locked configuration, and the workdir of its finished run."""
    place = tmp_path_factory.mktemp("mine")
    config = recipes.load("configs/folder.py")
    config.data.dir = str(digits_folder.write(place / "images", COUNTS, test=5))
    config.data.cache_dir = str(place / "cache")
    config.data.image_size, config.data.channels = 8, 1
    config.model.name, config.model.width = "small_resnet", 4
    config.student.method, config.student.epochs, config.student.batch_size = "at_bsl", 1, 16
    config.student.attack.steps = 1
    config.student.augmentation.crop_padding = 1
    config.eval.protocol, config.eval.limit, config.eval.keep_images = "validation", 4, True
    experiment.train(config, place / "run")
    return place, config, place / "run"


def test_the_card_says_whose_images_these_are(mine):
    card = json.loads((mine[2] / "results" / "validation.json").read_text())
    data = card["data"]
    assert (data["name"], data["class_names"]) == ("folder", ["digit 0", "digit 1", "digit 2"])
    held_out = data["validation_counts"]
    assert [a + b for a, b in zip(data["class_counts"], held_out, strict=True)] == COUNTS
    assert data["imbalance_ratio"] == 40 / 12
    assert data["image_shape"] == [8, 8, 1]
    assert set(data["fingerprints"]) == {"chosen", "train", "validation", "images"}
    assert len(data["test_images_sha256"]) == len(data["test_labels_sha256"]) == 64
    assert (data["test_images"], data["evaluated"]) == (15, 12)
    assert card["config"]["data"]["image_size"] == 8
    assert str(mine[0]) not in json.dumps(card)


def test_the_page_shows_the_same_images(mine):
    path = report.write(mine[2], data_dir=mine[1].data.dir, cache_dir=mine[1].data.cache_dir)
    text = path.read_text()
    assert "digit 2" in text
    assert "the test images found here are not those" not in text


def test_a_restored_network_has_the_numbers_of_the_run_and_other_images_are_refused(mine):
    place, config, workdir = mine
    trained = json.loads((workdir / "results" / "validation.json").read_text())["networks"]
    assert json.loads(experiment.evaluate(config, workdir).read_text())["networks"] == trained
    changed = place / "images" / "train" / "digit 1" / "0000.png"
    Image.new("L", (8, 8), 9).save(changed)
    for call in (experiment.evaluate, experiment.train):
        with pytest.raises(ValueError, match=r"trained on other images than those found now .*of the part 'images'"):
            call(config, workdir)
