"""Winograd's form of the 3x3 convolution: the values, gradients and errors of the direct sum, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltrobust.models.cpu import winograd
from ltrobust.models.cpu.convolution import convolve

PADDINGS = [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((2, 0), (0, 2))]


def direct(images, kernel, padding):
    return lax.conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def drawn(batch, side, channels, outputs, dtype=jnp.float64):
    keys = jax.random.split(jax.random.key(0), 2)
    images = jax.random.normal(keys[0], (batch, side, side, channels), dtype)
    return images, jax.random.normal(keys[1], (3, 3, channels, outputs), dtype) / np.sqrt(9 * channels)


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("cache", [0, 300_000, 10**9], ids=["one by one", "some", "all at once"])
def test_values_and_both_gradients_are_those_of_the_direct_sum(monkeypatch, double, cache):
    monkeypatch.setattr(winograd, "CACHE", cache)
    jax.clear_caches()
    images, kernel = drawn(2 * jax.local_device_count(), 8, 64, 80)
    assert winograd.gradient_pays(images, kernel, (1, 1), (8, 8))

    def of(function):
        """Values and gradients in one program for all paddings. That of the direct sum is the same for every cache."""

        def all_paddings(images, kernel):
            total = lambda x, w, padding: jnp.sum(jnp.sin(function(x, w, padding)))  # noqa: E731
            return [jax.value_and_grad(total, (0, 1))(images, kernel, padding) for padding in PADDINGS]

        return jax.jit(all_paddings)(images, kernel)

    mine, reference = of(lambda x, w, padding: convolve(x, w, (1, 1), padding)), of(direct)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), mine, reference)


@pytest.mark.slow
def test_the_mirrored_form_is_the_image_gradient(double):
    images, kernel = drawn(4, 8, 32, 32)
    value, pull = jax.vjp(lambda x: direct(x, kernel, ((1, 1), (1, 1))), images)
    cotangent = jnp.cos(value)
    result = winograd.convolve(cotangent, kernel, ((1, 1), (1, 1)), mirrored=True)
    np.testing.assert_allclose(result, pull(cotangent)[0], rtol=1e-11, atol=1e-11)


@pytest.mark.slow
def test_a_batch_that_is_divided_over_devices_stays_so(monkeypatch):
    """Where a whole program is divided by its compiler, as evaluation is, a loop over images must not gather them."""
    monkeypatch.setattr(winograd, "CACHE", 0)
    jax.clear_caches()
    count = jax.device_count()
    assert count > 1, "tests force several devices"
    images, kernel = drawn(4 * count, 8, 32, 32, jnp.float32)
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    images = jax.device_put(images, NamedSharding(mesh, PartitionSpec("devices")))
    kernel = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
    apply = jax.jit(lambda x, w: convolve(x, w, (1, 1), ((1, 1), (1, 1))))
    program = apply.lower(images, kernel).compile()
    assert "while" in program.as_text()
    assert not [word for word in ("all-gather", "all-to-all", "all-reduce", "collective") if word in program.as_text()]
    np.testing.assert_allclose(program(images, kernel), direct(images, kernel, ((1, 1), (1, 1))), atol=1e-5)


def test_an_image_does_not_depend_on_the_others(double):
    images, kernel = drawn(6, 8, 32, 32)
    whole = winograd.convolve(images, kernel, ((1, 1), (1, 1)))
    other = winograd.convolve(images.at[1:].set(jnp.nan), kernel, ((1, 1), (1, 1)))
    np.testing.assert_array_equal(whole[0], other[0])
    assert jnp.isnan(other[1:]).all()


@pytest.mark.slow
def test_second_order_gradients_are_those_of_the_direct_sum(double):
    images, kernel = drawn(4, 8, 64, 64)

    def penalty(function):
        inner = lambda w: jax.grad(lambda x: jnp.sum(jnp.tanh(function(x, w))))(images)  # noqa: E731
        return jax.grad(lambda w: jnp.sum(inner(w) ** 2))(kernel)

    mine = penalty(lambda x, w: convolve(x, w, (1, 1), ((1, 1), (1, 1))))
    np.testing.assert_allclose(mine, penalty(lambda x, w: direct(x, w, ((1, 1), (1, 1)))), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("of", ["images", "kernel"])
@pytest.mark.parametrize(("side", "channels"), [(32, 64), (8, 256), (4, 512)])
def test_its_error_in_float32_is_that_of_a_direct_sum(side, channels, of):
    images, kernel = drawn(4, side, channels, channels, jnp.float32)
    cotangent, padding = drawn(4, side, channels, channels, jnp.float32)[0], ((1, 1), (1, 1))

    def gradient(images, cotangent):
        pull = jax.vjp(lambda w: direct(images, w, padding), kernel.astype(images.dtype))[1]
        return pull(cotangent)[0] / side**2

    if of == "images":
        forms, given = (lambda *a: winograd.convolve(*a, padding), lambda *a: direct(*a, padding)), (images, kernel)
    else:
        forms = (lambda *a: winograd.kernel_gradient(*a, padding) / side**2, gradient)
        given = (images, cotangent)
    with jax.enable_x64(True):
        exact = np.asarray(forms[1](*(array.astype(jnp.float64) for array in given)))
    errors = [np.std(np.asarray(form(*given)) - exact) for form in forms]
    assert np.std(exact) > 0.02
    assert errors[0] < 1e-6
    assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize(
    ("what", "paid"),
    [
        ({}, True),
        ({"channels": 64, "outputs": 64}, True),
        ({"channels": 16}, False),
        ({"outputs": 16}, False),
        ({"batch": 3}, False),  # 48 tiles
        ({"side": 7}, False),
        ({"strides": (2, 2)}, False),
        ({"taps": 1}, False),
        ({"dtype": jnp.bfloat16}, False),
    ],
    ids=str,
)
def test_where_it_pays(what, paid):
    case = {"batch": 4, "side": 8, "channels": 32, "outputs": 32, "strides": (1, 1), "taps": 3, "dtype": jnp.float32}
    case |= what
    images = jax.ShapeDtypeStruct((case["batch"], case["side"], case["side"], case["channels"]), case["dtype"])
    kernel = jax.ShapeDtypeStruct((case["taps"], case["taps"], case["channels"], case["outputs"]), case["dtype"])
    sides = [-(-side // stride) for side, stride in zip(images.shape[1:3], case["strides"], strict=True)]
    pad = ((case["taps"] // 2,) * 2,) * 2
    assert winograd.pays(images, kernel, case["strides"], sides) == paid
    apply = lambda x, w: convolve(x, w, case["strides"], pad)  # noqa: E731
    assert ("conv_general_dilated" in str(jax.make_jaxpr(apply)(images, kernel))) != paid
    gradient = jax.grad(lambda w, x: jnp.sum(apply(x, w)).astype(jnp.float32))
    many = paid and min(kernel.shape[2:]) >= 64
    assert ("kernel_gradient" in str(jax.make_jaxpr(gradient)(kernel, images))) == many
