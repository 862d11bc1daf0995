"""Reading a network's trace: what hides gradients is named, what is known to be sound is not held against anybody."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from ltrobust.models import create, forward, initialise
from ltrobust.models.cpu.convolution import convolve
from ltrobust.sanity.tracing import trace

SHAPE = (8, 8, 3)


def energy(x):
    return jnp.sum(jnp.tanh(x) ** 2)


@jax.custom_vjp
def backward_pass_of_its_own(x):
    return x


backward_pass_of_its_own.defvjp(lambda x: (x, None), lambda saved, slope: (jnp.ones_like(slope),))


@jax.custom_vjp
def relu(x):
    """Has the name of a known function, and not its derivative."""
    return jnp.maximum(x, 0.0)


relu.defvjp(lambda x: (relu(x), None), lambda saved, slope: (slope,))


def noise(x):
    return x + io_callback(lambda: np.zeros(x.shape, np.float32), jax.ShapeDtypeStruct(x.shape, jnp.float32))


def callback(x):
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, jnp.float32), x)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (jnp.round, {"rounding"}),
        (jnp.floor, {"rounding down"}),
        (jnp.sign, {"sign"}),
        (jax.lax.stop_gradient, {"stopped gradient"}),
        (lambda x: x.astype(jnp.int32), {"conversion to integers"}),
        (lambda x: jnp.where(x > 0.5, x, -x), {"selection by comparison"}),
        (lambda x: jax.lax.cond(jnp.sum(x) > 0, jnp.tanh, jnp.exp, x), {"branch"}),
        (lambda x: jax.lax.top_k(x, 2)[0], {"top-k"}),
        (lambda x: jnp.sort(x), {"sorting"}),
        (lambda x: jnp.argmax(x, axis=-1), {"argmax"}),
        (lambda x: jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x), x), {"scan"}),
        (lambda x: jax.lax.while_loop(lambda x: jnp.sum(x) > 1, jnp.tanh, x), {"while loop"}),
        (backward_pass_of_its_own, {"custom derivative"}),
        (relu, {"custom derivative"}),
        (jax.jit(lambda x: jax.checkpoint(jnp.round)(x)), {"rounding"}),
    ],
)
def test_what_hides_a_gradient_is_named(function, names):
    result = trace(lambda variables, images: function(images), (), SHAPE)
    assert set(result.hiding) == names
    assert not result.forbidden


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x - jax.grad(energy)(x), "gradient inside the forward pass"),
        (
            lambda x: jax.lax.fori_loop(0, 5, lambda _, x: x - jax.grad(energy)(x), x),
            "gradient inside the forward pass",
        ),
        (noise, "callback"),
        (callback, "callback"),
        (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), "random draw"),
        (lambda x: x + jax.random.uniform(jax.random.PRNGKey(0), x.shape), "random draw"),
    ],
)
def test_gradients_callbacks_and_random_draws_are_not_allowed(function, name):
    assert name in trace(lambda variables, images: function(images), (), SHAPE).forbidden


def test_known_functions_are_explained():
    kernel = np.ones((3, 3, 3, 4), np.float32)

    def network(variables, images):
        x = jax.nn.relu(convolve(images, kernel, (1, 1), ((1, 1), (1, 1))))
        x = jax.nn.leaky_relu(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"))
        return jax.nn.softmax(jnp.clip(jnp.mean(x, axis=(1, 2)), 0.0, 1.0))

    result = trace(network, (), SHAPE)
    assert not result.hiding
    assert not result.forbidden
    assert set(result.explained) == {"relu", "convolution", "leaky_relu", "clip", "shift by the maximum"}


def test_only_what_the_images_reach_counts():
    result = trace(lambda weights, images: images * jnp.round(jnp.where(weights > 0, weights, 0.0)), np.ones(3), SHAPE)
    assert result == ({}, {}, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_resnet", "resnet18", "preact_resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_networks_of_this_project_have_nothing_to_hide(name, dtype):
    module = create(name, num_classes=10, dtype=dtype)
    variables = jax.eval_shape(lambda: initialise(module, jax.random.key(0), (32, 32, 3)))
    result = trace(lambda variables, images: forward(module, *variables, images, bn="eval")[0], variables, (32, 32, 3))
    assert not result.hiding
    assert not result.forbidden
    assert set(result.explained) <= {"relu", "relu6", "convolution"}
