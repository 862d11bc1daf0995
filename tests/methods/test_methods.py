"""Training methods: values by hand, limits in which they coincide, and the passes that touch BatchNorm."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import (
    COUNTS,
    INNER,
    assert_same,
    gradient_of,
    passes,
    real_batch,
    real_learner,
    toy_batch,
    toy_learner,
    toy_loss,
)

from ltrobust import methods
from ltrobust.attacks import objectives
from ltrobust.methods.igdm import indirect_gradient_matching
from ltrobust.threat import Threat

TOY = {
    ("pgd_at", ()): 1.464369,
    ("at_bsl", ()): 0.629215,
    ("trades", (("beta", 6.0),)): 3.001166,
    ("mart", (("beta", 0.0), ("variant", "as_released"))): 2.454391,
    ("mart", (("beta", 5.0), ("variant", "as_released"))): 3.177906,
    ("mart", (("beta", 6.0), ("variant", "as_released"))): 3.322609,
    ("reat", ()): 0.629215,
    ("chi2_class_dro", (("average", 0.0),)): 1.464369,
    ("label_aug", (("extra", 0),)): 1.464369,
    ("dafa", ()): 3.001166,
    ("wat", ()): 6.002333,
    ("wat", (("normalized", True),)): 3.001166,
    ("faal", (("radius", 0.0),)): 1.464369,
    ("faal", (("radius", 0.0), ("base", "trades"))): 3.001166,
    ("frl", ()): 0.407606 + 1.5 * 0.432260,
    ("taet", (("clean_fraction", 0.0), ("variance_weight", 0.0), ("share_weight", 0.0))): 0.1464369,
    ("self_distillation", ()): 1.384704,
    ("self_distillation", (("alpha", 0.0), ("beta", 0.0))): 0.629215,
    ("self_distillation", (("alpha", 0.0), ("beta", 2.0), ("label_weight", 0.0))): 0.258391,
    ("self_distillation", (("beta", 0.0), ("label_weight", 0.0))): 0.626294,
    ("self_distillation", (("beta", 0.0), ("label_weight", 0.0), ("teacher_input", "clean"))): 0.768968,
    ("self_distillation", (("alpha", 0.0), ("beta", 0.0), ("label_loss", "ce"))): 1.464369,
    ("self_distillation", (("label_weight", 0.0), ("alpha", 0.0), ("ramp", "none"))): 0.258391,
}


@pytest.mark.parametrize("case", TOY, ids=str)
def test_toy_vector(case):
    name, settings = case
    value, _ = toy_loss(methods.create(name, INNER, **dict(settings)))
    np.testing.assert_allclose(value, TOY[case], atol=1e-6)


# Which inputs the train-mode passes saw, in order: m = x - d, x = clean, a = x'.
PASSES = {
    ("pgd_at", ()): "a",
    ("at_bsl", ()): "a",
    ("trades", ()): "xa",
    ("trades", (("variant", "as_released"),)): "xax",
    ("mart", ()): "xa",
    ("robal", ()): "xa",
    ("robal", (("variant", "as_released"),)): "axxa",
    ("reat", ()): "a",
    ("chi2_class_dro", ()): "a",
    ("label_aug", (("extra", 0),)): "a",
    ("dafa", ()): "ax",
    ("wat", ()): "xa",
    ("frl", ()): "xax",
    ("faal", ()): "ax",
    ("taet", (("clean_fraction", 0.0),)): "a",
    ("taet", (("clean_fraction", 0.0), ("variant", "as_released"))): "xa",
    ("self_distillation", ()): "axm",
    ("self_distillation", (("beta", 0.0),)): "a",
    ("self_distillation", (("clean_forward", False),)): "am",
    ("self_distillation", (("minus_bn", "batch_frozen"),)): "ax",
}


@pytest.mark.parametrize("case", PASSES, ids=str)
def test_train_mode_passes_are_exactly_the_named_ones_in_order(case):
    name, settings = case
    _, outcome = toy_loss(methods.create(name, INNER, **dict(settings)))
    np.testing.assert_array_equal(outcome.batch_stats["seen"], passes(PASSES[case]))


@pytest.mark.slow
def test_without_distillation_the_student_is_at_bsl_bit_for_bit(network):
    learner = real_learner(network)
    student = methods.create("self_distillation", INNER, alpha=0.0, beta=0.0)
    assert student.teachers == ()
    for mine, theirs in zip(
        gradient_of(student, learner), gradient_of(methods.create("at_bsl", INNER), learner), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_tau_multiplies_the_log_counts_of_at_bsl():
    counts = jnp.array([9.0, 4.0, 1.0])
    half, plain, none = (
        toy_loss(methods.create("at_bsl", INNER, tau=tau), dataclasses.replace(toy_learner(), class_counts=result))[0]
        for tau, result in ((0.5, counts), (1.0, jnp.sqrt(counts)), (0.0, counts))
    )
    np.testing.assert_allclose(half, plain, rtol=1e-6)
    np.testing.assert_allclose(none, toy_loss(methods.create("pgd_at", INNER))[0], rtol=1e-6)
    with pytest.raises(ValueError, match=r"at_bsl\.tau is -1"):
        methods.create("at_bsl", INNER, tau=-1.0)


@pytest.mark.slow
def test_equal_counts_reduce_at_bsl_to_pgd_at(network):
    learner = real_learner(network, class_counts=jnp.full(3, 17.0))
    results = [gradient_of(methods.create(name, INNER), learner) for name in ("at_bsl", "pgd_at")]
    assert_same(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_trades_without_its_kl_is_standard_training(network):
    learner = real_learner(network)
    standard = methods.create("pgd_at", dataclasses.replace(INNER, threat=Threat(radius=0)))
    trades = methods.create("trades", INNER, beta=0.0)
    value, gradient, _ = gradient_of(trades, learner)
    expected, expected_gradient, _ = gradient_of(standard, learner)
    assert_same((value, gradient), (expected, expected_gradient), rtol=1e-4, atol=1e-5)


def eval_logits(learner, images):
    return learner.forward(images, bn="eval")[0]


@pytest.mark.parametrize(
    ("name", "settings", "objective"),
    [
        ("pgd_at", {}, lambda own, teacher, clean, labels: objectives.cross_entropy(own, labels)),
        ("trades", {}, lambda own, teacher, clean, labels: objectives.kl_divergence(clean, own)),
        (
            "self_distillation",
            {"inner_objective": "bsl"},
            lambda own, teacher, clean, labels: objectives.balanced_softmax(own, labels, COUNTS),
        ),
        (
            "self_distillation",
            {"inner_objective": "teacher_kl"},
            lambda own, teacher, clean, labels: objectives.kl_divergence(teacher, own),
        ),
    ],
)
def test_every_inner_maximisation_raises_its_own_objective_within_the_radius(network, name, settings, objective):
    learner = real_learner(network)
    method = methods.create(name, INNER, **settings)
    batch = real_batch(method, learner)
    adv = jax.jit(method.attack)(learner, batch)
    assert float(jnp.abs(adv - batch.images).max()) <= 16 / 255 + 1e-6
    clean = eval_logits(learner, batch.images)

    def value(images):
        own, teacher = eval_logits(learner, images), learner.teachers["teacher"].logits(images)
        return float(jnp.mean(objective(own, teacher, clean, batch.labels)))

    assert value(adv) > value(batch.images)


@pytest.mark.slow
def test_the_teacher_gets_no_gradient_and_the_x_minus_delta_pass_does(network):
    learner = real_learner(network)
    method = methods.create("self_distillation", INNER, alpha=1.0, beta=1.0, ramp="none")
    batch = real_batch(method, learner)
    adv = method.attack(learner, batch)

    def by_teacher(teacher_params):
        teacher = dataclasses.replace(learner.teachers["teacher"], params=teacher_params)
        return method.loss(dataclasses.replace(learner, teachers={"teacher": teacher}), batch, adv)[0]

    gradient = jax.grad(by_teacher)(learner.teachers["teacher"].params)
    assert all(float(jnp.abs(leaf).max()) == 0.0 for leaf in jax.tree.leaves(gradient))

    teacher_difference, difference = jnp.array([[1.0, 0.0, -1.0]]), jnp.array([[0.2, 0.1, 0.0]])
    through_minus = jax.grad(lambda m: jnp.sum(indirect_gradient_matching(teacher_difference, difference - m)))(
        jnp.zeros((1, 3))
    )
    assert float(jnp.abs(through_minus).max()) > 0.01


def test_matching_a_network_with_itself_costs_nothing_and_is_blind_to_offsets():
    difference = jax.random.normal(jax.random.key(0), (5, 4))
    value, gradient = jax.value_and_grad(lambda d: jnp.sum(indirect_gradient_matching(difference, d)))(difference)
    assert abs(float(value)) < 1e-6
    assert float(jnp.abs(gradient).max()) < 1e-6
    other = jax.random.normal(jax.random.key(1), (5, 4))
    moved = indirect_gradient_matching(difference, other + 3.0)
    np.testing.assert_allclose(moved, indirect_gradient_matching(difference, other), rtol=1e-4)


@pytest.mark.slow
def test_without_a_perturbation_gradient_matching_is_zero(network):
    learner = real_learner(network)
    still = dataclasses.replace(INNER, threat=Threat(radius=0))
    method = methods.create("self_distillation", still, alpha=0.0, beta=1.0, label_weight=0.0, ramp="none")
    value, gradient, _ = gradient_of(method, learner)
    assert abs(float(value)) < 1e-6
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-5


def test_minus_images_are_cut_to_the_bounds_only_on_request():
    learner, batch = toy_learner(), toy_batch()
    adv = jnp.ones((1, 1, 1, 1))
    free = methods.create("self_distillation", INNER).loss(learner, batch, adv)[0]
    cut = methods.create("self_distillation", INNER, clip_minus=True).loss(learner, batch, adv)[0]
    # Cut at 0, x - d is x itself: the toy table's row for x, not for x - d.
    assert float(jnp.abs(free - cut)) > 1e-3


def test_temperature_tends_to_the_squared_distance_of_centred_logits():
    method = methods.create("self_distillation", INNER, beta=0.0, label_weight=0.0, temperature=100.0)
    value, _ = method.loss(toy_learner(), toy_batch(), jnp.ones((1, 1, 1, 1)))
    student, teacher = np.array([0.5, 1.5, 0.0]), np.array([1.8, 0.3, -0.5])
    distance = (student - student.mean()) - (teacher - teacher.mean())
    np.testing.assert_allclose(value, np.sum(distance**2) / 6, rtol=2e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods.create("at", INNER), "known methods: pgd_at, trades"),
        (lambda: methods.create("trades", INNER, gamma=1), "no setting gamma; its settings: beta, variant"),
        (lambda: methods.create("trades", INNER, beta=-1.0), "trades.beta is -1.0"),
        (
            lambda: methods.create("trades", INNER, variant="x"),
            "trades.variant is 'x'; known: as_described, as_released",
        ),
        (lambda: methods.create("trades", dataclasses.replace(INNER, start="none")), "no gradient there"),
        (lambda: methods.create("mart", INNER, beta=-1.0), "mart.beta is -1.0"),
        (lambda: methods.create("robal", INNER, scale=0.0), "robal.scale is 0.0; it must be above 0"),
        (lambda: methods.create("robal", INNER, tau_p=-1.0), "robal.tau_p is -1.0"),
        (lambda: methods.create("reat", INNER, variant="paper"), "reat.variant is 'paper'"),
        (lambda: methods.create("taet", INNER, clean_fraction=40.0), r"clean_fraction is 40.0; .* in \[0, 1\]"),
        (lambda: methods.create("self_distillation", INNER, minus_bn="eval"), "minus_bn is 'eval'; known: train"),
        (lambda: methods.create("self_distillation", INNER, alpha=-1.0), "alpha is -1.0"),
        (lambda: methods.create("self_distillation", INNER, temperature=0.0), "temperature is 0.0"),
        (lambda: methods.create("self_distillation", INNER, label_loss="mse"), "known: bsl, ce"),
        (lambda: methods.create("self_distillation", INNER, inner_objective="kl"), "ce, bsl, teacher_kl"),
    ],
)
def test_errors_name_the_setting_and_what_is_known(call, message):
    with pytest.raises(ValueError, match=message):
        call()
