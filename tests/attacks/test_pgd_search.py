"""PGD in lanes: the same steps as `pgd`, momentum as plain NumPy has it, and every loss at its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import ball, objectives, search
from ltrobust.attacks.algorithms import pgd
from ltrobust.threat import Threat

LINF = Threat("linf", 8)


def keys_of(number: int) -> jax.Array:
    return jax.random.split(jax.random.key(3), number)


def run(logits, images, labels, *, start="none", threat=LINF, **settings) -> search.Lanes:
    classes = jax.eval_shape(logits, jnp.asarray(images)).shape[1]
    settings = {"loss": "ce", "steps": 5, "step_size": 2 / 255, "num_classes": classes} | settings
    return search.run(
        pgd.search(start),
        logits,
        jnp.asarray(images),
        jnp.asarray(labels),
        keys_of(len(images)),
        settings=pgd.settings(radius=threat.epsilon, **settings),
        threat=threat,
    )


def found(*arguments, **settings) -> np.ndarray:
    return np.asarray(run(*arguments, **settings).state.candidate)


def bend(linear):
    """A network with curvature."""
    return lambda images: jnp.tanh(linear.logits(images) / 4) + jnp.sin(linear.logits(images[:, ::-1]))


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(
    ("loss", "start", "norm"),
    [
        ("ce", "uniform", "linf"),
        ("margin", "uniform_raw", "linf"),
        ("ce", "gauss", "l2"),
        ("margin", "none", "l2"),
    ],
)
def test_lanes_make_the_steps_of_pgd_bit_for_bit(linear, loss, start, norm):
    linear, threat = linear.rows(slice(0, 1000, 16)), Threat(norm, 8 if norm == "linf" else 128)
    logits, labels = bend(linear), jnp.asarray(linear.labels)
    objective = {
        "ce": lambda images: objectives.cross_entropy(logits(images), labels),
        "margin": lambda images: objectives.margin(logits(images), labels, 50.0),
    }[loss]
    step = threat.epsilon / 4

    @jax.jit
    def whole(images, keys):
        return pgd.pgd(objective, images, keys, threat=threat, steps=20, step_size=step, start=start)

    expected = whole(jnp.asarray(linear.images), keys_of(len(labels)))
    lanes = run(logits, linear.images, labels, start=start, threat=threat, loss=loss, steps=20, step_size=step)
    np.testing.assert_array_equal(lanes.state.candidate, expected)
    np.testing.assert_array_equal(lanes.evaluations, 20)
    assert not bool(lanes.state.claimed.any())


def quadratic(seed: int = 0):
    """Two classes, `z_1 = <w, x> + <d, x^2> / 2` and `z_0 = 0`; weights in NumPy."""
    draws = np.random.RandomState(seed)
    weights, curvature = draws.randn(4, 4, 3).astype(np.float32), 3 * draws.randn(4, 4, 3).astype(np.float32)

    def logits(images):
        rising = jnp.sum(weights * images + curvature / 2 * images**2, axis=(1, 2, 3))
        return jnp.stack([jnp.zeros_like(rising), rising], axis=1)

    return logits, weights, curvature, draws.uniform(0, 1, (8, 4, 4, 3)).astype(np.float32)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_momentum_is_that_of_plain_numpy(decay):
    logits, weights, curvature, images = quadratic()
    radius, step = np.float32(0.2), np.float32(0.02)
    points, velocity = images.copy(), np.zeros_like(images)
    for _ in range(20):
        gradient = weights + curvature * points
        velocity = np.float32(decay) * velocity + gradient / np.abs(gradient).mean(axis=(1, 2, 3), keepdims=True)
        points = np.clip(points + step * np.sign(velocity), images - radius, images + radius).clip(0, 1)
    settings = {"loss": "margin", "steps": 20, "step_size": 0.02, "threat": Threat("linf", 0.2 * 255)}
    labels = np.zeros(8, int)
    np.testing.assert_allclose(found(logits, images, labels, decay=decay, **settings), points, atol=1e-6)
    assert np.abs(found(logits, images, labels, **settings) - points).max() > 0.01


def signs(linear, **settings) -> np.ndarray:
    """Of the change that one step makes, images away from the bounds."""
    images = np.clip(linear.images, 0.1, 0.9)
    change = found(linear.logits, images, linear.labels, steps=1, step_size=LINF.epsilon, **settings) - images
    np.testing.assert_allclose(np.abs(change), LINF.epsilon, atol=1e-6)
    return np.sign(change)


def test_a_large_scale_makes_the_tempered_loss_the_margin(linear):
    linear = linear.rows(slice(0, 1000, 20))
    np.testing.assert_array_equal(signs(linear, loss="tempered", scale=1e4), signs(linear, loss="margin"))


def test_a_small_scale_makes_the_tempered_loss_the_mean_over_rivals(linear):
    linear = linear.rows(slice(0, 1000, 20))
    weights = linear.weights.astype(float)
    rivals = (weights.sum(0) - weights) / 9 - weights
    clear = np.abs(rivals) > 1e-2
    expected = np.sign(rivals)[linear.labels].reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1)
    clear = clear[linear.labels].reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(signs(linear, loss="tempered", scale=1e-4)[clear], expected[clear])


def test_a_tempered_loss_moves_where_cross_entropy_stands_still(linear):
    linear = linear.rows(slice(0, 1000, 20))
    changed = found(linear.logits, linear.images, linear.labels, scale=1e4) != linear.images
    assert np.mean(changed.any(axis=(1, 2, 3))) < 0.2
    assert np.all(signs(linear, loss="tempered", scale=1e4) != 0)


def test_temperature_one_is_pgd(linear):
    linear = linear.rows(slice(0, 1000, 16))
    tempered = found(bend(linear), linear.images, linear.labels, loss="tempered", start="uniform_raw")
    plain = found(bend(linear), linear.images, linear.labels, loss="ce", start="uniform_raw")
    np.testing.assert_array_equal(tempered, plain)


def test_lsa_is_cross_entropy_of_ten_times_the_logits(linear):
    linear = linear.rows(slice(0, 1000, 16))
    logits = bend(linear)
    scaled = found(logits, linear.images, linear.labels, scale=10.0, start="uniform_raw")
    louder = found(lambda images: 10 * logits(images), linear.images, linear.labels, start="uniform_raw")
    np.testing.assert_array_equal(scaled, louder)
    assert np.any(scaled != found(logits, linear.images, linear.labels, start="uniform_raw"))


def test_every_class_may_have_a_scale_of_its_own(linear):
    linear = linear.rows(slice(0, 1000, 16))
    scales = np.linspace(0.1, 20, 10)
    mixed = found(bend(linear), linear.images, linear.labels, scale=tuple(scales))
    for label in (0, 4, 9):
        alone = found(bend(linear), linear.images, linear.labels, scale=float(scales[label]))
        np.testing.assert_array_equal(mixed[linear.labels == label], alone[linear.labels == label])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "start", "loss", "decay"),
    [
        ("linf", "none", "ce", 0.0),
        ("linf", "uniform_raw", "margin", 1.0),
        ("linf", "one_sided", "tempered", 0.0),
        ("l2", "gauss", "ce", 1.0),
        ("l2", "uniform_raw", "margin", 0.0),
    ],
)
def test_points_lie_in_ball_and_bounds(norm, start, loss, decay):
    logits, _, _, images = quadratic()
    images, threat = np.clip(1.6 * images - 0.3, 0, 1).astype(np.float32), Threat(norm, 40)
    settings = {"start": start, "threat": threat, "loss": loss, "decay": decay, "steps": 3, "step_size": 0.1}
    points = found(logits, images, np.arange(8) % 2, **settings)
    assert float(ball.violation(jnp.asarray(points), images, threat.epsilon, threat).max()) <= 4e-7
    assert not np.array_equal(points, images)


@pytest.mark.parametrize("loss", ["ce", "margin", "tempered"])
def test_a_linear_model_gives_the_closed_form_optimum(linear, loss):
    linear = linear.rows(slice(0, 200, 4))._replace(weights=linear.weights[:2])
    toward = (linear.weights[1] - linear.weights[0]) * np.where(linear.labels == 0, 1, -1)[:, None]
    toward = toward.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1)
    best = np.clip(linear.images + LINF.epsilon * np.sign(toward), 0, 1)
    points = found(linear.logits, linear.images, linear.labels, loss=loss, steps=20, start="uniform")
    np.testing.assert_allclose(points, best, atol=1e-6)


@pytest.mark.slow
def test_an_image_does_not_depend_on_its_batch(linear):
    linear = linear.rows(np.linspace(0, 999, 64).astype(int))
    settings = pgd.settings(loss="ce", radius=8 / 255, steps=5, step_size=2 / 255, num_classes=10, decay=1.0)

    def attack(rows):
        arrays = jnp.asarray(linear.images[rows]), jnp.asarray(linear.labels[rows]), keys_of(64)[rows]
        return search.run(pgd.search("uniform"), bend(linear), *arrays, settings=settings, threat=LINF).state.candidate

    whole = attack(np.arange(64))
    order = np.random.RandomState(0).permutation(64)
    np.testing.assert_array_equal(attack(order), whole[order])
    np.testing.assert_array_equal(attack(np.full(64, 17))[30], whole[17])


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="known losses: ce, margin, tempered"):
        pgd.settings(loss="dlr", radius=0.1, steps=1, step_size=0.1, num_classes=10)
    with pytest.raises(ValueError, match="at least 1"):
        pgd.settings(loss="ce", radius=0.1, steps=0, step_size=0.1, num_classes=10)
    with pytest.raises(ValueError, match="linf only"):
        run(quadratic()[0], quadratic()[3], np.zeros(8, int), start="one_sided", threat=Threat("l2", 8))
    with pytest.raises(ValueError, match="known starts"):
        run(quadratic()[0], quadratic()[3], np.zeros(8, int), start="middle")
