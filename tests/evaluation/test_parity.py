"""Real networks and images: the public AutoAttack's verdicts, whatever the batch, the order and the devices."""

import dataclasses
import functools

import golden
import jax
import numpy as np
import pytest

import ltrobust
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator
from ltrobust.training import devices

IMAGES = 96
# Of which so many are evaluated six times.
REPEATED = 40
# `standard` with fewer iterations and queries, which every batch size can be tried with.
SHORT = protocols.Protocol(
    "short",
    (
        protocols.PGD20,
        protocols.Apgd("apgd-ce", "ce", steps=20),
        protocols.Apgd("apgd-t", "targeted_dlr", steps=10, targets=9, after=("apgd-ce",)),
        protocols.Fab("fab-t", steps=10, after=("apgd-ce", "apgd-t")),
        protocols.Square("square", queries=100),
    ),
)


@functools.cache
def evaluator(shared_data, name, protocol, batch_size, number):
    """Divides over so many devices; its programs are compiled once for all that evaluate in the same way."""
    _, _, logits_fn, record = golden.load(shared_data, name)
    where = devices.sharding(devices.make_mesh(jax.devices()[:number]), devices.divided())
    return make_evaluator(
        lambda _, points: logits_fn(points),
        protocol=protocol,
        threat=ltrobust.Threat("linf", float(record["radius_255"])),
        num_classes=10,
        batch_size=batch_size,
        place=lambda batch: jax.device_put(batch, where),
        devices=number,
    )


def run(shared_data, name, rows, protocol=SHORT, batch_size=64, number=1):
    images, labels, _, record = golden.load(shared_data, name)
    evaluate_rows = evaluator(shared_data, name, protocol, batch_size, number)
    return evaluate_rows((), np.asarray(images)[rows], np.asarray(labels)[rows], ids=rows), record


def differing(one, other, order):
    """How many images differ in any column, and in the number of evaluations."""
    verdicts = [one.predictions[name][order] != other.predictions[name] for name in one.predictions]
    paths = [one.records[name]["evaluations"][order] != other.records[name]["evaluations"] for name in one.records]
    return int(np.any(verdicts, axis=0).sum()), int(np.any(paths, axis=0).sum())


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", golden.NAMES)
def test_no_verdict_depends_on_batch_size_order_or_devices(shared_data, name):
    rows = np.arange(REPEATED)
    straight, _ = run(shared_data, name, rows)
    shuffled = np.random.RandomState(0).permutation(REPEATED)
    result = {
        "batch size 7": (run(shared_data, name, rows, batch_size=7)[0], rows),
        "batch size 100": (run(shared_data, name, rows, batch_size=100)[0], rows),
        "shuffled": (run(shared_data, name, shuffled)[0], shuffled),
        "half of the images": (run(shared_data, name, rows[::2])[0], rows[::2]),
        "several devices": (run(shared_data, name, rows, number=2)[0], rows),
    }
    counts = {case: differing(straight, other, order) for case, (other, order) in result.items()}
    print(f"{name}: images whose verdicts, and whose paths, differ: {counts}")
    assert all(count == (0, 0) for count in counts.values()), counts


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", golden.NAMES)
def test_the_four_attacks_in_order_decide_as_the_public_autoattack(shared_data, name):
    standard = protocols.get("standard")
    names = dict(standard.combined)["autoattack"]
    attacks = tuple(attack for attack in standard.attacks if attack.name in names)
    # What FAB-T and Square add on these networks is nothing, here and there: fewer queries decide the same.
    attacks = tuple(
        dataclasses.replace(attack, queries=200) if isinstance(attack, protocols.Square) else attack
        for attack in attacks
    )
    protocol = protocols.Protocol("four", attacks, combined=(("autoattack", names),))
    evaluation, record = run(shared_data, name, np.arange(IMAGES), protocol=protocol)
    assert np.flatnonzero(evaluation.robust != record["robust_standard"][:IMAGES]).tolist() == []
    np.testing.assert_allclose(
        evaluation.predictions["clean"], np.argmax(record["logits"][:IMAGES], axis=1), err_msg="clean predictions"
    )
