"""RoBal, REAT, TAET and MART: published numbers, limits, and batch quantities that do not depend on the devices."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import INNER, on_devices, on_one_device, passes, real_batch, real_learner, toy_batch, toy_learner, toy_loss

from ltrobust import methods, models
from ltrobust.attacks import objectives
from ltrobust.data import longtail
from ltrobust.methods.adversarial import boosted_cross_entropy
from ltrobust.methods.long_tailed import class_margins, class_means, equalization
from ltrobust.methods.reat import attack_weights, tail_classes, tail_term
from ltrobust.threat import Threat

CIFAR_10_LT = jnp.asarray(longtail.class_counts(np.full(10, 5000), imbalance_ratio=50.0, profile="exp"), jnp.float32)
COSINES = jnp.array([[0.5, 0.3, -0.1]])
TOY_COUNTS = jnp.array([100.0, 30.0, 10.0])
ROBAL_R = {"tau_b": 1.5, "tau_m": 0.3, "test_scale": 1.0, "tau_p": 0.0}


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_mart_as_described_is_the_formula_in_float64():
    clean, adv = softmax(np.array([2.0, 1.0, 0.0])), softmax(np.array([0.5, 1.5, 0.0]))
    boosted = -np.log(adv[0]) - np.log(1 - adv[1])
    divergence = np.sum(clean * np.log(clean / adv)) * (1 - clean[0])
    value, outcome = toy_loss(methods.create("mart", INNER, beta=5.0))
    np.testing.assert_allclose(value, boosted + 5 * divergence, atol=1e-6)
    np.testing.assert_allclose(outcome.metrics["robust_loss"], 0.144703, atol=1e-6)


def test_boosted_cross_entropy_is_above_cross_entropy_and_finite_where_the_network_is_sure():
    logits = 60 * jax.random.normal(jax.random.key(0), (50, 5))
    labels = jnp.arange(50) % 5
    plain = objectives.cross_entropy(logits, labels)
    value, gradient = jax.jit(jax.value_and_grad(lambda z: jnp.sum(boosted_cross_entropy(z, labels))))(logits)
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isfinite(gradient).all())
    assert bool((boosted_cross_entropy(logits, labels) >= plain).all())
    assert bool((boosted_cross_entropy(logits, labels, variant="as_released") >= plain - 1.01e-4).all())


@pytest.mark.parametrize(("label", "expected"), [(0, 0.114253), (2, 10.475900)])
def test_robal_on_the_toy_cosines(label, expected):
    learner = toy_learner()
    learner = dataclasses.replace(learner, params={**learner.params, "table": jnp.tile(COSINES, (3, 1))})
    batch = dataclasses.replace(toy_batch(), labels=jnp.array([label]))
    value, outcome = toy_loss(methods.create("robal", INNER, **ROBAL_R), learner, batch)
    np.testing.assert_allclose(value, expected, atol=1e-6, rtol=1e-6)
    assert abs(float(outcome.metrics["robust_loss"])) < 1e-6


def test_robal_margins_on_cifar_10_lt():
    margins = class_margins(CIFAR_10_LT, margin=0.1, scale=10.0, tau_m=0.3)
    np.testing.assert_allclose(margins[jnp.array([0, 9])], [0.2174, 0.1], atol=5e-5)
    assert bool((jnp.diff(margins) < 0).all())


def test_robal_on_equal_counts_is_a_cosine_loss_with_a_fixed_margin():
    learner = dataclasses.replace(toy_learner(), class_counts=jnp.full(3, 17.0))
    value, _ = toy_loss(methods.create("robal", INNER, beta=0.0, tau_b=1.5), learner)
    logits = 10 * (np.array([0.5, 1.5, 0.0]) - 0.1 * np.eye(3)[0])
    np.testing.assert_allclose(value, -np.log(softmax(logits)[0]), atol=1e-5)


def test_robal_trains_on_cosines_and_is_judged_by_scale_and_prior():
    method = methods.create("robal", INNER, floor=1 / 16, test_scale=10.0, tau_p=1.7)
    assert method.head == models.Head("cosine", floor=1 / 16)
    rule = methods.decision_rule(method, np.array([100, 30, 10]))
    expected = 10 * np.array([[0.5, 0.3, -0.1]]) - 1.7 * np.log(np.array([100, 30, 10]) / 140)
    np.testing.assert_allclose(rule(COSINES), expected, atol=1e-6)
    again = methods.create("robal", INNER, floor=1 / 16, test_scale=10.0, tau_p=1.7)
    assert methods.decision_rule(again, np.array([100, 30, 10])) == rule
    recommended = methods.decision_rule(methods.create("robal", INNER, **ROBAL_R), np.array([100, 30, 10]))
    np.testing.assert_array_equal(recommended(COSINES), COSINES)


def test_reat_weights_of_the_first_epoch_on_cifar_10_lt():
    weights = attack_weights(CIFAR_10_LT, CIFAR_10_LT)
    expected = [0.0715, 0.1104, 0.1705, 0.2633, 0.4069, 0.6288, 0.9703, 1.4996, 2.3160, 3.5630]
    np.testing.assert_allclose(weights, expected, atol=5e-5)
    np.testing.assert_allclose(jnp.sum(weights), 10, rtol=1e-5)
    # n images drawn from n: about 1 - 1/e of them are different.
    base = (CIFAR_10_LT - 1) / CIFAR_10_LT
    np.testing.assert_allclose((1 - base**CIFAR_10_LT) / (1 - base) / CIFAR_10_LT, 0.632, atol=3e-3)


def test_a_class_that_is_never_predicted_takes_the_attack_in_the_released_code():
    weights = attack_weights(CIFAR_10_LT, CIFAR_10_LT.at[9].set(0))
    np.testing.assert_allclose(weights[9], 9.999997, atol=2e-6)
    alone = attack_weights(jnp.array([30.0, 1.0]), jnp.array([30.0, 0.0]))
    assert bool(jnp.isfinite(alone).all())


def test_reat_counts_predictions_and_hands_them_on_at_a_new_epoch():
    method = methods.create("reat", INNER)
    learner = toy_learner()
    state = method.initial_state(learner.params, learner.class_counts)
    seen = []
    for epoch in (1, 1, 2, 4):
        now = dataclasses.replace(learner, epoch=jnp.int32(epoch), method_state=state)
        state = on_one_device(lambda now=now: method.loss(now, toy_batch(), jnp.ones((1, 1, 1, 1)))[1].method_state)
        seen.append((state["previous"].tolist(), state["current"].tolist()))
    # z(x') = (0.5, 1.5, 0) is predicted as class 1.
    assert seen[0] == ([100, 30, 10], [0, 1, 0])
    assert seen[1] == ([100, 30, 10], [0, 2, 0])
    assert seen[2] == ([0, 2, 0], [0, 1, 0])
    assert seen[3] == ([0, 1, 0], [0, 1, 0])


def test_reat_with_equal_counts_and_no_anchor_is_pgd_at():
    learner = dataclasses.replace(toy_learner(), class_counts=jnp.full(3, 17.0))
    assert not bool(tail_classes(learner.class_counts).any())
    np.testing.assert_allclose(toy_loss(methods.create("reat", INNER), learner)[0], 1.464369, atol=1e-6)


class Normalised(nn.Module):
    """Batch norm of the pixels and a linear layer."""

    @nn.compact
    def __call__(self, images: jax.Array, use_running_average: bool) -> jax.Array:
        normalised = nn.BatchNorm(use_running_average=use_running_average)(images.reshape(len(images), -1))
        return nn.Dense(3, kernel_init=nn.initializers.normal(2.0))(jnp.tanh(normalised))


@pytest.mark.parametrize(("bn", "same"), [("eval", True), ("batch_frozen", False)])
def test_class_weights_turn_no_sign_unless_batch_norm_couples_the_images(bn, same):
    # In eval mode each image has its own gradient, and a positive factor leaves its sign.
    module = Normalised()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), use_running_average=True)
    stem = {"stem": {"kernel": jnp.zeros((1, 1, 1, 1))}}
    inner = methods.InnerAttack(Threat(radius=16), steps=1, step_size=6, start="none", bn=bn)
    reat, plain = (methods.create(name, inner) for name in ("reat", "at_bsl"))
    learner = dataclasses.replace(
        toy_learner(),
        module=module,
        params=variables["params"] | stem,
        batch_stats=variables["batch_stats"],
        method_state=reat.initial_state({}, TOY_COUNTS),
    )
    images, labels = jax.random.uniform(jax.random.key(1), (24, 4, 4, 1)), jnp.arange(24) % 3
    batch = methods.Batch(images, labels, jax.random.split(jax.random.key(2), 24), jnp.ones(24), jnp.ones(24))
    weighted, unweighted = (method.attack(learner, batch) for method in (reat, plain))
    assert not np.allclose(unweighted, images, atol=0.01)
    assert np.array_equal(weighted, unweighted) == same


TAIL_COUNTS = jnp.array([100.0, 60.0, 30.0, 10.0])
TAIL_LABELS = jnp.array([0, 3, 1, 3, 2, 0, 3, 1])


def tail_by_loops(features: np.ndarray, frozen: np.ndarray, variant: str) -> float:
    """The definition, pair by pair; the target comes from `frozen`."""
    counts, labels = np.asarray(TAIL_COUNTS), np.asarray(TAIL_LABELS)
    rarity = np.sqrt(counts.sum() / counts)
    anchors = [i for i, label in enumerate(labels) if label > 2]
    target, model = softmax(frozen), softmax(features)
    total = 0.0
    for i in anchors:
        elements = np.array([target[i] * np.log(target[i] / model[j]) for j in range(len(labels))])
        for j in range(len(labels)):
            divergence = elements.mean() if variant == "as_released" else elements[j].sum()
            sign = -1 if labels[i] == labels[j] else 1
            total += divergence * sign * (rarity[labels[i]] + rarity[labels[j]]) / len(labels)
    return total / len(anchors)


def shared_gradient(value_of, weights, *divided):
    """Value and gradient as a step forms them: each device's own, then the means over devices."""

    def share(*parts):
        value, gradient = jax.value_and_grad(value_of)(weights, *parts)
        return jax.lax.pmean((value, gradient), "devices")

    return jax.tree.map(lambda leaf: leaf[0], jax.jit(lambda *parts: on_devices(share, *parts))(*divided))


def divided(array, count):
    return array.reshape(count, -1, *array.shape[1:])


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("variant", ["as_described", "as_released"])
def test_reat_tail_term_and_gradient_are_the_definition_on_any_number_of_devices(variant, count):
    inputs, weights = jax.random.normal(jax.random.key(0), (8, 3)), jax.random.normal(jax.random.key(1), (3, 5))

    def value_of(weights, inputs, labels):
        return tail_term(inputs @ weights, labels, TAIL_COUNTS, "devices", variant=variant)

    value, gradient = shared_gradient(value_of, weights, divided(inputs, count), divided(TAIL_LABELS, count))
    frozen, matrix = np.asarray(inputs @ weights, float), np.asarray(weights, float)
    by_loops = lambda matrix: tail_by_loops(np.asarray(inputs, float) @ matrix, frozen, variant)  # noqa: E731
    np.testing.assert_allclose(value, by_loops(matrix), rtol=1e-4)
    np.testing.assert_allclose(gradient, numerical_gradient(by_loops, matrix), atol=2e-5)


def numerical_gradient(function, point: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences, entry by entry."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        move = np.zeros_like(point)
        move[index] = step
        gradient[index] = (float(function(point + move)) - float(function(point - move))) / (2 * step)
    return gradient


def test_tail_is_the_rarest_classes_whatever_their_order():
    np.testing.assert_array_equal(np.flatnonzero(tail_classes(CIFAR_10_LT)), [7, 8, 9])
    np.testing.assert_array_equal(np.flatnonzero(tail_classes(CIFAR_10_LT[::-1])), [0, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(tail_classes(jnp.full(10, 7.0))), [7, 8, 9])


def test_taet_equalization_on_three_of_ten_classes():
    losses, weights = jnp.zeros(10).at[jnp.array([1, 4, 7])].set(jnp.array([1.0, 2.0, 3.0])), (0.1, 0.1, 0.1)
    np.testing.assert_allclose(equalization(losses, losses > 0, weights), 0.305556, atol=1e-6)
    np.testing.assert_allclose(equalization(losses, losses > -1, weights), 0.202889, atol=1e-6)


@pytest.mark.parametrize(("variant", "expected"), [("as_described", 0.305556), ("as_released", 0.202889)])
def test_taet_variants_differ_in_the_absent_classes(variant, expected):
    # Cross-entropies 1, 2, 3 of labels 0, 1, 2 among ten logits.
    labels = jnp.array([0, 1, 2, 0])
    wanted = jnp.exp(-jnp.array([1.0, 2.0, 3.0, 1.0]))
    logits = jnp.log(jnp.where(jnp.arange(10) == labels[:, None], wanted[:, None], (1 - wanted[:, None]) / 9))
    learner = dataclasses.replace(toy_learner(), module=Direct(), batch_stats={})
    batch = dataclasses.replace(toy_batch(), images=logits.reshape(4, 1, 10, 1), labels=labels)
    method = methods.create("taet", INNER, clean_fraction=0.0, variant=variant)
    value = on_one_device(lambda: method.loss(learner, batch, batch.images)[0])
    np.testing.assert_allclose(value, expected, atol=1e-6)


class Direct(nn.Module):
    """The image is the logits."""

    @nn.compact
    def __call__(self, images: jax.Array, use_running_average: bool) -> jax.Array:
        return images[:, 0, :, 0]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_taet_and_its_gradient_are_those_of_the_whole_batch(count):
    inputs, weights = jax.random.normal(jax.random.key(0), (8, 3)), jax.random.normal(jax.random.key(1), (3, 5))

    def value_of(weights, inputs, labels):
        losses = objectives.cross_entropy(inputs @ weights, labels)
        return equalization(*class_means(losses, labels, 5, "devices"), (0.1, 0.1, 0.1))

    value, gradient = shared_gradient(value_of, weights, divided(inputs, count), divided(TAIL_LABELS, count))

    def by_loops(matrix):
        chosen = softmax(np.asarray(inputs, float) @ matrix)[np.arange(8), TAIL_LABELS]
        means = np.array([-np.log(chosen[np.asarray(TAIL_LABELS) == label]).mean() for label in range(4)])
        return 0.1 * means.mean() + 0.1 * means.var() + 0.1 * np.sum((means / means.sum()) ** 2)

    matrix = np.asarray(weights, float)
    np.testing.assert_allclose(value, by_loops(matrix), rtol=1e-5)
    np.testing.assert_allclose(gradient, numerical_gradient(by_loops, matrix), atol=2e-6)


@pytest.mark.parametrize("variant", ["as_described", "as_released"])
def test_taet_begins_with_clean_training_and_no_attack(variant):
    method = methods.create("taet", INNER, variant=variant)
    batch = dataclasses.replace(toy_batch(), radius=jnp.full(1, 0.1), step_size=jnp.full(1, 0.05))
    attack = lambda epoch: method.attack(toy_learner(epoch=epoch, epochs=5), batch)  # noqa: E731
    for epoch in (1, 2):
        np.testing.assert_array_equal(attack(epoch), batch.images)
        value, outcome = toy_loss(method, toy_learner(epoch=epoch, epochs=5), adv=0.0)
        np.testing.assert_allclose(value, 0.407606, atol=1e-6)
        np.testing.assert_array_equal(outcome.batch_stats["seen"], passes("xx" if variant == "as_released" else "x"))
    assert not np.array_equal(attack(3), batch.images)
    assert float(toy_loss(method, toy_learner(epoch=3, epochs=5))[0]) < 0.3


@pytest.mark.slow
def test_taet_as_released_attacks_with_the_statistics_of_its_pass_on_the_images(network):
    learner = real_learner(network, epoch=jnp.int32(3))
    described, released = (methods.create("taet", INNER, variant=v) for v in ("as_described", "as_released"))
    batch = real_batch(described, learner)
    _, passed = learner.forward(batch.images, bn="train")
    result = jax.jit(released.attack)(learner, batch)
    np.testing.assert_allclose(result, jax.jit(described.attack)(passed, batch), atol=1e-6)
    assert float(jnp.abs(result - jax.jit(described.attack)(learner, batch)).max()) > 1e-3


SMOOTH = {
    "pgd_at": {},
    "at_bsl": {},
    "trades": {},
    "mart": {},
    "robal": {"scale": 2.0},
    "reat": {},
    "taet": {"clean_fraction": 0.0},
    "self_distillation": {},
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_those_of_the_value_in_float64(name):
    method = methods.create(name, INNER, **SMOOTH[name])
    batch = dataclasses.replace(
        toy_batch(), images=jnp.zeros((2, 1, 1, 1)), labels=jnp.array([0, 2]), keys=jax.random.split(jax.random.key(0))
    )

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        learner = toy_learner()
        table = np.asarray(learner.params["table"], float) + 0.05 * np.arange(9).reshape(3, 3)

        def value_of(table):
            changed = dataclasses.replace(learner, params={**learner.params, "table": table})
            return toy_loss(method, changed, batch)[0]

        gradient = jax.jit(jax.grad(value_of))(jnp.asarray(table))
        assert gradient.dtype == jnp.float64
        np.testing.assert_allclose(gradient, numerical_gradient(jax.jit(value_of), table, step=1e-4), atol=2e-6)
