"""The examples run as the README says."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.data import sources
from ltrobust.evaluation import store
from ltrobust.models import torch_weights

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"
MEAN, STD = np.float32([0.5, 0.4, 0.45]), np.float32([0.25, 0.2, 0.3])


def run(name: str, *flags: str, home: pathlib.Path) -> subprocess.CompletedProcess[str]:
    # Attacks run for seconds here, which pays for optimisation.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HOME": str(home), "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, str(EXAMPLES / name), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def mistaken(shared_data, tmp_path):
    """A file of weights that take the first image of every class for the next class, and those positions.

    Only where input is normalised by `MEAN` and `STD`. With nothing right, no attack has anything to do. The network is
    the smallest wide ResNet.
    """
    pytest.importorskip("safetensors")
    test = sources.load("cifar10", "test", data_dir=shared_data / "tfds", cache_dir="")
    rows = np.sort([np.flatnonzero(test.labels == label)[0] for label in range(10)])
    module = models.create("wrn_10_1", num_classes=10)
    params, batch_stats = models.initialise(module, jax.random.key(0), (32, 32, 3))
    variables = {"params": params, "batch_stats": batch_stats}
    images = jnp.asarray((test.images[rows].astype(np.float32) / 255 - MEAN) / STD)
    _, sown = module.apply(variables, images, use_running_average=True, mutable=["intermediates"])
    features = np.asarray(sown["intermediates"]["features"][0], float)
    wanted = np.eye(10)[(test.labels[rows] + 1) % 10]
    kernel = np.linalg.lstsq(features - features.mean(0), wanted - wanted.mean(0), rcond=None)[0]
    bias = wanted.mean(0) - features.mean(0) @ kernel
    params = {**params, "linear": {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}}
    torch_weights.write(tmp_path / "weights.safetensors", torch_weights.to_torch(params, batch_stats, "wrn_10_1"))
    return tmp_path / "weights.safetensors", test.labels[rows]


@pytest.mark.slow
def test_a_pytorch_checkpoint_is_evaluated_with_its_normalisation(mistaken, shared_data, tmp_path):
    weights, labels = mistaken
    found = run(
        "evaluate_pytorch.py",
        f"--weights={weights}",
        "--model=wrn_10_1",
        f"--data_dir={shared_data / 'tfds'}",
        "--protocol=quick",
        "--limit=1",
        f"--mean={','.join(map(str, MEAN))}",
        f"--std={','.join(map(str, STD))}",
        f"--store={tmp_path / 'verdicts'}",
        "--batch_size=64",
        home=tmp_path,
    )
    assert found.returncode == 0, found.stderr
    assert "clean accuracy 0.00 % on 10 images" in found.stdout
    assert "protocol quick, linf 8/255, 10 images" in found.stdout
    _, verdicts = store.read(tmp_path / "verdicts")
    # Keyed by position in the test set: the first image of each class, in file order.
    predictions = [line.prediction for _, line in sorted(verdicts["clean"].items())]
    assert predictions == ((labels + 1) % 10).tolist()


@pytest.mark.slow
def test_a_mistake_is_told_in_one_line(shared_data, tmp_path):
    found = run(
        "evaluate_pytorch.py",
        f"--weights={tmp_path / 'weights.xyz'}",
        f"--data_dir={shared_data / 'tfds'}",
        home=tmp_path,
    )
    assert found.returncode == 1
    assert "ltrobust:" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.slow
@pytest.mark.ci
def test_networks_and_a_method_of_ones_own_are_one_file(tmp_path):
    """The file is a program, and `--code` loads it for a later command on one of its runs."""
    found = run("own_network_and_method.py", str(tmp_path), home=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("right under APGD: ") == 2
    for network in ("PlainNet", "NormNet"):
        card = json.loads((tmp_path / network / "results" / "quick.json").read_text())
        assert card["model"]["name"] == network
        assert card["config"]["methods"]["focal_at"] == {"gamma": 1.0}
        assert card["data"]["evaluated"] == 100
        assert list(card["training"]) == ["student"]
    script = EXAMPLES / "own_network_and_method.py"
    again = ["../main.py", "--mode=evaluate", f"--workdir={tmp_path / 'NormNet'}", "--config.eval.protocol=validation"]
    told = run(*again, home=tmp_path)
    assert told.returncode == 1
    assert "settings of the method focal_at, which is not registered; load the file" in told.stderr
    assert "Traceback" not in told.stderr
    found = run(*again, f"--code={script}", home=tmp_path)
    assert found.returncode == 0, found.stderr
    restored = json.loads((tmp_path / "NormNet" / "results" / "validation-student.json").read_text())
    trained = card["networks"]["student/last"]
    assert restored["networks"]["student/last"]["params_sha256"] == trained["params_sha256"]


def test_the_example_is_short():
    text = (EXAMPLES / "own_network_and_method.py").read_text()
    driver = text[text.index("def main(") :].strip().splitlines()
    assert len(driver) <= 25
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert all(node.end_lineno - node.lineno < 20 for node in classes)
