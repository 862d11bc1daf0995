"""Methods that treat classes unequally on purpose: closed forms, tables, limits, and when their states change."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize
from six_images import BATCH, CE, ROWS, stepped
from toy import INNER, on_one_device, toy_batch, toy_learner

from ltrobust import methods
from ltrobust.methods.class_wise_dro import entropic_distribution, worst_distribution

LOSSES = np.array([0.2, 0.5, 0.8, 1.0, 1.1, 1.3, 1.6, 1.9, 2.2, 2.4])


solve = jax.jit(worst_distribution)


def exactly(losses, counted=None, *, rho):
    """The distribution in float64, of up to ten losses: one compiled program."""
    counted = np.ones(len(losses), bool) if counted is None else counted
    missing = 10 - len(losses)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        losses, counted = jnp.asarray(np.pad(losses, (0, missing))), jnp.asarray(np.pad(counted, (0, missing)))
        return np.asarray(solve(losses, counted, rho=np.float64(rho)))[: 10 - missing]


def divergence(shares):
    return len(shares) * np.sum((shares - 1 / len(shares)) ** 2)


@pytest.mark.parametrize(
    ("rho", "value"),
    [
        *((0.0, 1.3), (0.05, 1.453297), (0.2, 1.606594), (0.5, 1.783462), (1, 1.961528)),
        *((2, 2.160554), (5, 2.344721), (9, 2.4), (30, 2.4)),
    ],
)
def test_the_worst_distribution_of_ten_losses(rho, value):
    for shares in (exactly(LOSSES, rho=rho), solve(jnp.float32(LOSSES), jnp.ones(10, bool), rho=jnp.float32(rho))):
        np.testing.assert_allclose([shares @ LOSSES, shares.sum()], [value, 1], atol=1e-6)
        assert shares.min() >= 0
        np.testing.assert_allclose(divergence(shares), min(rho, 9), atol=1e-4)
    deviation = LOSSES.std()
    assert abs(deviation - 0.685565) < 1e-6
    closed = LOSSES.mean() + np.sqrt(rho) * deviation
    if rho <= 0.38843:
        by_formula = (1 + np.sqrt(rho) * (LOSSES - LOSSES.mean()) / deviation) / 10
        np.testing.assert_allclose(exactly(LOSSES, rho=rho), by_formula, atol=1e-10)
    elif rho < 9:
        assert value < closed - 1e-4


@pytest.mark.parametrize(("seed", "rho"), [*itertools.product(range(3), (0.1, 0.7, 3.0))])
def test_the_worst_distribution_is_that_of_bisection_and_of_a_general_solver(seed, rho):
    losses = np.random.RandomState(seed).gamma(1.0, size=7)
    shares = exactly(losses, rho=rho)

    def tilted(slope):
        level = optimize.brentq(
            lambda level: np.maximum(0, 1 + slope * (losses - level)).sum() - 7,
            losses.min() - 9,
            losses.max(),
            xtol=1e-15,
        )
        return np.maximum(0, 1 + slope * (losses - level)) / 7

    slope = optimize.brentq(lambda slope: divergence(tilted(slope)) - rho, 1e-6, 1e3, xtol=1e-14)
    np.testing.assert_allclose(shares, tilted(slope), atol=1e-10)
    result = optimize.minimize(
        lambda shares: -shares @ losses,
        np.full(7, 1 / 7),
        method="SLSQP",
        bounds=[(0, 1)] * 7,
        constraints=[
            {"type": "eq", "fun": lambda shares: shares.sum() - 1},
            {"type": "ineq", "fun": lambda shares: rho - divergence(shares)},
        ],
    )
    np.testing.assert_allclose(shares @ losses, -result.fun, atol=1e-5)


def test_equal_losses_share_equally_and_what_is_not_counted_gets_nothing():
    np.testing.assert_allclose(exactly(np.full(5, 0.7), rho=0.4), 0.2, atol=1e-12)
    np.testing.assert_allclose(exactly(np.array([2.0, 1, 2, 0]), rho=5.0), [0.5, 0, 0.5, 0], atol=1e-12)
    counted = np.array([True, False, True, True, False])
    some = exactly(np.array([1.0, 50, 2, 2.5, -3]), counted, rho=0.3)
    np.testing.assert_allclose(some[counted], exactly(np.array([1.0, 2, 2.5]), rho=0.3), atol=1e-12)
    assert (some[~counted] == 0).all()


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("average", [-1.0, 0.0])
def test_rho_0_is_the_mean_of_class_losses_and_infinity_the_largest_on_any_number_of_devices(average, devices):
    means = np.array([CE[[0, 1, 5]].mean(), CE[2:4].mean(), CE[4]])
    # The batch's own proportions: then the weighted mean is exact.
    for rho, expected in ((0.0, means.mean()), (9.0, means.max())):
        method = methods.create("chi2_class_dro", INNER, rho=rho, average=average)
        value, _ = stepped(method, devices=devices, class_counts=jnp.array([3.0, 2.0, 1.0]))
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_the_average_of_class_losses_starts_at_the_first_and_keeps_absent_classes():
    method = methods.create("chi2_class_dro", INNER, average=0.75)
    run = jax.jit(lambda learner, batch: on_one_device(lambda: method.loss(learner, batch, jnp.ones((1, 1, 1, 1)))))
    learner = toy_learner()
    learner = dataclasses.replace(learner, method_state=method.initial_state({}, learner.class_counts))
    _, first = run(learner, toy_batch())
    np.testing.assert_allclose(first.method_state["losses"], [1.464369, 0, 0], atol=1e-6)
    assert first.method_state["known"].tolist() == [True, False, False]
    _, second = stepped(method, first.method_state)
    means = np.array([CE[[0, 1, 5]].mean(), CE[2:4].mean(), CE[4]])
    expected = [0.75 * 1.464369 + 0.25 * means[0], *means[1:]]
    np.testing.assert_allclose(second.method_state["losses"], expected, rtol=1e-5)
    batch = dataclasses.replace(toy_batch(), labels=jnp.array([1]))
    learner = dataclasses.replace(toy_learner(), method_state=second.method_state)
    third = run(learner, batch)[1].method_state["losses"]
    np.testing.assert_array_equal(third[jnp.array([0, 2])], second.method_state["losses"][jnp.array([0, 2])])


def test_the_gradient_of_a_step_is_that_of_the_worst_value():
    method = methods.create("chi2_class_dro", INNER, rho=0.5, average=0.0)
    learner = toy_learner()

    @jax.jit
    def of_table(table):
        changed = dataclasses.replace(learner, params={**learner.params, "table": table})
        return on_one_device(lambda: method.loss(changed, BATCH, BATCH.images)[0])

    table = learner.params["table"]
    gradient = jax.grad(of_table)(table)
    step = jax.random.normal(jax.random.key(3), table.shape)
    slope = (of_table(table + 0.01 * step) - of_table(table - 0.01 * step)) / 0.02
    np.testing.assert_allclose(jnp.vdot(gradient, step), slope, rtol=1e-3)


entropic = jax.jit(entropic_distribution)


def test_the_entropic_distribution_of_ten_margins():
    values = 12.8 * np.array([-0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.05, 0.1, 0.2, 0.3])
    shares = np.asarray(entropic(jnp.float32(values), radius=0.5))
    np.testing.assert_allclose([shares.max(), shares @ values], [0.491429, 1.841015], atol=2e-6)
    np.testing.assert_allclose([shares.sum(), -np.mean(np.log(10 * shares))], [1, 0.5], rtol=1e-5)
    # Proportional to 1 / (nu - a): equal steps of 1 / p where a has equal steps.
    np.testing.assert_allclose(np.diff(1 / shares[:6]), np.diff(1 / shares[:6])[0], rtol=1e-4)
    result = optimize.minimize(
        lambda shares: -shares @ values,
        np.full(10, 0.1),
        method="SLSQP",
        bounds=[(1e-6, 1)] * 10,
        constraints=[
            {"type": "eq", "fun": lambda shares: shares.sum() - 1},
            {"type": "ineq", "fun": lambda shares: 0.5 + np.mean(np.log(10 * shares))},
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    np.testing.assert_allclose(shares @ values, -result.fun, atol=1e-4)
    np.testing.assert_allclose(entropic(jnp.float32(values), radius=0.0), 0.1, rtol=1e-5)
    np.testing.assert_allclose(entropic(jnp.full(10, 3.0), radius=0.5), 0.1, rtol=1e-5)


@pytest.mark.parametrize(("devices", "count_factor"), [(1, True), (2, True), (2, False)])
def test_faal_weighs_classes_by_their_margins_over_the_whole_batch(devices, count_factor):
    answers, labels = np.exp(ROWS) / np.exp(ROWS).sum(axis=-1, keepdims=True), np.asarray(BATCH.labels)
    margins = [np.delete(row, label).max() - row[label] for row, label in zip(answers, labels, strict=True)]
    means = np.array([np.mean(np.array(margins)[labels == label]) for label in range(3)])
    values = means * np.array([3, 2, 1]) if count_factor else means
    shares = np.asarray(entropic(jnp.float32(values), radius=0.5))
    assert np.ptp(shares) > 0.1
    method = methods.create("faal", INNER, count_factor=count_factor)
    np.testing.assert_allclose(stepped(method, devices=devices)[0], np.mean(3 * shares[labels] * CE), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods.create("chi2_class_dro", INNER, rho=-1.0), "chi2_class_dro.rho is -1.0"),
        (lambda: methods.create("faal", INNER, radius=-1.0), "faal.radius is -1.0"),
        (lambda: methods.create("faal", INNER, base="mart"), "faal.base is 'mart'; known: pgd_at, trades"),
        (lambda: methods.create("chi2_class_dro", INNER, average=1.0), "average is 1.0; it must be below 1"),
        (lambda: methods.create("chi2_class_dro", INNER, average=0.0).check(np.ones(100)), "average is 0 with 100"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
