"""Adversarial distillation: values by hand, limits, passes, and what flows through the teacher."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import INNER, Lookup, assert_same, lookup, passes, toy_batch
from toy import toy_learner as one_teacher

from ltrobust import methods
from ltrobust.attacks import objectives
from ltrobust.methods import Teacher
from ltrobust.methods.balanced_teachers import updated_weight

ADV = jnp.ones((1, 1, 1, 1))
# What every case below needs to know of the toy vector, by hand: KL(target || model) in float64.
Z = {"m": [2.5, 0.5, 0.2], "x": [2.0, 1.0, 0.0], "a": [0.5, 1.5, 0.0]}
T = {"m": [3.0, 0.2, -0.8], "x": [2.2, 0.4, -0.6], "a": [1.8, 0.3, -0.5]}
NATURAL = {"m": [0.0, 0.0, 0.0], "x": [3.0, 0.1, 0.2], "a": [-1.0, 2.0, 0.3]}


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum())


def kl(target, model, temperature=1.0):
    target, model = (log_softmax(np.asarray(logits) / temperature) for logits in (target, model))
    return float(np.sum(np.exp(target) * (target - model)))


def toy_learner(epoch=100, epochs=200, **changes):
    """The toy vector with a second teacher, late enough for every term to count; ramp 1/2."""
    learner = one_teacher(epoch, epochs)
    natural = Teacher(Lookup(), lookup(NATURAL["m"], NATURAL["x"], NATURAL["a"]), {"seen": jnp.zeros(3)})
    teachers = {**learner.teachers, "clean_teacher": natural}
    return dataclasses.replace(learner, teachers=teachers, **changes)


def lossy(method, learner, batch=None, adv=ADV):
    """Loss and outcome on one mapped device, where methods may sum over the axis."""
    batch = toy_batch() if batch is None else batch
    state = method.initial_state(learner.params, learner.class_counts)
    learner = learner if learner.method_state else dataclasses.replace(learner, method_state=state)
    run = jax.vmap(lambda _: method.loss(learner, batch, adv), axis_name="devices")
    return jax.tree.map(lambda leaf: leaf[0], run(jnp.zeros(1)))


def value_of(name, settings=(), wrappers=(), **changes):
    method = methods.create(name, INNER, **dict(settings))
    for wrapper, its in wrappers:
        method = methods.wrap(method, wrapper, **dict(its))
    adv = (ADV, jnp.array([3])) if any(wrapper == "fair_ard" for wrapper, _ in wrappers) else ADV
    return lossy(method, toy_learner(**changes), adv=adv)


GUIDE = np.exp(0.1 * log_softmax(T["a"])[0])
IAD2 = (
    -log_softmax(Z["a"])[0] / 4
    + (GUIDE * kl(T["a"], Z["a"]) + (1 - GUIDE) * kl(Z["x"], Z["a"])) / 2
    + kl(NATURAL["a"], Z["a"]) / 4
)
IGDM = ("igdm", (("alpha", 15.0),))
TOY = [
    ("ard", (), (), 0.768968),
    ("ard", (("temperature", 30.0), ("kl_scale", 1 / 3)), (), 0.252347),
    ("ard", (("teacher_weight", 0.25),), (), 0.25 * 0.768968 + 0.75 * 0.407606),
    ("iad", (), (), 0.780912),
    ("iad", (("variant", "as_released"),), (), 0.780912),
    ("iad", (("own_from", 100),), (), 0.768968),
    ("iad", (("guide_power", 0.0),), (), 0.768968),
    ("iad2", (), (), IAD2),
    ("iad2", (("own_from", 100),), (), -log_softmax(Z["a"])[0] / 4 + 0.626294 / 2 + kl(NATURAL["a"], Z["a"]) / 4),
    ("rslad", (("kl_scale", 1.0),), (), 0.650179),
    ("rslad", (("kl_scale", 1 / 3),), (), 0.216726),
    ("rslad", (), (), 0.0650179),
    ("adaad", (), (), 0.626294),
    ("adaad", (("kl_scale", 1 / 3),), (), 0.208765),
    ("adaad", (("adv_weight", 0.5),), (), 0.341262),
    ("adaad", (("inner_objective", "ce"),), (), 0.626294),
    ("adaiad", (), (), 0.575321),
    ("adaiad", (("own_from", 100),), (), 900 * kl(T["a"], Z["a"], 30.0)),
    ("mtard", (("kl_scale", 1.0),), (), (0.626294 + kl(NATURAL["x"], Z["x"])) / 2),
    ("b_mtard", (("kl_scale", 1.0),), (), (0.626294 + kl(NATURAL["x"], Z["x"])) / 2),
    ("adaad", (), (IGDM,), 2.564226),
    ("adaad", (), (("igdm", (("alpha", 15.0), ("ramp_epochs", 200))),), 2.564226),
    ("pgd_at", (), (IGDM,), 1.464369 + 7.5 * 0.258391),
    ("at_bsl", (), (IGDM,), 0.629215 + 7.5 * 0.258391),
    ("trades", (), (IGDM,), 3.001166 + 7.5 * 0.258391),
    ("ard", (), (IGDM,), 0.768968 + 7.5 * 0.258391),
    ("ard", (), (("fair_ard", ()), IGDM), 0.768968 + 7.5 * 0.258391),
    ("self_distillation", (("beta", 0.0),), (("igdm", (("alpha", 1.0),)),), 1.384704),
]


@pytest.mark.parametrize(("name", "settings", "wrappers", "expected"), TOY, ids=str)
def test_toy_vector(name, settings, wrappers, expected):
    value, _ = value_of(name, settings, wrappers)
    # The squared temperature magnifies float32 rounding.
    np.testing.assert_allclose(
        value, expected, atol=1e-4 if "temperature" in dict(settings) or name == "adaiad" else 2e-6
    )


PASSES = [
    ("ard", (), (), "ax"),
    ("iad", (), (), "ax"),
    ("iad", (("variant", "as_released"), ("own_from", 100)), (), "aax"),
    ("iad2", (), (), "ax"),
    ("iad2", (("own_from", 100),), (), "ax"),
    ("iad2", (("variant", "as_released"),), (), "ax"),
    ("rslad", (), (), "ax"),
    ("adaad", (), (), "xa"),
    ("adaad", (("passes", "adv_clean"),), (), "ax"),
    ("adaiad", (), (), "xa"),
    ("adaiad", (("variant", "as_released"), ("own_from", 100)), (), "xax"),
    ("mtard", (), (), "ax"),
    ("b_mtard", (), (), "ax"),
    ("trades", (("variant", "as_released"),), (), "xax"),
    ("self_distillation", (), (), "axm"),
    ("self_distillation", (("minus_bn", "batch_frozen"),), (), "ax"),
    ("self_distillation", (("beta", 0.0),), (), "a"),
    ("ard", (), (IGDM,), "axm"),
    ("iad", (), (IGDM,), "axm"),
    ("rslad", (), (IGDM,), "axm"),
    ("adaad", (), (IGDM,), "xam"),
    ("adaad", (("passes", "adv_clean"),), (IGDM,), "axm"),
    ("pgd_at", (), (IGDM,), "axm"),
    ("at_bsl", (), (IGDM,), "axm"),
    ("trades", (), (IGDM,), "xam"),
    ("ard", (), (("igdm", (("minus_bn", "batch_frozen"),)),), "ax"),
    ("pgd_at", (), (("igdm", (("minus_bn", "batch_frozen"),)),), "ax"),
    ("ard", (), (("fair_ard", ()), IGDM), "axm"),
    ("ard", (), (("igdm", (("alpha", 0.0),)),), "ax"),
]


@pytest.mark.parametrize(
    ("name", "early", "late"), [("iad", "aax", "aaxx"), ("iad2", "a", "ax"), ("adaiad", "xax", "xaxx")]
)
def test_as_released_the_students_own_answer_costs_its_pass_only_where_it_counts(name, early, late):
    for own_from, seen in ((100, early), (99, late)):
        _, outcome = value_of(name, (("variant", "as_released"), ("own_from", own_from)))
        np.testing.assert_array_equal(outcome.batch_stats["seen"], passes(seen))


@pytest.mark.parametrize(("name", "settings", "wrappers", "seen"), PASSES, ids=str)
def test_train_mode_passes_are_those_that_the_method_names(name, settings, wrappers, seen):
    method = methods.create(name, INNER, **dict(settings))
    for wrapper, its in wrappers:
        method = methods.wrap(method, wrapper, **dict(its))
    _, outcome = value_of(name, settings, wrappers)
    np.testing.assert_array_equal(outcome.batch_stats["seen"], passes(seen))
    assert tuple({"m": "minus", "x": "clean", "a": "adv"}[letter] for letter in seen) == method.passes


def test_an_infinite_temperature_is_the_squared_distance_of_centred_logits():
    centred = [np.asarray(logits) - np.mean(logits) for logits in (T["x"], Z["a"])]
    value, _ = value_of("ard", (("temperature", 100.0),))
    np.testing.assert_allclose(value, np.sum((centred[0] - centred[1]) ** 2) / 6, rtol=1e-2)


def test_a_teacher_that_knows_nothing_maximises_entropy():
    learner = toy_learner()
    nothing = Teacher(Lookup(), lookup([0.0] * 3, [0.0] * 3, [0.0] * 3), {"seen": jnp.zeros(3)})
    learner = dataclasses.replace(learner, teachers={"teacher": nothing})
    method = methods.create("ard", INNER)

    def loss(adv_logits):
        params = {**learner.params, "table": learner.params["table"].at[2].set(adv_logits)}
        return lossy(method, dataclasses.replace(learner, params=params))[0]

    value, gradient = jax.value_and_grad(loss)(jnp.array([0.7, 0.7, 0.7]))
    np.testing.assert_allclose([value, *gradient], 0, atol=1e-6)
    assert loss(jnp.array([2.0, 0.0, 0.0])) > 0.1


@pytest.mark.parametrize("name", ["ard", "iad", "iad2", "rslad", "adaad", "adaiad", "mtard", "b_mtard"])
def test_losses_that_honour_weights_are_linear_in_them(name):
    method = methods.create(name, INNER)
    learner, batch = toy_learner(), toy_batch()
    batch = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch)
    batch = dataclasses.replace(batch, labels=jnp.array([0, 2]))
    adv = jnp.ones((2, 1, 1, 1))
    value = lambda *weights: lossy(method, learner, dataclasses.replace(batch, weights=jnp.array(weights)), adv)[0]  # noqa: E731
    plain = lossy(method, learner, batch, adv)[0]
    assert method.weighted
    np.testing.assert_allclose(value(1.0, 1.0), plain, rtol=1e-6)
    np.testing.assert_allclose(value(2.0, 0.0) + value(0.0, 2.0), 2 * plain, rtol=1e-4)


def test_matching_needs_both_passes_and_is_blind_to_offsets():
    method = methods.wrap(methods.create("adaad", INNER, adv_weight=0.0), "igdm", alpha=15.0)
    learner = toy_learner()
    of = lambda table: lossy(method, dataclasses.replace(learner, params={**learner.params, "table": table}))[0]  # noqa: E731
    table = learner.params["table"]
    gradient = jax.grad(of)(table)
    assert float(jnp.abs(gradient[0]).min()) > 0.01  # x - d
    assert float(jnp.abs(gradient[2]).min()) > 0.01  # x + d
    np.testing.assert_allclose(gradient[0], -gradient[2], rtol=1e-5)

    def term(table):
        return lossy(method, dataclasses.replace(learner, params={**learner.params, "table": table}))[1].metrics

    moved = table + jnp.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(term(moved)["igdm_loss"], term(table)["igdm_loss"], atol=1e-6)


def test_a_cut_x_minus_delta_is_another_image():
    free, cut = (value_of("ard", (), (("igdm", (("clip_minus", clip),)),))[0] for clip in (False, True))
    assert abs(float(free - cut)) > 1e-3


def test_the_term_without_weight_is_the_method_itself():
    base = methods.create("ard", INNER)
    assert methods.wrap(base, "igdm", alpha=0.0).loss is base.loss
    (value, _), (matched, outcome) = value_of("ard"), value_of("ard", (), (("igdm", (("alpha", 1e-20),)),))
    assert float(value) == float(matched)
    assert outcome.metrics["igdm_loss"] > 0.1


class Affine(nn.Module):
    """`z(x) = W x + b` on flattened images."""

    @nn.compact
    def __call__(self, images: jax.Array, use_running_average: bool) -> jax.Array:
        self.variable("batch_stats", "passes", lambda: jnp.zeros(()))
        kernel = self.param("kernel", nn.initializers.normal(1.0), (12, 3))
        return images.reshape(len(images), -1) @ kernel + self.param("bias", nn.initializers.normal(1.0), (3,))


def affine_learner(own_teacher=False):
    stem = {"stem": {"kernel": jnp.zeros((1, 1, 3, 1))}}
    draws = [Affine().init(jax.random.key(seed), jnp.zeros((1, 2, 2, 3)), True) for seed in (0, 1)]
    (params, stats), (others, _) = ((stem | draw["params"], draw["batch_stats"]) for draw in draws)
    teacher = Teacher(Affine(), params if own_teacher else others, stats)
    learner = one_teacher()
    return dataclasses.replace(
        learner, module=Affine(), params=params, batch_stats=stats, teachers={"teacher": teacher}
    )


def affine_batch(method, learner):
    images, keys = jax.random.uniform(jax.random.key(2), (4, 2, 2, 3)), jax.random.split(jax.random.key(3), 4)
    return methods.make_batch(method, learner, images, jnp.array([0, 1, 2, 0]), keys)


@pytest.mark.slow
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_or_to_attack():
    learner = affine_learner(own_teacher=True)
    method = methods.wrap(methods.create("adaad", INNER), "igdm")
    batch = affine_batch(method, learner)
    assert method.objective is not None
    ascended = method.objective(learner, batch)
    gradient = jax.grad(lambda images: jnp.sum(ascended(images)[0]))(batch.images)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)
    value = lambda params: lossy(method, dataclasses.replace(learner, params=params), batch, batch.images + 0.05)[0]  # noqa: E731
    of_loss, slope = jax.value_and_grad(value)(learner.params)
    assert_same((of_loss, slope), jax.tree.map(jnp.zeros_like, (of_loss, slope)), atol=1e-6)


@pytest.mark.parametrize(("name", "through_teacher"), [("adaad", True), ("rslad", False)])
def test_adaads_attack_follows_the_teacher_too_and_rslads_holds_it_still(name, through_teacher):
    learner = affine_learner()
    method = methods.create(name, INNER)
    batch = affine_batch(method, learner)

    def apart(teacher_images, images):
        target = learner.teachers["teacher"].logits(teacher_images)
        return jnp.sum(objectives.kl_divergence(target, learner.forward(images, bn="eval")[0]))

    assert method.objective is not None
    ascended = method.objective(learner, batch)
    whole = jax.grad(lambda images: jnp.sum(ascended(images)[0]))(batch.images)
    by_teacher, by_student = jax.grad(apart, argnums=(0, 1))(batch.images, batch.images)
    np.testing.assert_allclose(whole, by_student + (by_teacher if through_teacher else 0), atol=1e-5)
    assert float(jnp.abs(by_teacher).max()) > 1e-2


def test_an_affine_network_answers_with_twice_its_slope_wherever_it_is():
    learner = affine_learner()
    method = methods.wrap(methods.create("pgd_at", INNER), "igdm", alpha=1.0)
    batch = affine_batch(method, learner)
    delta = 0.05 * jax.random.normal(jax.random.key(4), batch.images.shape)
    _, outcome = lossy(method, learner, batch, batch.images + delta)
    slopes = (network["kernel"] for network in (learner.teachers["teacher"].params, learner.params))
    theirs, mine = (2 * delta.reshape(4, -1) @ kernel for kernel in slopes)
    expected = jnp.mean(objectives.kl_divergence(theirs, mine))
    np.testing.assert_allclose(outcome.metrics["igdm_loss"], expected, atol=1e-6)
    # Without a perturbation there is nothing to match.
    _, outcome = lossy(method, learner, batch, batch.images)
    np.testing.assert_allclose(outcome.metrics["igdm_loss"], 0, atol=1e-7)


@pytest.mark.parametrize("name", ["ard", "iad2", "rslad", "adaad", "adaiad", "mtard"])
def test_no_loss_sends_a_gradient_to_a_teacher(name):
    learner = toy_learner()
    method = methods.wrap(methods.create(name, INNER), "igdm")

    def loss(tables):
        teachers = {
            key: dataclasses.replace(teacher, params={**teacher.params, "table": tables[key]})
            for key, teacher in learner.teachers.items()
        }
        return lossy(method, dataclasses.replace(learner, teachers=teachers))[0]

    tables = {key: teacher.params["table"] for key, teacher in learner.teachers.items()}
    for leaf in jax.tree.leaves(jax.grad(loss)(tables)):
        np.testing.assert_array_equal(leaf, 0)


def test_the_weight_rule_of_mtard():
    np.testing.assert_allclose(updated_weight(0.5, 0.8, 0.4, 0.025), 0.495833, atol=1e-6)
    method = methods.create("mtard", INNER)
    distances = (kl(T["a"], Z["a"]), kl(NATURAL["x"], Z["x"]))
    first = jnp.array([distances[0] / 0.8, distances[1] / 0.4], jnp.float32)
    state = {"clean_weight": jnp.float32(0.5), "first": first}
    _, outcome = lossy(method, toy_learner(method_state=state))
    np.testing.assert_allclose(outcome.method_state["clean_weight"], 0.495833, atol=1e-6)
    np.testing.assert_array_equal(outcome.method_state["first"], first)
    # Equal shares of the first losses: equal weights. The very first step is such a case.
    _, outcome = lossy(method, toy_learner())
    assert float(outcome.method_state["clean_weight"]) == 0.5
    np.testing.assert_allclose(outcome.method_state["first"], distances, rtol=1e-5)


@pytest.mark.slow
def test_two_teachers_are_balanced_over_the_whole_batch():
    method = methods.create("b_mtard", INNER)
    learner = affine_learner()
    other = affine_learner(own_teacher=True).teachers["teacher"]
    state = method.initial_state(learner.params, learner.class_counts)
    learner = dataclasses.replace(learner, method_state=state, teachers={**learner.teachers, "clean_teacher": other})
    batch = affine_batch(method, learner)

    def states(devices):
        parts = jax.tree.map(lambda leaf: leaf.reshape(devices, 4 // devices, *leaf.shape[1:]), batch)
        step = lambda part: method.loss(learner, part, part.images + 0.05)[1].method_state  # noqa: E731
        return jax.vmap(step, axis_name="devices")(parts)

    one, four = states(1), states(4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, np.repeat(a, 4, axis=0), rtol=1e-4), one, four)


@pytest.mark.parametrize(("epoch", "rate"), [(100, 0.025), (101, 0.0025), (150, 0.0025), (151, 0.00025)])
def test_the_rate_of_mtard_drops_with_the_learning_rate(epoch, rate):
    method = methods.create("mtard", INNER, rate_drops=(0.5, 0.75))
    distances = (kl(T["a"], Z["a"]), kl(NATURAL["x"], Z["x"]))
    first = jnp.array([distances[0] / 0.8, distances[1] / 0.4], jnp.float32)
    state = {"clean_weight": jnp.float32(0.5), "first": first}
    _, outcome = lossy(method, toy_learner(epoch=epoch, method_state=state))
    np.testing.assert_allclose(0.5 - outcome.method_state["clean_weight"], rate / 6, rtol=1e-3)


def test_the_more_entropic_teacher_is_cooled_within_the_bounds():
    method = methods.create("b_mtard", INNER, heat_rate=0.25)
    state = method.initial_state({}, jnp.ones(3)) | {"heat": jnp.array([2.0, 9.9])}
    _, outcome = lossy(method, toy_learner(method_state=state))
    # The natural teacher at temperature 9.9 is the more entropic one.
    np.testing.assert_allclose(outcome.method_state["heat"], [2.25, 9.65])
    state |= {"heat": jnp.array([10.0, 1.0])}
    _, outcome = lossy(method, toy_learner(method_state=state))
    np.testing.assert_allclose(outcome.method_state["heat"], [9.75, 1.25])


def as_float64(tree):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, tree)


@pytest.mark.parametrize("name", ["ard", "iad", "iad2", "rslad", "adaad", "adaiad", "pgd_at"])
def test_gradients_are_those_of_finite_differences(name):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        learner, batch, adv = as_float64((toy_learner(), toy_batch(), ADV))
        method = methods.wrap(methods.create(name, INNER), "igdm", alpha=15.0)
        table, direction = learner.params["table"], jax.random.normal(jax.random.key(7), (3, 3), jnp.float64)

        @jax.jit
        def of(size):
            params = {**learner.params, "table": table + size * direction}
            return lossy(method, dataclasses.replace(learner, params=params), batch, adv)[0]

        slope = jax.grad(of)(jnp.float64(0))
        expected = (of(jnp.float64(1e-5)) - of(jnp.float64(-1e-5))) / 2e-5
    assert abs(float(expected)) > 0.1
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods.create("ard", INNER, temperature=0.0), "ard.temperature is 0.0; it must be above 0"),
        (
            lambda: methods.create("ard", INNER, teacher_weight=1.5),
            r"ard.teacher_weight is 1.5; it must lie in \[0, 1\]",
        ),
        (lambda: methods.create("rslad", INNER, kl_scale=-1.0), "rslad.kl_scale is -1.0"),
        (lambda: methods.create("adaad", INNER, inner_objective="kl"), "known: teacher_kl, ce"),
        (lambda: methods.create("adaad", INNER, passes="ax"), "known: clean_adv, adv_clean"),
        (lambda: methods.create("iad", INNER, variant="new"), "known: as_described, as_released"),
        (lambda: methods.create("iad2", INNER, own_from=-1), "iad2.own_from is -1"),
        (lambda: methods.create("mtard", INNER, rate_drops=(1.5,)), r"mtard.rate_drops are \(1.5,\)"),
        (lambda: methods.create("b_mtard", INNER, heat_rate=-1.0), "b_mtard.heat_rate is -1.0"),
        (lambda: methods.wrap(methods.create("ard", INNER), "igdm", alpha=-1.0), "igdm.alpha is -1.0"),
        (lambda: methods.wrap(methods.create("ard", INNER), "igdm", minus_bn="eval"), "known: train, batch_frozen"),
        (lambda: methods.wrap(methods.create("self_distillation", INNER), "igdm"), "matches gradients by itself"),
        (
            lambda: methods.wrap(methods.wrap(methods.create("ard", INNER), "igdm"), "igdm"),
            r"ard\+igdm is in the wrapper igdm already",
        ),
        (
            lambda: methods.wrap(dataclasses.replace(methods.create("ard", INNER), passes=None), "igdm"),
            "does not say which train-mode passes",
        ),
        (lambda: methods.wrap(methods.create("at_bsl", INNER), "fair_ard"), "fair_ard cannot wrap at_bsl"),
        (lambda: methods.wrap(methods.create("ard", INNER), "fair_ard", lower=2.0), "0 < lower <= 1 <= upper"),
    ],
)
def test_errors_name_the_setting_and_what_is_known(call, message):
    with pytest.raises(ValueError, match=message):
        call()
