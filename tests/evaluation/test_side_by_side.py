"""Runs and guesses side by side give the record that one search for each image gives, bit for bit."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import search as searches
from ltrobust.attacks.algorithms import apgd, square
from ltrobust.evaluation import protocols
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.threat import Threat

# Bits of two programs are compared.
pytestmark = [pytest.mark.optimized, pytest.mark.slow]

SIDE, CLASSES, NUMBER = 8, 10, 40
# At which the first runs break some images, later runs others, and none the rest.
THREATS = {"linf": Threat("linf", 8), "l2": Threat("l2", 50)}
ATTACKS = {
    "apgd-ce": protocols.Apgd("apgd-ce", "ce", steps=12),
    "apgd-t": protocols.Apgd("apgd-t", "targeted_dlr", steps=5, targets=9),
    "fab-t": protocols.Fab("fab-t", steps=4),
    "square": protocols.Square("square", queries=60),
}


@functools.cache
def subject(seed: int) -> Subject:
    """A drawn network of two layers, and drawn images, all of them right."""
    keys = jax.random.split(jax.random.key(seed), 4)
    pixels = SIDE * SIDE * 3
    weights = (
        2 * jax.random.normal(keys[0], (pixels, 16)) / np.sqrt(pixels),
        1.5 * jax.random.normal(keys[1], (16, CLASSES)),
        0.1 * jax.random.normal(keys[2], (16, CLASSES)),
    )
    images = np.asarray(jax.random.uniform(keys[3], (NUMBER, SIDE, SIDE, 3)), np.float32)
    labels = np.asarray(jnp.argmax(apply(weights, images), axis=1), np.int64)
    return Subject(weights, images, labels, np.arange(NUMBER))


def apply(weights, images):
    return jnp.tanh(2 * (images.reshape(len(images), -1) - 0.5) @ weights[0]) @ weights[1]


def other(weights, images):
    """Rejects some claims of searches on `apply`."""
    return apply((weights[0], weights[1] + weights[2]), images)


@functools.cache
def driver(norm: str, exact=apply) -> Driver:
    options = {"num_classes": CLASSES, "batch_size": 64, "seed": 3, "place": jax.device_put, "devices": 1}
    return Driver(apply, exact, threat=THREATS[norm], **options)


@functools.cache
def programs(search, norm: str, exact):
    """Begins lanes, asks the network, and judges what was found; compiled once for all settings."""
    threat = THREATS[norm]
    return (
        jax.jit(lambda whole, settings: searches.begin(search, whole, settings, threat, jnp.ones(64, bool))),
        jax.jit(
            # The number is an argument, because the compiler may treat a loop of known length in other roundings.
            lambda variables, lanes, settings, number: searches.work(
                search, lambda points: apply(variables, points), lanes, settings, threat, evaluations=number
            )
        ),
        jax.jit(lambda variables, points: jnp.argmax(exact(variables, points), axis=1)),
    )


def in_turn(given: Subject, attack, norm: str, exact, logits):
    """Each image in one lane: all runs one after another, every claim judged. Row -> what a verdict records.

    The target of an image is the one before the evaluation that made the claim.
    """
    search, settings = attack.build(THREATS[norm], CLASSES, given.images.shape[1:])
    begin, step, judge = programs(search, norm, exact)
    keys = searches.keys_of(searches.draws(3, attack.name), jnp.asarray(given.ids, jnp.uint32))
    labels = jnp.asarray(given.labels, jnp.int32)
    problem = searches.Problem(jnp.asarray(given.images), labels, jnp.asarray(logits), keys)
    whole = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf])[:64], problem)  # as many rows as the driver's
    lanes = begin(whole, settings)
    rejected, targets = np.zeros(64, int), np.full(64, -1)
    while np.any(lanes.occupied):
        running, aimed = np.asarray(searches.running(lanes)), np.asarray(lanes.state.target)
        lanes = step(given.variables, lanes, settings, np.int32(1))
        claimed, finished = np.asarray(lanes.state.claimed), np.asarray(lanes.state.finished)
        targets = np.where(running & claimed, aimed, targets)
        right = np.asarray(judge(given.variables, lanes.state.candidate)) == np.asarray(whole.label)
        again = np.asarray(lanes.occupied) & claimed & right
        rejected += again
        state = lanes.state._replace(claimed=jnp.asarray(claimed & ~again))
        lanes = lanes._replace(
            state=state, occupied=jnp.asarray(np.asarray(lanes.occupied) & (~claimed | again) & ~finished)
        )
    fields = (lanes.evaluations, targets, rejected, lanes.non_finite, lanes.state.candidate)
    return {row: [np.asarray(field)[row] for field in fields] for row in range(NUMBER)}


@pytest.mark.parametrize(("name", "norm", "exact"), list(itertools.product(ATTACKS, THREATS, (apply, other))))
def test_the_record_of_an_image_is_that_of_its_runs_in_turn(name, norm, exact):
    attack, driven, given = ATTACKS[name], driver(norm, exact), subject(0)
    logits = np.asarray(driven.clean(given).logits)
    expected, ends = in_turn(given, attack, norm, exact, logits), set()
    # More pairs of image and run than lanes, then fewer; the second is what a resumed evaluation still attacks.
    for rows in (np.arange(NUMBER), np.arange(NUMBER)[1::7]):
        seen = []
        for judged in driven.attack(given, attack, rows, logits):
            for place, row in enumerate(judged.rows):
                evaluations, target, rejected, non_finite, image = expected[row]
                verdict, broken = judged.verdicts[place], judged.verdicts["prediction"][place] != given.labels[row]
                assert verdict["evaluations"] == evaluations
                assert verdict["target"] == (target if broken else -1)
                assert verdict["rejected_claims"] == rejected
                assert verdict["non_finite"] == non_finite
                np.testing.assert_array_equal(judged.images[place], image)
                ends.add((bool(broken), bool(rejected)))
            seen += judged.rows.tolist()
        assert sorted(seen) == rows.tolist()
    assert norm == "l2" or {broken for broken, _ in ends} == {True, False}
    assert any(rejected for _, rejected in ends) or (name, exact) != ("fab-t", other)


@pytest.mark.parametrize(("name", "norm"), list(itertools.product(["apgd-t", "fab-t"], THREATS)))
def test_an_image_broken_by_the_last_step_of_a_run_has_the_target_of_that_run(name, norm):
    # One lane for each image, and so few steps that most images are broken by the last one of a run.
    driven, given, on_the_last = driver(norm), subject(0), 0
    logits = np.asarray(driven.clean(given).logits)
    order = np.asarray(jax.vmap(apgd.target_order)(jnp.asarray(logits), jnp.asarray(given.labels)))
    for steps in (1, 2, 3):
        attack = dataclasses.replace(ATTACKS[name], steps=steps)
        expected = in_turn(given, attack, norm, apply, logits)
        for judged in driven.attack(given, attack, np.arange(NUMBER), logits):
            for row, verdict in zip(judged.rows, judged.verdicts, strict=True):
                if verdict["prediction"] == given.labels[row]:
                    assert verdict["target"] == -1
                    continue
                assert verdict["target"] == expected[row][1]
                if name == "apgd-t":  # a run costs as many evaluations as steps, and one at its start
                    run, place = divmod(int(verdict["evaluations"]) - 1, steps + 1)
                    assert verdict["target"] == order[row][run]
                    on_the_last += place == steps
    assert on_the_last or name == "fab-t"


@pytest.mark.parametrize("guesses", [2, 5])
def test_square_ends_alike_whatever_the_number_of_guesses(guesses):
    given, threat = subject(0), THREATS["linf"]
    search, settings = ATTACKS["square"].build(threat, CLASSES, given.images.shape[1:])
    keys = searches.keys_of(jax.random.key(1), jnp.arange(NUMBER, dtype=jnp.uint32))
    options = {"settings": settings, "threat": threat}
    function = functools.partial(apply, given.variables)
    one, several = (
        searches.run(kind, function, given.images, given.labels, keys, **options)
        for kind in (search, square.search(guesses))
    )
    np.testing.assert_array_equal(one.evaluations, several.evaluations)
    for field in ("candidate", "best", "margin", "query", "claimed", "finished"):
        np.testing.assert_array_equal(getattr(one.state, field), getattr(several.state, field), err_msg=field)
    assert 0 < int(one.state.claimed.sum()) < NUMBER
