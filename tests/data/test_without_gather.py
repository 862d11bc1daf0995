"""Augmentation without indexing single pixels, which TPUs are slow at: the same pixels, and no such index."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training

from ltrobust.data import image_operations
from ltrobust.data.augment import augment
from ltrobust.models.model_plan import make_model_plan
from ltrobust.plan import make_phase_plan
from ltrobust.training import devices, phases, placement, steps

BATCH = 8
GATHER = re.compile(r'"stablehlo\.gather".*slice_sizes = array<i64: ([\d, ]+)>.*-> tensor<([\dx]+)x\w+>')


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("padding", "shape"), [(4, (10, 12, 3)), (1, (8, 8, 1)), (0, (4, 5, 3)), (3, (3, 3, 1))])
def test_every_crop_and_flip_is_that_of_the_warp(padding, shape):
    image, every = jnp.asarray(noise(*shape)), range(-padding, padding + 1)
    positions = jnp.asarray(list(itertools.product(every, every, (0, 1))), jnp.int32)

    @jax.vmap
    def by_index(position):
        return image_operations.warp(image, image_operations.crop_and_flip(*position, width=shape[1]))

    by_shifts = jax.vmap(lambda position: image_operations.crop_by_shifts(image, *position, padding=padding))
    np.testing.assert_array_equal(jax.jit(by_shifts)(positions), jax.jit(by_index)(positions))


@pytest.mark.parametrize("size", [(16, 16), (15, 24)])
def test_warps_among_the_displacements_of_a_table_are_those_by_index(size):
    height, width = size
    named = [("rotate", 8.0), ("rotate", -7.0), ("shear_x", 0.3), ("shear_y", -0.3), ("translate_x", 7.9)]
    operations = [image_operations.make_operation(*one, height=height, width=width) for one in named]
    matrices = np.stack([operation.matrix for operation in operations])
    shifts = image_operations.displacements(matrices, height=height, width=width)
    image = jnp.asarray(noise(height, width, 3))
    by_shifts = jax.jit(jax.vmap(lambda matrix: image_operations.warp_by_shifts(image, matrix, shifts)))
    by_index = jax.jit(jax.vmap(functools.partial(image_operations.warp, image)))
    np.testing.assert_array_equal(by_shifts(matrices), by_index(matrices))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["base", "randaugment", "autoaugment"])
def test_policies_give_the_same_pixels(policy):
    images, keys = noise(96, 16, 16, 3), jax.random.split(jax.random.key(0), 96)
    images[::3] = images[::3] // 16 + 100  # tone curves do something where contrast is low
    with_and_without = [jax.jit(functools.partial(augment, policy=policy, gather=gather)) for gather in (True, False)]
    np.testing.assert_array_equal(*[function(images, keys) for function in with_and_without])


def largest_gather(policy: str, platform: str) -> int:
    """Places that one gather or scatter of a batch's input reads or writes, in the program for a platform."""
    config = training.configuration("resnet18", "at_bsl", BATCH, student__augmentation__policy=policy)
    mesh, run_data, settings = (
        devices.make_mesh(jax.devices()[:1]),
        training.drawn_run_data(config, 64),
        config.to_dict(),
    )
    plans = make_phase_plan(settings, "student"), make_model_plan(settings["model"])
    phase = phases.make_phase(*plans, run_data, mesh, platform=platform)
    inputs = placement.make_inputs(phase, run_data, mesh)
    function = devices.map_over_devices(
        functools.partial(steps.make_examples, settings=phase.settings),
        mesh,
        in_specs=(devices.REPLICATED, devices.REPLICATED, devices.divided()),
        out_specs=devices.divided(),
    )
    traced = function.trace(jnp.int32(0), inputs, jnp.zeros(BATCH, jnp.int32))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    if "stablehlo.scatter" in text:
        return BATCH * math.prod(run_data.image_shape)
    found = [
        math.prod(map(int, result.split("x"))) // math.prod(map(int, sizes.split(",")))
        for sizes, result in GATHER.findall(text)
    ]
    assert text.count('"stablehlo.gather"') == len(found)
    return max(found)


@pytest.mark.parametrize("policy", ["base", "randaugment", "autoaugment"])
def test_the_input_of_a_step_for_a_tpu_indexes_images_and_no_pixels(policy):
    # Whole images, and rows of the table of two operations for each image.
    assert largest_gather(policy, "tpu") <= 2 * BATCH


def test_the_input_of_a_step_for_other_platforms_indexes_pixels():
    assert largest_gather("base", "cpu") >= BATCH * 32 * 32
