"""External teachers: a student taught by an earlier run's checkpoint, PyTorch files, and refusals."""

import importlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest

from configs import digits
from ltrobust import models
from ltrobust import run as runs
from ltrobust.commands import agree
from ltrobust.models import torch_weights
from ltrobust.plan import make_plan, make_teacher_plan
from ltrobust.training import compatibility, networks, teachers
from ltrobust.training.records import read

# The small files here hold networks for images of another size than those that they come from.
pytestmark = pytest.mark.filterwarnings("ignore:.*Compare the clean accuracy")


def short(**overrides: Any):
    """A configuration of few steps, of `at_bsl` on digits unless told otherwise."""
    config = digits.get_config()
    config.data.imbalance_ratio = 4.0
    config.data.validation_fraction = 0.0
    config.model.width = 4
    config.teacher.steps = config.student.steps = 2
    config.student.method = "at_bsl"
    config.student.attack.steps = config.teacher.attack.steps = 1
    config.eval.protocol = "validation"
    config.eval.limit = 1
    config.eval.also = ()
    config.update_from_flattened_dict(overrides)
    return config.lock()


def loaded(config: Any, names=("teacher",), *, num_classes: int = 10, image_shape=(8, 8, 1)):
    """The external teachers of those names."""
    plans = {name: make_teacher_plan(name, config.teachers[name].to_dict()) for name in names}
    return teachers.load(plans, dtype=config.model.dtype, num_classes=num_classes, image_shape=image_shape)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The workdir of a run of another width, with averaged weights, that was not evaluated."""
    workdir = tmp_path_factory.mktemp("earlier") / "robust-run"
    runs.fit(short(**{"model.width": 3, "student.ema_decay": 0.5}), workdir)
    return workdir


TAUGHT = {"student.method": "ard", "student.wrappers": ("igdm",)}


def test_a_teacher_of_other_parameters_or_running_statistics_is_refused(tmp_path):
    there = {"params_sha256": "a" * 64, "batch_stats_sha256": "b" * 64}
    recorded = {"teacher": there | {"method": "pgd_at"}}
    compatibility.same_teachers(recorded, {"teacher": there}, tmp_path)
    for key, what in (("params_sha256", "parameters"), ("batch_stats_sha256", "running statistics")):
        message = f"another teacher .*SHA-256 of its {what} {there[key][:12]}, now {'0' * 12}\\)"
        with pytest.raises(ValueError, match=message):
            compatibility.same_teachers(recorded, {"teacher": there | {key: "0" * 64}}, tmp_path)


@pytest.mark.slow
def test_a_student_is_taught_by_an_earlier_run(earlier, tmp_path):
    config = short(**TAUGHT, **{"teachers.teacher.path": str(earlier)})
    card = json.loads(runs.train(config, tmp_path / "run").read_text())
    assert list(card["networks"]) == ["student/last"]
    assert not (tmp_path / "run" / "checkpoints" / "teacher").exists()
    teacher = card["training"]["student"]["teachers"]["teacher"]
    there = loaded(config)["teacher"].teacher
    assert teacher["params_sha256"] == networks.fingerprints_of(there)["params_sha256"]
    assert (teacher["source"], teacher["path"], teacher["method"]) == ("checkpoint", "robust-run", "at_bsl")
    assert (teacher["weights"], teacher["phase"], teacher["step"]) == ("last", "student", 2)
    assert str(earlier.parent) not in json.dumps(card)
    [record] = read(tmp_path / "run" / "metrics.jsonl")
    assert record["train"]["igdm_loss"] > 0
    # It can only continue with that teacher.
    other = {"teacher": teacher | {"params_sha256": "0" * 64}}
    with pytest.raises(ValueError, match=r"taught by another teacher than the one found now \(SHA-256"):
        compatibility.same_teachers({"teacher": teacher}, other, earlier)

    # How alike they are, by the command.
    target = tmp_path / "agreement.json"
    agree.main(
        [f"--student={tmp_path / 'run'}", f"--teacher={earlier}", "--images=20", f"--json={target}"], "ltrobust agree"
    )
    result = json.loads(target.read_text())
    assert result["images"] == 20
    assert -1 <= result["cosine"]["low"] <= result["cosine"]["value"] <= result["cosine"]["high"] <= 1
    with pytest.raises(ValueError, match="exists; nothing is overwritten"):
        agree.main([f"--student={earlier}", f"--teacher={earlier}", f"--json={target}"], "ltrobust agree")
    with pytest.raises(
        ValueError,
        match=r"^--teacher is 'nowhere', which does not exist; give a workdir or a phase's folder of checkpoints\.$",
    ):
        agree.main([f"--student={earlier}", "--teacher=nowhere", "--images=20"], "ltrobust agree")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"teachers.teacher.path": "nowhere"},
            r"^teachers.teacher.path is 'nowhere', which does not exist; .* checkpoints, or a PyTorch file\.$",
        ),
        ({"teachers.teacher.weights": "best"}, r"teachers.teacher.weights is 'best'; known: last, selected, averaged"),
        ({"teachers.teacher.weights": "selected"}, r"weights is 'selected', but .* has last, averaged only"),
        ({"student.method": "mtard"}, r"student.method mtard needs a clean_teacher; give teachers.clean_teacher.path"),
        ({"student.initialize": "teacher"}, r"initialize is 'teacher', which is the run's own teacher phase"),
    ],
    ids=str,
)
def test_teachers_that_cannot_be_had_are_refused_before_anything_is_written(earlier, tmp_path, overrides, message):
    config = short(**TAUGHT | {"teachers.teacher.path": str(earlier)} | overrides)
    with pytest.raises(ValueError, match=message):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "shape", "message"),
    [
        (7, (8, 8, 1), "has 10 classes; the data here have 7"),
        (10, (8, 8, 3), r"of shape \[8, 8, 1\]; here they are \[8"),
    ],
)
def test_a_checkpoint_of_other_classes_or_images_is_refused(earlier, classes, shape, message):
    config = short(**{"teachers.teacher.path": str(earlier)})
    with pytest.raises(ValueError, match=message):
        loaded(config, num_classes=classes, image_shape=shape)


def test_averaged_weights_and_a_phase_of_its_own_can_be_named(earlier):
    folder = str(earlier / "checkpoints" / "student")
    config = short(**{"teachers.clean_teacher.path": folder, "teachers.clean_teacher.weights": "averaged"})
    last = short(**{"teachers.clean_teacher.path": folder})
    both = [loaded(each, ["clean_teacher"]) for each in (config, last)]
    averaged, last = (result["clean_teacher"].teacher.params["linear"]["kernel"] for result in both)
    assert averaged.shape == (12, 10)
    assert float(jnp.abs(averaged - last).max()) > 0


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A PyTorch-style file of a small wide network that normalises its one channel, and its weights."""
    module = models.create("dm_wrn_10_1", num_classes=10, activation="silu")
    params, batch_stats = models.initialise(module, jax.random.key(0), (8, 8, 1))
    tensors = torch_weights.to_torch(params, batch_stats, "dm_wrn_10_1")
    path = tmp_path_factory.mktemp("file") / "wide.safetensors"
    normalisation = {"mean": np.full((1, 1, 1), 0.25, np.float32), "std": np.full((1, 1, 1), 0.5, np.float32)}
    torch_weights.write(path, tensors | normalisation)
    return path, module, params, batch_stats


def from_file(path, *, shape=(8, 8, 1), classes=10, **overrides):
    settings = {"path": str(path), "architecture": "dm_wrn_10_1", "activation": "silu"} | overrides
    config = short(**{f"teachers.teacher.{key}": value for key, value in settings.items()})
    return loaded(config, num_classes=classes, image_shape=shape)["teacher"]


@pytest.mark.slow
def test_a_pytorch_file_teaches_through_its_normalisation(file):
    path, module, params, batch_stats = file
    with pytest.warns(
        UserWarning, match="pools 8x8 pixels, as for 32x32 images; here all of 8x8 are pooled. Compare the"
    ):
        known = from_file(path)
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    expected, _ = models.forward(module, params, batch_stats, (images - 0.25) / 0.5, bn="eval")
    np.testing.assert_allclose(known.teacher.logits(images), expected, atol=1e-5)
    assert known.about == {
        "from": "file",
        "path": "wide.safetensors",
        "model": "dm_wrn_10_1",
        "activation": "silu",
        "mean": [0.25],
        "std": [0.5],
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": ""}, "teachers.teacher.architecture is empty; name the network that wide.safetensors holds"),
        (
            {"architecture": "wrn_10_1"},
            r"teachers.teacher: wide.safetensors does not fit wrn_10_1: .*missing .*conv1.weight",
        ),
        ({"architecture": "dm_wrn_16_1"}, "does not fit dm_wrn_16_1: .*missing layer.0.block.1"),
        ({"classes": 7}, r"does not fit dm_wrn_10_1: logits.bias has shape \(10,\)"),
        ({"shape": (8, 8, 3)}, "takes images of 1 channels; here they have 3"),
        ({"mean": (0.5,), "std": (0.5,)}, "but the file says .*leave them empty"),
        ({"mean": (0.25,), "std": (0.0,)}, "needed are 1 numbers each, std above 0"),
        ({"mean": (0.25,), "std": ()}, "needed are 1 numbers each"),
    ],
    ids=str,
)
def test_a_file_that_does_not_fit_is_refused(file, settings, message):
    with pytest.raises(ValueError, match=message):
        from_file(file[0], **settings)


def test_both_kinds_of_teacher_serve_at_once(earlier, file):
    config = short(
        **{
            "student.method": "mtard",
            "teachers.teacher.path": str(earlier),
            "teachers.clean_teacher.path": str(file[0]),
            "teachers.clean_teacher.architecture": "dm_wrn_10_1",
        }
    )
    assert [phase.name for phase in make_plan(config, pathlib.Path("run")).phases] == ["student"]
    wanted = planned.make_method(config, "student").teachers
    result = loaded(config, wanted)
    assert [result[name].about["from"] for name in wanted] == ["checkpoint", "file"]


def test_a_command_on_a_card_names_no_folder_of_a_teacher(monkeypatch):
    cards = importlib.import_module("ltrobust.analysis.cards")
    words = ["main.py", "--config=a.py", "--config.teachers.clean_teacher.path=/secret", "--workdir=/secret"]
    monkeypatch.setattr("sys.argv", [*words, "--config.teachers.teacher.weights=averaged", "--config.data.dir=/secret"])
    assert cards.command() == "main.py --config=a.py --config.teachers.teacher.weights=averaged"


def test_one_of_several_networks_in_a_file_is_named(file, tmp_path):
    _, _, params, batch_stats = file
    tensors = torch_weights.to_torch(params, batch_stats, "dm_wrn_10_1")
    both = {f"{name}.{leaf}": array for name in ("model", "model_ema") for leaf, array in tensors.items()}
    torch_weights.write(tmp_path / "both.safetensors", both)
    with pytest.raises(ValueError, match=r"teachers.teacher: .*2 networks among the arrays: model, model_ema.*FILE::"):
        from_file(tmp_path / "both.safetensors")
    known = from_file(f"{tmp_path / 'both.safetensors'}::model_ema")
    assert known.about["path"] == "both.safetensors::model_ema"
