"""Whole runs of a user's networks by a user's method: training, checkpoint, restoration, card, teachers."""

import json

import jax
import numpy as np
import own
import planned
import pytest

from ltrobust import methods, models, recipes
from ltrobust import run as runs
from ltrobust.training import teachers

# Name -> parameters: convolution, BatchNorm's scale and bias, dense layer.
NETWORKS = {"Plain": (9 + 1) * 4 + (4 * 4 * 4 + 1) * 10, "Normed": 9 * 4 + 2 * 4 + (4 + 1) * 10}


def small(network: str):
    """A configuration of one short phase."""
    config = recipes.load("configs/digits.py")
    config.data.imbalance_ratio = 4.0
    config.model.name = network
    config.student.method = "half_at"
    config.student.epochs = 1
    config.student.attack.steps = 1
    config.eval.protocol = "validation"
    config.eval.limit = 4
    config.eval.also = ()
    return config


@pytest.fixture(scope="module", autouse=True)
def _registered():
    methods.register(own.half_at)
    for network in (own.Plain, own.Normed):
        models.register(network)
    yield
    del methods.REGISTRY["half_at"]
    models.REGISTERED.clear()


@pytest.fixture(scope="module", params=NETWORKS)
def finished(request, tmp_path_factory):
    """Name, configuration, workdir and card of a run."""
    config = small(request.param)
    workdir = tmp_path_factory.mktemp("own")
    return request.param, config, workdir, json.loads(runs.train(config, workdir).read_text())


def test_the_card_is_complete(finished):
    name, _, _, card = finished
    assert card["model"] == {"name": name, "parameters": NETWORKS[name]}
    network = card["networks"]["student/last"]
    assert network["classifier"]["head"] == "linear"
    assert len(network["classifier"]["class_norms"]) == 10
    assert card["training"]["student"]["steps"] > 0
    assert card["config"]["methods"]["half_at"] == {"share": 1.0, "terms": []}


def test_a_restored_network_has_the_numbers_of_the_run(finished):
    _, config, workdir, card = finished
    again = json.loads(runs.evaluate(config, workdir).read_text())
    assert again["networks"] == card["networks"]


def test_it_teaches_and_is_started_from(finished):
    name, config, workdir, _ = finished
    known = teachers.from_checkpoints(str(workdir), "last", num_classes=10, image_shape=(8, 8, 1))
    assert known.about["model"] == name
    logits = known.teacher.logits(np.zeros((2, 8, 8, 1), np.float32))
    assert logits.shape == (2, 10)
    config = config.copy_and_resolve_references()
    config.student.initialize = str(workdir)
    trained = runs.fit(config, workdir.parent / f"{workdir.name}-more")
    assert set(trained.networks) >= {"student/last"}
    assert not np.allclose(
        jax.tree.leaves(trained.networks["student/last"].weights.params)[0], jax.tree.leaves(known.teacher.params)[0]
    )


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("Plain", "robal", "student: the method asks for a head of cosines, and Plain has no field head that takes it"),
        ("Plain", "reat", "the method reads features, and Plain offers none; end the network with self.head"),
    ],
)
def test_methods_that_need_features_say_so(tmp_path, name, method, message):
    config = small(name)
    config.student.method = method
    with pytest.raises(ValueError, match=message):
        runs.fit(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Normed", "reat"),
        pytest.param("Normed", "robal", marks=pytest.mark.slow),
        pytest.param("Plain", "label_aug", marks=pytest.mark.slow),
    ],
)
def test_networks_that_offer_what_a_method_needs_are_trained_by_it(tmp_path, name, method):
    config = small(name)
    config.student.method = method
    config.student.steps = 2
    networks = runs.fit(config, tmp_path / "run").networks
    assert networks["student/last"].head == planned.make_method(config, "student").head
