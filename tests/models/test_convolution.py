"""The CPU convolution: the same values and gradients as JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ltrobust.models.cpu.convolution import convolve

CASES = [(size, kernel, stride) for size in (7, 8) for kernel in (1, 3, 4) for stride in (1, 2, 3)]
PADDINGS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (2, 1))]
# Outputs smaller than the kernel.
SMALL = [(2, 3, 1), (2, 3, 2), (4, 3, 2)]


def reference(images, kernel, stride, padding):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (stride, stride), padding, dimension_numbers=layout)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [(*case, padding) for case in CASES for padding in PADDINGS]
    + [(*case, padding) for case in SMALL for padding in PADDINGS[1:]],
    ids=str,
)
def test_values_and_both_gradients_are_those_of_the_built_in_rule(size, kernel, stride, padding):
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.random.normal(keys[0], (3, size, size, 2))
    weights = jax.random.normal(keys[1], (kernel, kernel, 2, 5))
    results = []
    for function in (
        lambda x, w: convolve(x, w, (stride, stride), padding),
        lambda x, w: reference(x, w, stride, padding),
    ):
        value_and_gradients = jax.jit(jax.value_and_grad(lambda x, w, f=function: jnp.sum(jnp.sin(f(x, w))), (0, 1)))
        value, gradients = value_and_gradients(images, weights)
        results.append((value, *gradients))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("side", "stride"), [(5, 2), (6, 1)])
def test_second_order_gradients_are_those_of_the_built_in_rule(side, stride):
    images = jax.random.normal(jax.random.key(0), (2, side, side, 2))
    weights = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))

    def penalty(w, function):
        inner = jax.grad(lambda x: jnp.sum(jnp.tanh(function(x, w))))
        return jnp.sum(inner(images) ** 2)

    mine = jax.grad(lambda w: penalty(w, lambda x, w: convolve(x, w, (stride, stride), ((1, 1), (1, 1)))))(weights)
    theirs = jax.grad(lambda w: penalty(w, lambda x, w: reference(x, w, stride, ((1, 1), (1, 1)))))(weights)
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
