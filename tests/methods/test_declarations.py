"""What wrappers declare: every pair of built-in ones, every built-in method, and wrappers of a user."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import INNER, on_one_device, toy_learner

from ltrobust import methods
from ltrobust.methods.declarations import ATTRIBUTES, declared

BEFORE, ONE = "name {outer} before {inner}", "leave out {outer} or {inner}"
# Wrappers that cannot stand in this order (inner, outer) around a method that all of them can wrap: what to do.
PAIRS = {
    ("awp", "fair_ard"): BEFORE,
    ("awp", "cfa"): BEFORE,
    ("awp", "weak_class_reweight"): BEFORE,
    ("robust_lt", "fair_ard"): BEFORE,
    ("robust_lt", "cfa"): ONE,
    ("robust_lt", "weak_class_reweight"): BEFORE,
    ("cfa", "robust_lt"): ONE,
    ("cfa", "fair_ard"): BEFORE,
    ("cfa", "weak_class_reweight"): ONE,
    ("weak_class_reweight", "cfa"): ONE,
    ("weak_class_reweight", "fair_ard"): ONE,
    ("fair_ard", "weak_class_reweight"): ONE,
}
# Wrappers that cannot wrap a method by itself.
REFUSED = {
    "pgd_at": {"fair_ard"},
    "trades": {"fair_ard"},
    "mart": {"fair_ard", "weak_class_reweight"},
    "fat": {"fair_ard"},
    "at_bsl": {"fair_ard"},
    "robal": {"igdm", "fair_ard", "weak_class_reweight"},
    "reat": {"fair_ard", "weak_class_reweight"},
    "taet": {"igdm", "fair_ard", "weak_class_reweight"},
    "self_distillation": {"igdm", "fair_ard"},
    "chi2_class_dro": {"fair_ard", "weak_class_reweight"},
    "label_aug": {"igdm", "fair_ard"},
    "dafa": {"robust_lt", "fair_ard", "cfa", "weak_class_reweight"},
    "wat": {"fair_ard", "cfa", "weak_class_reweight"},
    "frl": {"fair_ard", "cfa", "weak_class_reweight"},
    "bat": {"igdm", "fair_ard", "weak_class_reweight"},
    "faal": {"fair_ard"},
}
BUILT_IN, BUILT_IN_WRAPPERS = tuple(methods.REGISTRY), tuple(methods.WRAPPERS)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    for name in ("REGISTRY", "WRAPPERS"):
        monkeypatch.setattr(methods, name, dict(getattr(methods, name)))


def wrapped(name, *wrappers):
    method = methods.create(name, INNER)
    for wrapper in wrappers:
        method = methods.wrap(method, wrapper)
    return method


@pytest.mark.parametrize("pair", tuple(itertools.permutations(BUILT_IN_WRAPPERS, 2)), ids="+".join)
def test_each_pair_of_wrappers_fits_or_is_refused_with_both_names_and_what_to_do(pair):
    if pair not in PAIRS:
        assert wrapped("ard", *pair).name == "+".join(("ard", *pair))
        return
    inner, outer = pair
    remedy = PAIRS[pair].format(inner=inner, outer=outer)
    with pytest.raises(ValueError, match=rf"^{outer} cannot wrap ard\+{inner}(, whose wrapper |: its).*; {remedy}\.$"):
        wrapped("ard", *pair)
    if PAIRS[pair] == BEFORE:
        assert wrapped("ard", outer, inner).name == f"ard+{outer}+{inner}"


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_method_is_refused_by_the_wrappers_that_cannot_wrap_it(name):
    for wrapper in BUILT_IN_WRAPPERS:
        if wrapper in REFUSED.get(name, ()):
            with pytest.raises(ValueError, match=rf"^{wrapper} cannot wrap {name}(, which|: its|: it does)"):
                wrapped(name, wrapper)
        else:
            wrapped(name, wrapper)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("trades", "awp", "cfa"), ", whose wrapper awp perturbs weights; name cfa before awp."),
        (("frl", "awp", "cfa"), ", which learns from validation; leave out cfa, or choose another method or other"),
        (("at_bsl", "cfa", "awp", "robust_lt"), ", whose wrapper cfa sets radii; leave out robust_lt or cfa."),
        (("wat", "cfa"), ", which observes the validation part; leave out cfa"),
        (("robal", "awp", "igdm"), r": its outputs are not the logits of test time .*; it needs a list of train-mode"),
        (("self_distillation", "igdm"), r", which matches gradients by itself .*beta.*; leave out igdm"),
        (("ard", "cfa", "fair_ard"), r": its attack does not follow one objective .*; name fair_ard before cfa"),
        (
            ("pgd_at", "awp", "fair_ard"),
            r".*Method.objective\); it needs an attack that follows one objective and a loss that is a mean over "
            "examples, as ard, iad, iad2, rslad, adaad, adaiad, mtard, b_mtard have.",
        ),
        (
            ("dafa", "weak_class_reweight"),
            r".*weighted\); it needs a loss .*, as pgd_at, trades, .* and others",
        ),
    ],
)
def test_messages(names, message):
    *inside, outer = names
    with pytest.raises(ValueError, match=re.escape(f"{outer} cannot wrap {'+'.join(inside)}") + message):
        wrapped(*names)


def test_what_built_in_wrappers_declare_is_what_they_change():
    """Of the attributes that a wrapper may set, it sets those that it declares on a method that leaves it all."""
    for name in BUILT_IN_WRAPPERS:
        before, after = wrapped("ard"), wrapped("ard", name)
        changed = {each for each in ATTRIBUTES if getattr(before, each) != getattr(after, each)}
        # How a wrapper adds to a method: its check, what its attack returns, its passes.
        added = {"check", "adv_images", "objective", "passes", "weighted", "regularization", "teachers"}
        assert changed - added == set(declared(methods.WRAPPERS[name]).sets), name


# A user's wrappers


@methods.declares(needs=("regularization",), sets=("radii",))
def halved(method, *, share: float = 0.5):
    """Half of the radius."""

    def radii(learner, labels):
        radius = jnp.full(labels.shape, share * method.inner.threat.epsilon)
        return radius, radius / 4

    return dataclasses.replace(method, radii=radii)


@methods.declares(sets=("initial_state",))
def counted(method):
    """How many steps there were."""

    def loss(learner, batch, adv):
        value, outcome = method.loss(learner.inside, batch, adv)
        state = {"steps": learner.method_state["steps"] + 1, "method": outcome.method_state}
        return value, dataclasses.replace(outcome, method_state=state)

    return dataclasses.replace(
        method,
        attack=lambda learner, batch: method.attack(learner.inside, batch),
        loss=loss,
        objective=None,
        initial_state=lambda *given: {"steps": jnp.int32(0), "method": method.initial_state(*given)},
    )


def undeclared(method):
    """Says nothing of the weights that it moves."""
    nothing = lambda learner, gradients, update: jax.tree.map(jnp.zeros_like, gradients)  # noqa: E731
    return dataclasses.replace(method, perturb_weights=nothing)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("trades", "robust_lt", "halved"),
            r"trades\+robust_lt, whose wrapper robust_lt sets radii; leave out halved",
        ),
        (("trades", "halved", "cfa"), r"trades\+halved, whose wrapper halved sets radii; leave out cfa or halved"),
        (("trades", "awp", "counted"), r"trades\+awp, whose wrapper awp perturbs weights; name counted before awp"),
        (
            ("pgd_at", "halved"),
            r"pgd_at: it does not set regularization .*; it needs Method.regularization, as trades",
        ),
        (("wat", "counted"), "wat, which observes the validation part; leave out counted, or choose another method"),
    ],
)
def test_a_users_wrapper_is_checked_like_the_built_in_ones(names, message):
    for function in (halved, counted):
        methods.register(function)
    with pytest.raises(ValueError, match=f"{names[-1]} cannot wrap {message}"):
        wrapped(*names)
    assert wrapped("trades", "counted", "halved", "awp").name == "trades+counted+halved+awp"


def test_a_hook_that_is_not_declared_is_named_with_what_to_write():
    methods.register(undeclared)
    with pytest.raises(
        ValueError, match=r"wrapper undeclared sets perturb_weights .*@ltrobust.methods.declares\(sets=\('perturb_wei"
    ):
        wrapped("pgd_at", "undeclared")


def attacks_anew(method, *, keeps: bool = True):
    """An additional attack, beside the method's objective or without it."""
    attack = lambda learner, batch: batch.images  # noqa: E731
    return dataclasses.replace(method, attack=attack, objective=method.objective if keeps else None)


def test_an_attack_beside_the_objective_of_another_is_refused():
    methods.register(attacks_anew)
    ard = wrapped("ard")
    with pytest.raises(
        ValueError, match=r"wrapper attacks_anew changes attack, .*objective of ard.*; set objective=No"
    ):
        methods.wrap(ard, "attacks_anew")
    assert methods.wrap(ard, "attacks_anew", keeps=False).objective is None
    assert methods.wrap(dataclasses.replace(ard, objective=None), "attacks_anew").name == "ard+attacks_anew"


@methods.declares(sets=("initial_state",))
def fails_around_a_bare_method(method):
    """Works inside of `awp` alone, as a function of a user may."""
    if method.perturb_weights is None:
        raise RuntimeError("not this one")
    return method


def test_a_wrapper_that_fails_while_a_message_is_made_does_not_hide_it():
    methods.register(fails_around_a_bare_method)
    name = "fails_around_a_bare_method"
    with pytest.raises(ValueError, match=rf"^{name} cannot wrap trades\+awp, whose .*; leave out {name} or awp\.$"):
        wrapped("trades", "awp", name)


def test_only_attributes_of_a_method_can_be_declared():
    with pytest.raises(ValueError, match="declares 'radius'; did you mean radii\\? known: teachers, passes"):
        methods.declares(sets=("radius",))
    with pytest.raises(ValueError, match="declares 'loss'; "):  # every method has one
        methods.declares(needs=("loss",))


def small_for_tail(method, *, tail: float = 0.5):
    """Weight `tail`, and half of the radius, for classes with fewer images than the mean."""
    threat = method.inner.threat

    def is_tail(learner, labels):
        return (learner.class_counts < jnp.mean(learner.class_counts))[labels]

    def radii(learner, labels):
        radius = jnp.where(is_tail(learner, labels), 0.5, 1.0) * threat.epsilon
        return radius, radius / 4

    def loss(learner, batch, adv):
        weights = jnp.where(is_tail(learner, batch.labels), tail, 1.0)
        return method.loss(learner, dataclasses.replace(batch, weights=weights), adv)

    return dataclasses.replace(method, loss=loss, radii=radii, weighted=False)


def test_a_wrapper_of_weights_and_radii():
    methods.register(methods.declares(needs=("weighted",), sets=("radii",))(small_for_tail))
    method = wrapped("trades", "small_for_tail", "awp")
    batch = methods.make_batch(method, toy_learner(), *toy_examples(jnp.array([0, 1, 2])))
    # Of 100, 30 and 10 images, the mean is 46.7.
    np.testing.assert_allclose(255 * batch.radius, [16, 8, 8], rtol=1e-6)
    plain = jax.jit(lambda weights: on_one_device(lambda: loss_of(wrapped("trades"), batch, weights)))
    np.testing.assert_allclose(
        on_one_device(lambda: loss_of(method, batch, None)), plain(jnp.array([1.0, 0.5, 0.5])), rtol=1e-6
    )
    with pytest.raises(ValueError, match="cannot wrap mart: its loss is not a mean"):
        wrapped("mart", "small_for_tail")
    with pytest.raises(ValueError, match="leave out small_for_tail or robust_lt"):
        wrapped("trades", "robust_lt", "small_for_tail")


def toy_examples(labels):
    return jnp.zeros((len(labels), 1, 1, 1)), labels, jax.random.split(jax.random.key(0), len(labels))


def loss_of(method, batch, weights):
    return method.loss(toy_learner(), dataclasses.replace(batch, weights=weights), jnp.ones(batch.images.shape))[0]


def test_averaging_without_an_end_of_the_epoch_is_refused():
    with pytest.raises(ValueError, match="method pgd_at has averaging, which is asked after end_epoch"):
        dataclasses.replace(methods.create("pgd_at", methods.InnerAttack()), averaging=lambda state: 0.5)
