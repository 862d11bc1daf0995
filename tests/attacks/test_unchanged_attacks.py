"""What may not change an attack: a constant added to all logits; and a scale of them, where the loss has none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import search
from ltrobust.attacks.algorithms import apgd, deepfool, fab, pgd, square
from ltrobust.threat import Threat

pytestmark = pytest.mark.slow

RADII = {"linf": 0.03, "l2": 0.5}  # at which some images are broken and some are not


def linf(loss: str):
    return lambda: (apgd.APGD, "linf", apgd.settings(loss=loss, radius=RADII["linf"], num_classes=10, steps=10))


def nearest(norm: str):
    return lambda: (fab.FAB, norm, fab.settings(radius=RADII[norm], num_classes=10, norm=norm, steps=3, runs=2))


def squares(norm: str):
    chosen = {"radius": RADII[norm], "image_shape": (8, 8, 3), "norm": norm, "queries": 40}
    return lambda: (square.SQUARE, norm, square.settings(**chosen))


def steps(loss: str, norm: str = "linf"):
    chosen = {"radius": RADII[norm], "steps": 5, "step_size": RADII[norm] / 3, "num_classes": 10, "kappa": 1e3}
    return lambda: (pgd.search("uniform"), norm, pgd.settings(loss=loss, **chosen))


# The loss of each is as many times as large where the logits are, or as large: its steps are the same.
WITHOUT_A_SCALE = {
    "pgd-margin": steps("margin"),
    "pgd-margin-l2": steps("margin", "l2"),
    "apgd-difference": linf("difference"),
    "apgd-dlr": linf("dlr"),
    "apgd-targeted_dlr": linf("targeted_dlr"),
    "fab": nearest("linf"),
    "fab-l2": nearest("l2"),
    "square": squares("linf"),
    "square-l2": squares("l2"),
    "deepfool": lambda: (deepfool.DEEPFOOL, "l2", deepfool.settings(steps=2)),
}
WITH_A_SCALE = {"pgd-ce": steps("ce"), "apgd-ce": linf("ce")}


@pytest.fixture(scope="module")
def part(linear):
    return linear.rows(slice(0, 1000, 16))


@pytest.fixture(scope="module")
def after(part):
    """Name, scale and shift -> lanes after the attack on a network with curvature, whose logits are changed so.

    One program serves all scales and shifts of an attack.
    """
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(jnp.arange(len(part.images)))
    images, labels = jnp.asarray(part.images), jnp.asarray(part.labels)

    @functools.cache
    def program(name):
        attack, norm, settings = (WITHOUT_A_SCALE | WITH_A_SCALE)[name]()
        threat = Threat(norm, 255 * RADII[norm])

        def run(scale, shift):
            def logits(images):
                return scale * (4 * jnp.tanh(part.logits(images) / 4)) + shift

            return search.run(attack, logits, images, labels, keys, settings=settings, threat=threat)

        return jax.jit(run)

    return functools.cache(lambda name, scale=1.0, shift=0.0: program(name)(jnp.float32(scale), jnp.float32(shift)))


@pytest.mark.parametrize("name", WITHOUT_A_SCALE)
def test_twice_the_logits_give_the_same_images_bit_for_bit(part, after, name):
    """A power of two, so that every number on the way is exactly twice the other."""
    once, twice = after(name), after(name, scale=2.0)
    np.testing.assert_array_equal(twice.state.candidate, once.state.candidate)
    np.testing.assert_array_equal(twice.state.point, once.state.point)
    np.testing.assert_array_equal(twice.state.claimed, once.state.claimed)
    np.testing.assert_array_equal(twice.evaluations, once.evaluations)
    assert np.any(np.asarray(once.state.point) != part.images)


@pytest.mark.parametrize("name", WITH_A_SCALE)
def test_twice_the_logits_are_another_cross_entropy(after, name):
    once, twice = after(name), after(name, scale=2.0)
    assert np.any(np.asarray(twice.state.point) != np.asarray(once.state.point))


@pytest.mark.parametrize("name", ["pgd-ce", "pgd-margin", "apgd-ce", "apgd-targeted_dlr", "fab", "square", "deepfool"])
def test_a_constant_added_to_all_logits_changes_no_verdict(after, name):
    once, moved = after(name), after(name, shift=2.0)
    np.testing.assert_array_equal(moved.state.claimed, once.state.claimed)
    # Rounding may turn the sign of a gradient near 0, in single pixels.
    same = np.abs(np.asarray(moved.state.candidate) - np.asarray(once.state.candidate)) < 1e-4
    assert same.mean() > 0.999
