"""The platform is an argument: what a network computes is chosen when it is made, not while a program is traced."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest

from configs import digits
from ltrobust import models
from ltrobust.data import batches, sources
from ltrobust.data.run_data import make_run_data
from ltrobust.training import devices, steps
from ltrobust.training.state import create_state

CPU_FORM = "cpu_convolution"  # the primitive of models/cpu/convolution.py
IMAGES = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)


@pytest.fixture
def no_questions(monkeypatch):
    """Calling it makes every question for the machine's devices an error."""

    def refuse(*_, **__):
        raise AssertionError("a trace asked which devices there are")

    def forbid():
        for name in ("default_backend", "devices", "local_devices"):
            monkeypatch.setattr(jax, name, refuse)

    return forbid


def network(platform, name="small_resnet"):
    """A module, the shapes of its variables and its function in evaluation mode."""
    module = models.create(name, num_classes=5, width=32, platform=platform)
    variables = jax.eval_shape(lambda key: models.initialise(module, key, (16, 16, 3)), jax.random.key(0))
    return module, variables, lambda variables, images: models.forward(module, *variables, images, bn="eval")[0]


def numbers_of(text):
    """How often some operations are in a lowered program."""
    return {name: len(re.findall(rf"stablehlo\.{name}\b", text)) for name in ("convolution", "dot_general", "while")}


@pytest.mark.parametrize("name", ["small_resnet", "wrn_10_1", "mobilenet_v2", "imagenet_resnet18"])
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_forward_pass_for_another_platform_has_only_jax_s_own_convolutions(no_questions, platform, name):
    _, variables, forward = network(platform, name)
    convolutions = sum(leaf.ndim == 4 for leaf in jax.tree.leaves(variables))
    no_questions()
    traced = jax.jit(forward).trace(variables, IMAGES)
    assert CPU_FORM not in str(traced.jaxpr)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert numbers_of(text) == {"convolution": convolutions, "dot_general": 1, "while": 0}


def test_a_forward_pass_for_the_cpu_has_its_forms(no_questions):
    _, variables, forward = network("cpu")
    no_questions()
    traced = jax.jit(forward).trace(variables, IMAGES)
    assert CPU_FORM in str(traced.jaxpr)
    # The wider stages are in Winograd's form: 16 products instead of a convolution.
    assert numbers_of(traced.lower(lowering_platforms=("cpu",)).as_text())["dot_general"] > 16


def test_the_platform_of_a_network_is_that_of_jax_unless_it_is_given():
    assert models.create("small_resnet", num_classes=5) == models.create("small_resnet", num_classes=5, platform="cpu")
    assert jax.default_backend() == "cpu"


@pytest.mark.slow
def test_networks_for_different_platforms_are_one_function():
    here, there = network("cpu"), network("tpu")
    variables = models.initialise(here[0], jax.random.key(0), (16, 16, 3))
    jax.tree.map(np.testing.assert_array_equal, variables, models.initialise(there[0], jax.random.key(0), (16, 16, 3)))
    images = jax.random.uniform(jax.random.key(1), IMAGES.shape)
    np.testing.assert_allclose(here[2](variables, images), there[2](variables, images), atol=1e-5)


def chunk(config, platform):
    """A compiled chunk of training steps for a platform, and what it is called with."""
    data = config.data
    run_data = make_run_data(
        sources.load("digits", "train"),
        imbalance_ratio=data.imbalance_ratio,
        profile=data.profile,
        seed=data.split_seed,
        validation_fraction=data.validation_fraction,
        validation_floor=data.validation_floor,
        validation_cap=data.validation_cap,
    )
    mesh = devices.make_mesh(jax.devices()[:1])
    phase = planned.make_phase(config, "teacher", run_data, mesh, platform=platform)
    counts = jnp.asarray(phase.class_counts, jnp.float32)

    def start(key):
        params, batch_stats = models.initialise(phase.settings.module, key, run_data.image_shape)
        return create_state(
            params,
            batch_stats,
            optimizer=phase.settings.optimizer,
            method_state=phase.settings.method.initial_state(params, counts),
            metrics=(),
            averaging=False,
        )

    state = jax.eval_shape(start, jax.random.key(0))
    on_device = batches.OnDevice.of(run_data.training.images, phase.labels.astype(np.int32))
    inputs = steps.Inputs(on_device, counts, {}, phase.step_key)
    order = jax.ShapeDtypeStruct((4, config.teacher.batch_size), jnp.int32)
    program = steps.compile_chunk(phase.settings, mesh)
    return functools.partial(program.trace, state, inputs, order, jnp.int32(4), jnp.int32(1))


def test_a_chunk_of_training_steps_is_lowered_for_the_platform_that_was_named(no_questions):
    config = digits.get_config()
    config.model.width = 32
    traces = {platform: chunk(config, platform) for platform in ("cpu", "tpu")}
    no_questions()
    cpu, tpu = (traces[platform]() for platform in ("cpu", "tpu"))
    assert CPU_FORM in str(cpu.jaxpr)
    assert CPU_FORM not in str(tpu.jaxpr)
    counts = [
        numbers_of(trace.lower(lowering_platforms=(platform,)).as_text())
        for trace, platform in ((cpu, "cpu"), (tpu, "tpu"))
    ]
    assert counts[0]["dot_general"] > 16 + counts[1]["dot_general"]
    assert counts[1]["convolution"] > counts[0]["convolution"]
    # A head, its gradients, and one convolution and at most two gradients of it in each pass.
    assert counts[1]["dot_general"] < 16


@pytest.mark.slow
def test_forward_mode_gives_the_derivative_of_reverse_mode():
    module, _, forward = network("cpu")
    variables = models.initialise(module, jax.random.key(0), (16, 16, 3))
    images, change = (jax.random.uniform(jax.random.key(seed), IMAGES.shape) for seed in (1, 2))
    logits, moved = jax.jvp(functools.partial(forward, variables), (images,), (change,))
    reference, pull = jax.vjp(functools.partial(forward, variables), images)
    np.testing.assert_allclose(logits, reference, atol=1e-6)
    for row in range(5):
        (gradient,) = pull(jnp.zeros_like(logits).at[:, row].set(1.0))
        np.testing.assert_allclose(jnp.sum(gradient * change, axis=(1, 2, 3)), moved[:, row], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_jacobians_by_forward_and_by_reverse_mode_agree():
    module = models.create("small_resnet", num_classes=3, width=4, platform="cpu")
    params, stats = models.initialise(module, jax.random.key(0), (8, 8, 1))
    forward = lambda params, images: models.forward(module, params, stats, images, bn="eval")[0]  # noqa: E731
    images = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))
    stem = params["stem"]["kernel"]
    of_stem = lambda kernel: forward(params | {"stem": {"kernel": kernel}}, images)  # noqa: E731
    for function, at in ((functools.partial(forward, params), images), (of_stem, stem)):
        forwards, backwards = jax.jit(lambda x, f=function: (jax.jacfwd(f)(x), jax.jacrev(f)(x)))(at)
        np.testing.assert_allclose(forwards, backwards, rtol=1e-4, atol=1e-5)
