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
# The stems of networks for ImageNet.
STEMS = [(16, 7, 2, [((3, 3), (3, 3))]), (16, 4, 4, PADDINGS[:1])]


def reference(images, kernel, stride, padding):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (stride, stride), padding, dimension_numbers=layout)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "paddings"),
    [(*case, PADDINGS) for case in CASES] + [(*case, PADDINGS[1:]) for case in SMALL] + STEMS,
    ids=str,
)
def test_values_and_both_gradients_are_those_of_the_built_in_rule(size, kernel, stride, paddings):
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.random.normal(keys[0], (3, size, size, 2))
    weights = jax.random.normal(keys[1], (kernel, kernel, 2, 5))

    @jax.jit  # one program for all paddings
    def values_and_gradients(images, weights):
        def of(function):
            return jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(function(x, w))), (0, 1))(images, weights)

        return [
            (
                of(lambda x, w, p=padding: convolve(x, w, (stride, stride), p)),
                of(lambda x, w, p=padding: reference(x, w, stride, p)),
            )
            for padding in paddings
        ]

    result = values_and_gradients(images, weights)
    assert len(result) == len(paddings)
    for mine, theirs in result:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), mine, theirs)


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


@pytest.mark.parametrize(("size", "channels", "stride"), [(7, 2, 1), (8, 3, 2), (8, 32, 1), (2, 2, 1)])
def test_forward_mode_and_its_compositions_are_those_of_the_built_in_rule(size, channels, stride):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(4, size, size, channels), (3, 3, channels, channels)]
    drawn = [jax.random.normal(key, shape) for key, shape in zip(keys, 2 * shapes, strict=True)]
    point, change = tuple(drawn[:2]), tuple(drawn[2:])

    def all_of(function):
        penalty = lambda x, w: jnp.sum(jnp.tanh(function(x, w)))  # noqa: E731
        by_kernel = jax.grad(penalty, 1)
        return (
            jax.jvp(function, point, change),
            jax.jvp(by_kernel, point, change)[1],  # forward over reverse
            jax.grad(lambda x, w: jnp.sum(jax.jvp(function, (x, w), change)[1] ** 2))(*point),  # reverse over forward
        )

    mine = all_of(lambda x, w: convolve(x, w, (stride, stride), ((1, 1), (1, 1))))
    theirs = all_of(lambda x, w: reference(x, w, stride, ((1, 1), (1, 1))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), mine, theirs)


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (0, 0), (2, 3)])
def test_many_at_once_are_each_one_by_one(axes):
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.random.normal(keys[0], (3, 6, 6, 2) if axes[0] is None else (5, 3, 6, 6, 2))
    kernel = jax.random.normal(keys[1], (3, 3, 2, 4) if axes[1] is None else (5, 3, 3, 2, 4))
    if axes[0]:
        images = jnp.moveaxis(images, 0, axes[0])
    if axes[1]:
        kernel = jnp.moveaxis(kernel, 0, axes[1])
    result, theirs = (
        jax.vmap(jax.grad(lambda x, w, f=f: jnp.sum(jnp.tanh(f(x, w))), (0, 1)), axes)(images, kernel)
        for f in (
            lambda x, w: convolve(x, w, (1, 1), ((1, 1), (1, 1))),
            lambda x, w: reference(x, w, 1, ((1, 1), (1, 1))),
        )
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), result, theirs)


def test_the_matmul_precision_of_the_call_counts():
    """The program is lowered after the call, where the setting holds no more."""

    @jax.jit
    def both(images, kernel):
        with jax.default_matmul_precision("highest"):
            exact = convolve(images, kernel, (1, 1), ((1, 1), (1, 1)))
        return exact, convolve(images, kernel, (1, 1), ((1, 1), (1, 1)))

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 6, 6, 3), (3, 3, 3, 24))]
    text = both.trace(*shapes).lower().as_text()
    assert text.count("stablehlo.convolution") == 2
    assert text.count("precision_config = [#stablehlo<precision HIGHEST>") == 1
