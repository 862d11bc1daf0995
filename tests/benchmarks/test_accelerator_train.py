"""What a training part leaves: verdicts that give the card's numbers, weights in two files, protocols of dry runs."""

import jax
import numpy as np
import pytest
from fabricated import write_run

from benchmarks.accelerator import dry, train
from ltrobust import models
from ltrobust.analysis import cards
from ltrobust.evaluation import protocols
from ltrobust.training.state import Weights


def test_verdicts_of_the_files_give_the_accuracies_of_the_card(tmp_path):
    card = cards.read(write_run(tmp_path))
    result = train.verdicts(tmp_path, card.networks)
    for name, network in card.networks.items():
        shown = train.accuracies(network.columns)
        for column, views in shown.items():
            correct = result[f"{name}|{column}"] == result["labels"]
            assert np.mean(correct) == pytest.approx(views["overall"])
            per_class = [np.mean(correct[result["labels"] == label]) for label in range(10)]
            assert min(per_class) == pytest.approx(views["worst"])
    assert len(result["ids"]) == len(np.unique(result["ids"])) == card.data.evaluated
    assert {array.dtype.name for array in result.values()} == {"int32", "uint8"}


def test_weights_are_left_in_two_files_that_hold_every_leaf_once_rounded_to_16_bit(tmp_path):
    module = models.create("small_resnet", num_classes=10, width=8)
    weights = Weights(*models.initialise(module, jax.random.key(0), (8, 8, 1)))
    train.leave_weights(weights, tmp_path / "trio-seed0-student")
    files = [dict(np.load(tmp_path / f"trio-seed0-student-{number}.npz")) for number in (1, 2)]
    assert not files[0].keys() & files[1].keys()
    held = files[0] | files[1]
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    assert len(held) == len(leaves)
    for path, leaf in leaves:
        np.testing.assert_array_equal(held[jax.tree_util.keystr(path)], np.asarray(leaf).astype(np.float16))
    sizes = [sum(array.nbytes for array in file.values()) for file in files]
    largest = max(array.nbytes for array in held.values())
    assert abs(sizes[0] - sizes[1]) <= 2 * largest


@pytest.mark.parametrize("name", ["quick", "standard"])
def test_a_dry_protocol_has_the_same_attacks_with_few_steps_and_never_the_name(name, monkeypatch):
    monkeypatch.setattr(protocols, "PROTOCOLS", dict(protocols.PROTOCOLS))
    before = protocols.get(name)
    short = protocols.get(dry.protocol(name))
    assert short.name == f"dry_{name}"
    assert [attack.name for attack in short.attacks] == [attack.name for attack in before.attacks]
    assert [type(attack) for attack in short.attacks] == [type(attack) for attack in before.attacks]
    assert max(getattr(attack, "steps", 0) for attack in short.attacks) <= 2
    assert protocols.get(name) is before
    assert (short.combined, short.sanity) == (before.combined, before.sanity)
