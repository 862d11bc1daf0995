"""More weight for the weakest class: the weights, when they change, around which methods; and rare classes."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from six_images import BATCH, CE, stepped
from toy import INNER, assert_same, passes, toy_batch, toy_learner, toy_loss

from ltrobust import methods
from ltrobust.methods.class_wise_wrappers import weak_class_weights

COUNTS = jnp.array([100.0, 30.0, 10.0])
LABELS = np.asarray(BATCH.labels)


def wrapped(name="pgd_at", **settings):
    return methods.wrap(methods.create(name, INNER), "weak_class_reweight", **{"plain_fraction": 0.0, **settings})


def weights(accuracy, counts=COUNTS, kappa=1.0):
    return np.asarray(weak_class_weights(jnp.array(accuracy), jnp.asarray(counts), kappa=kappa))


def test_weights_by_hand_and_their_mean_over_training_images_is_1():
    np.testing.assert_allclose(weights([0.5, 0.2, 0.8], jnp.ones(3)), [0.75, 1.5, 0.75])
    np.testing.assert_allclose(weights([0.5, 0.2, 0.8], jnp.ones(3), kappa=3.0), [0.5, 2, 0.5])
    np.testing.assert_allclose(weights([0.5, 0.2, 0.0]), np.array([1, 1, 2]) * 140 / 150, rtol=1e-6)
    rng = np.random.RandomState(0)
    for _ in range(20):
        counts, accuracy = rng.randint(1, 500, 7).astype(np.float32), rng.randint(-1, 4, 7).astype(np.float32) / 4
        result = weights(accuracy, counts, kappa=rng.uniform(0, 5))
        np.testing.assert_allclose(np.sum(counts * result) / counts.sum(), 1, rtol=1e-5)


def test_equally_weak_classes_share_and_an_unknown_one_is_never_the_weakest():
    np.testing.assert_allclose(weights([0.0, 0.4, 0.0], jnp.ones(3)), [1.2, 0.6, 1.2], rtol=1e-6)
    np.testing.assert_allclose(weights([-1.0, 0.4, 0.6], jnp.ones(3)), [0.75, 1.5, 0.75])
    np.testing.assert_array_equal(weights([-1.0, -1.0, -1.0]), 1)
    np.testing.assert_array_equal(weights([0.3, 0.3, 0.3]), 1)


def test_kappa_0_is_the_method_itself():
    base = methods.create("trades", INNER)
    assert methods.wrap(base, "weak_class_reweight", kappa=0.0) == dataclasses.replace(
        base, name="trades+weak_class_reweight"
    )


def known(method, accuracy):
    state = method.initial_state({}, COUNTS)
    return state | {"accuracy": jnp.array(accuracy)}


@pytest.mark.parametrize("devices", [1, 2])
def test_the_loss_is_the_weighted_mean_and_plain_in_the_first_epochs(devices):
    method = wrapped(plain_fraction=0.3)
    state = known(method, [0.5, 0.1, 0.4])
    value, outcome = stepped(method, state, epoch=4, devices=devices)
    np.testing.assert_allclose(value, np.mean(weights([0.5, 0.1, 0.4])[LABELS] * CE), rtol=1e-5)
    assert_same(outcome.method_state, state)
    for first in (stepped(method, state, epoch=3, devices=devices), stepped(method, epoch=4, devices=devices)):
        np.testing.assert_array_equal(first[0], stepped(methods.create("pgd_at", INNER), devices=devices)[0])


def test_accuracies_are_averaged_from_their_first_and_kept_where_there_is_none():
    method, learner = wrapped(kept=0.75), toy_learner()
    state = method.initial_state({}, COUNTS)
    for robust in ([0.4, np.nan, 0.2], [0.8, np.nan, np.nan], [0.8, 0.6, 0.2]):
        learner = dataclasses.replace(learner, method_state=state)
        state = method.end_epoch(learner, {"robust": np.array(robust), "clean": np.ones(3)})
    np.testing.assert_allclose(state["accuracy"], [0.75 * 0.5 + 0.25 * 0.8, 0.6, 0.2], rtol=1e-6)


@pytest.mark.parametrize("wrapper", ["cfa", "weak_class_reweight"])
@pytest.mark.parametrize(("base", "seen"), [("self_distillation", "axm"), ("at_bsl", "a"), ("fat", "a")])
def test_around_another_method_the_first_epoch_is_that_method(wrapper, base, seen):
    plain = methods.create(base, INNER)
    method = methods.wrap(plain, wrapper)
    assert (method.name, method.teachers) == (f"{base}+{wrapper}", plain.teachers)
    value, outcome = toy_loss(method)
    expected, plainly = toy_loss(plain)
    np.testing.assert_array_equal(value, expected)
    assert_same(outcome.metrics, plainly.metrics)
    np.testing.assert_array_equal(outcome.batch_stats["seen"], passes(seen))


@pytest.mark.parametrize("name", ["self_distillation", "at_bsl"])
def test_all_terms_of_a_weighted_loss_take_the_weights(name):
    plain, method = toy_loss(methods.create(name, INNER))[0], methods.create(name, INNER)
    assert method.weighted
    batch = dataclasses.replace(toy_batch(), weights=jnp.array([3.0]))
    np.testing.assert_allclose(toy_loss(method, batch=batch)[0], 3 * plain, rtol=1e-6)


CLASS_WISE = [
    ("chi2_class_dro", ()),
    ("dafa", ()),
    ("wat", ()),
    ("frl", ()),
    ("trades", ("cfa",)),
    ("trades", ("weak_class_reweight",)),
    ("self_distillation", ("cfa",)),
]


@pytest.mark.parametrize(("name", "wrappers"), CLASS_WISE, ids=str)
def test_a_rare_class_without_validation_images_leaves_everything_finite(name, wrappers):
    """Class 2 is rare: one image of the batch, none of the validation part; and no class is robust."""
    inner = dataclasses.replace(INNER, steps=1)
    method = methods.create(name, inner)
    for wrapper in wrappers:
        method = methods.wrap(method, wrapper)
    counts = {"class_counts": jnp.array([4000.0, 300.0, 1.0])}
    state, robust = None, np.array([0.0, 0.0, np.nan])
    for epoch in (1, 2):
        value, outcome = stepped(method, state, epoch=epoch, **counts)
        state = outcome.method_state
        assert np.isfinite(value)
        if method.end_epoch is not None:
            learner = dataclasses.replace(toy_learner(epoch, 10), method_state=state, **counts)
            observed = {"robust": robust, "clean": robust, "loss": np.array([1.0, 2.0, np.nan])}
            state = method.end_epoch(learner, observed)
        for leaf in (leaf for leaf in np.hstack([np.ravel(leaf) for leaf in _leaves(state)] or [0.0])):
            assert np.isfinite(leaf)


def _leaves(tree):
    return [leaf for value in tree.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wrapped(kappa=-1.0), "weak_class_reweight.kappa is -1.0"),
        (lambda: wrapped(kept=1.5), r"weak_class_reweight.kept is 1.5; it must lie in \[0, 1\]"),
        (lambda: wrapped("chi2_class_dro"), "cannot wrap chi2_class_dro: its loss is not a mean"),
        (lambda: wrapped("dafa"), "cannot wrap dafa: its loss is not a mean"),
        (lambda: methods.wrap(wrapped(), "cfa"), r"cfa cannot wrap pgd_at\+weak_class_reweight.*leave out"),
        (lambda: methods.wrap(methods.wrap(methods.create("pgd_at", INNER), "cfa"), "weak_class_reweight"), r"\+cfa"),
        (
            lambda: methods.wrap(methods.wrap(methods.create("pgd_at", INNER), "awp"), "weak_class_reweight"),
            "name weak_class_reweight before awp",
        ),
        (lambda: methods.wrap(methods.create("self_distillation", INNER), "chi2_class_dro"), "known wrappers: .*cfa"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
