"""Schedules in the peers' epochs, and the peers' SGD."""

import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.training.optimizers import make_optimizer, make_schedule


def schedule_of(name: str, epochs: int, drops=(), warmup: int = 0, per_epoch: int = 109, rate: float = 0.1):
    return make_schedule(
        name=name,
        learning_rate=rate,
        steps=epochs * per_epoch,
        first_step=lambda epoch: epoch * per_epoch,
        epochs=epochs,
        drops=drops,
        warmup_epochs=warmup,
    )


@pytest.mark.parametrize(
    ("epochs", "drops", "first_epochs"),
    [(100, (0.74, 0.89, 0.99), (75, 90, 100)), (30, (0.6, 0.8), (19, 25)), (100, (0.29, 0.57), (30, 58))],
)
def test_a_new_rate_holds_from_the_first_step_of_the_peers_epoch(epochs, drops, first_epochs):
    schedule = schedule_of("drops", epochs, drops)
    for number, epoch in enumerate(first_epochs):
        first = (epoch - 1) * 109
        np.testing.assert_allclose(schedule(first - 1), 0.1 * 0.1**number, rtol=1e-5)
        np.testing.assert_allclose(schedule(first), 0.1 * 0.1 ** (number + 1), rtol=1e-5)


def test_two_drops_at_one_step_both_count():
    np.testing.assert_allclose(schedule_of("drops", 2, (0.5, 0.6), per_epoch=10)(10), 0.001, rtol=1e-5)


def test_a_drop_within_a_single_epoch_falls_at_its_fraction_of_the_steps():
    schedule = schedule_of("drops", 1, (0.5, 0.9), per_epoch=10)
    np.testing.assert_allclose([schedule(step) for step in (0, 4, 5, 8, 9)], [0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-5)


def test_cosine_constant_and_warmup():
    assert float(schedule_of("constant", 3)(5)) == pytest.approx(0.1)
    cosine = schedule_of("cosine", 10, per_epoch=10)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [0.1, 0.05, 0.0], atol=1e-7)
    warm = schedule_of("cosine", 10, warmup=1, per_epoch=10)
    np.testing.assert_allclose([warm(0), warm(5), warm(50)], [0.0, 0.05, 0.05], atol=1e-7)


def test_sgd_is_the_peers():
    optimizer = make_optimizer(
        "sgd", schedule_of("constant", 1), weight_decay=5e-4, options={"momentum": 0.9, "nesterov": False}
    )
    weights, velocity = np.array([1.0, -2.0], np.float32), np.zeros(2, np.float32)
    params = jnp.asarray(weights)
    state = optimizer.init(params)
    for gradient in (np.array([0.3, 0.1], np.float32), np.array([-0.2, 0.5], np.float32)):
        velocity = 0.9 * velocity + gradient + 5e-4 * weights
        weights = weights - 0.1 * velocity
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = params + updates
        np.testing.assert_allclose(params, weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule_of("linear", 1), "drops, cosine, constant"),
        (lambda: schedule_of("drops", 1, (1.5,)), r"\(1.5,\)"),
        *((lambda rate=rate: schedule_of("cosine", 1, rate=rate), "learning rate is") for rate in (0.0, -0.1, np.inf)),
        (
            lambda: make_optimizer("lbfgs", schedule_of("constant", 1)),
            "lbfgs with options {} cannot be used here .*give",
        ),
        (
            lambda: make_optimizer("adam", schedule_of("constant", 1), options={"b1": "high"}),
            "adam with options {'b1': 'high'} cannot be used here",
        ),
        (lambda: make_optimizer("sgdm", schedule_of("constant", 1)), "'sgdm'"),
        (lambda: make_optimizer("chain", schedule_of("constant", 1)), "'chain'"),
        (lambda: make_optimizer("sgd", schedule_of("constant", 1), options={"beta": 1}), "no option beta; its options"),
        (lambda: make_optimizer("sgd", schedule_of("constant", 1), weight_decay=-1.0), "weight decay is -1.0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
