"""The configurations of `configs/class_wise` on tiny invented archives, from training to the diagnosis."""

import importlib
import pathlib

import invented
import pytest

from ltrobust import run as runs
from ltrobust.commands import diagnose
from ltrobust.data import identity, imagenet, longtail
from ltrobust.evaluation import padding


def put(name: str, folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Puts invented files of a data set into a folder, which pass for the official ones."""
    folder.mkdir()
    if name == "imagenet10":
        invented.place_imagenet(folder)
        patch.setitem(imagenet.CLASSES, name, invented.IMAGENET)
        return
    data = invented.invent(name)
    for split, (_, labels) in data.items():
        if (name, split) in identity.LABELS:
            patch.setitem(identity.LABELS, (name, split), longtail.fingerprint(labels))
    invented.place(name, invented.publish(name, data), folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*(partial copy|not the official|not the published):UserWarning")
@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "svhn", "stl10", "imagenet_subset"])
def test_training_and_diagnosis_run_from_the_archive(tmp_path, monkeypatch, name):
    config = importlib.import_module(f"configs.class_wise.{name}").get_config()
    put(config.data.name, tmp_path / "data", monkeypatch)
    monkeypatch.setattr(padding, "ROWS", 10)  # a batch has no more rows than images: no bits are compared here
    changes = {
        "data.dir": str(tmp_path / "data"),
        "data.cache_dir": str(tmp_path / "cache"),
        "data.image_size": 32,
        "data.validation_fraction": 0.0,
        "model.name": "small_resnet",
        "model.width": 4,
        "model.stem_stride": 4,
        "student.steps": 1,
        "student.attack.steps": 1,
        "student.attack.step_size": config.threat.radius,
        "student.batch_size": 8,
        "eval.protocol": "validation",
        "eval.limit": 1,
        "eval.batch_size": 64,
    }
    config.update_from_flattened_dict(changes)
    runs.train(config.lock(), tmp_path / "run")
    page = diagnose.evaluate_first(config, tmp_path / "run")
    assert page == tmp_path / "run" / "diagnosis" / "diagnosis.html"
    assert page.is_file()
