"""The files in the guides on own networks, methods and attacks, written to disk and used as the guides say."""

import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import linear
import numpy as np
import planned
import pytest
from toy import INNER, on_one_device, toy_batch, toy_learner, toy_loss

import ltrobust as lt
from ltrobust import methods, models, recipes
from ltrobust.commands import launch
from ltrobust.models import external
from ltrobust.models.model_plan import make_model_plan

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDES = ROOT / "docs" / "guides"


def blocks(guide: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (GUIDES / f"{guide}.md").read_text(), re.DOTALL | re.MULTILINE)


def written(guide: str, folder: pathlib.Path) -> pathlib.Path:
    """The guide's complete file, under the name in its first line."""
    text = blocks(guide)[0]
    path = folder / text.splitlines()[0].removeprefix("# ")
    path.write_text(text)
    return path


def words(guide: str) -> list[str]:
    """The guide's `ltrobust` command."""
    command = blocks(guide, "sh")[0].replace("\\\n", " ").strip()
    assert command.startswith("ltrobust train ")
    return shlex.split(command)[1:]


@pytest.fixture(autouse=True)
def _restored(monkeypatch, tmp_path):
    """Restores what the files register and import."""
    tables = (methods.REGISTRY, methods.WRAPPERS, models.REGISTERED)
    before = [dict(table) for table in tables]
    modules = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.mark.parametrize("guide", ["networks", "methods"])
def test_the_command_finds_the_file(guide, tmp_path):
    written(guide, tmp_path)
    given = words(guide)
    assert sorted(launch.resolve(given[1:], trains=True)) == sorted(given[1:])


def test_the_network_keeps_the_contract(tmp_path):
    written("networks", tmp_path)
    launch.resolve(words("networks")[1:], trains=True)
    config = recipes.config("digits")
    config.model.name = "NormNet"
    assert config.model.NormNet.to_dict() == {"width": 16}
    module = make_model_plan(config.model.to_dict()).create(3, head=models.Head())
    external.check(module, (8, 8, 1), outputs=3, synchronised=False)


def test_an_nnx_network_keeps_the_contract(tmp_path):
    from flax import nnx

    class MyNet(nnx.Module):
        def __init__(self, num_classes: int, *, rngs: nnx.Rngs):
            self.norm, self.out = nnx.BatchNorm(64, rngs=rngs), nnx.Linear(64, num_classes, rngs=rngs)

        def __call__(self, images, use_running_average: bool):
            flat = images.reshape(len(images), -1)
            return self.out(self.norm(flat, use_running_average=use_running_average))

    space = runpy.run_path(str(written("networks", tmp_path))) | {"MyNet": MyNet, "__name__": "my_nnx"}
    exec(blocks("networks")[1], space)
    external.check(models.create("FromNNX", num_classes=3), (8, 8, 1), outputs=3, synchronised=False)


@pytest.mark.slow
def test_the_method_and_the_wrapper_compute_what_they_say(tmp_path):
    runpy.run_path(str(written("methods", tmp_path)))
    config = recipes.default()
    config.student.method, config.student.wrappers = "focal_at", ("light_head",)
    assert planned.make_method(config, "student").name == "focal_at+light_head"
    method = methods.create("focal_at", INNER, gamma=1.0)
    value, _ = toy_loss(method)  # logits 0.5, 1.5, 0 at the adversarial image; the label is 0
    right = float(jax.nn.softmax(jnp.array([0.5, 1.5, 0.0]))[0])
    assert float(value) == pytest.approx(-(1 - right) * np.log(right), rel=1e-5)
    # Class 0 has 100 images, more than the mean of 100, 30 and 10.
    lighter, _ = toy_loss(methods.wrap(method, "light_head", weight=0.25))
    assert float(lighter) == pytest.approx(0.25 * float(value), rel=1e-5)
    with pytest.raises(ValueError, match="cannot wrap mart: its loss is not a mean"):
        methods.wrap(methods.create("mart", INNER), "light_head")
    adv = on_one_device(lambda: method.attack(toy_learner(), toy_batch()))
    assert adv.shape == (1, 1, 1, 1)


@pytest.mark.slow
def test_the_attack_is_evaluated_beside_the_packages(tmp_path):
    space = runpy.run_path(str(written("attacks", tmp_path)))
    rows = np.arange(0, 1000, 50)
    fixture = linear.fixture()

    def evaluated(rows):
        images, labels = fixture.images[rows], fixture.labels[rows]
        logits_fn = lambda points: linear.apply(fixture.weights, points)  # noqa: E731
        return lt.evaluate(logits_fn, images, labels, protocol=space["PROTOCOL"], ids=rows, progress=False)

    evaluation = evaluated(rows)
    assert evaluation.columns == ("clean", "pgd20", "decreasing20", "worst")
    assert evaluation.max_violation < 1e-6
    exact = linear.exactly_robust(8, rows)
    robust = evaluation.correct("decreasing20")
    assert np.all(robust >= exact)
    assert np.mean(robust == exact) >= 0.9
    # A verdict does not depend on the other images.
    np.testing.assert_array_equal(evaluated(rows[:7]).correct("decreasing20"), robust[:7])


@pytest.mark.ci
def test_the_network_and_the_attack_run_as_programs(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path)}
    (tmp_path / "runs").mkdir()
    for guide, expected in (("networks", "worst"), ("attacks", "decreasing20")):
        file = written(guide, tmp_path)
        text = file.read_text().replace('lt.open_run("runs/digits")', 'lt.open_run("runs/norm_net", model=NormNet)')
        # A shorter run than the guide's: optimised programs of a whole recipe take minutes.
        for whole, short in (
            ("student.epochs = 10", "student.epochs = 1; config.eval.limit = 1"),
            ("test.images, test.labels", "test.images[:8], test.labels[:8]"),
        ):
            text = text.replace(whole, short)
        file.write_text(text if guide == "networks" else "from my_network import NormNet\n" + text)
        ran = subprocess.run([sys.executable, file.name], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-4000:]
        assert expected in ran.stdout
