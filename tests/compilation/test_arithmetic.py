"""FLOPs of traced programs are those of the literature's formulas."""

import flops
import jax
import jax.numpy as jnp
import pytest
import training

from ltrobust import models
from ltrobust.compilation import arithmetic


@pytest.mark.parametrize("method", ["pgd_at", "self_distillation"])
def test_a_step_costs_what_its_passes_cost(method):
    config = training.configuration("small_resnet", method, 8, student__attack__steps=3)
    found = training.prepare(config)
    stretch = training.steps.compile_stretch(found.phase.settings, found.mesh)
    with flops.direct_convolutions():
        traced = stretch.trace(found.state, found.inputs, found.order, jnp.int32(1), jnp.int32(1))
    network = flops.network(
        models.create("small_resnet", num_classes=10, width=16), training.image_shape("small_resnet")
    )
    count = arithmetic.count(traced.jaxpr)
    assert count.once == 0
    assert count.each == pytest.approx(8 * flops.step_flops(network, method, 3), rel=0.02)


def test_loops_are_multiplied_and_what_no_output_needs_is_left_out():
    square = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def thrice(x):
        unused = x @ x
        del unused
        x = jax.lax.fori_loop(0, 3, lambda _, x: x @ x, x)
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x @ x, x)

    assert arithmetic.count(jax.jit(thrice).trace(square).jaxpr) == arithmetic.Flops(3 * 128, 2 * 128)
