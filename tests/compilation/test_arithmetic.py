"""FLOPs of traced programs are those of the literature's formulas."""

import flops
import jax
import jax.numpy as jnp
import pytest
import training

from ltrobust import models
from ltrobust.compilation import arithmetic
from ltrobust.models.model_plan import make_model_plan
from ltrobust.plan import make_phase_plan
from ltrobust.training import devices, phases, placement, steps


@pytest.mark.parametrize("method", ["pgd_at", "trades"])
def test_a_step_costs_what_its_passes_cost(method):
    config = training.configuration("small_resnet", method, 8, student__attack__steps=3)
    settings, data, mesh = config.to_dict(), training.drawn_run_data(config, 512), devices.make_mesh()
    plan, model = make_phase_plan(settings, "student"), make_model_plan(settings["model"])
    # Not for the CPU, whose convolutions have other forms.
    phase = phases.make_phase(plan, model, data, mesh, platform="tpu")
    traced = steps.compile_chunk(phase.settings, mesh).trace(*placement.argument_shapes(phase, data, mesh, {}, 1))
    module = model.create(training.CLASSES, head=models.Head())
    expected = flops.step_flops(flops.network(module, training.image_shape("small_resnet")), method, 3)
    count = arithmetic.count(traced.jaxpr)
    assert count.once == 0
    assert count.each == pytest.approx(8 * expected, rel=0.02)


def test_loops_are_multiplied_and_what_no_output_needs_is_left_out():
    square = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def thrice(x):
        unused = x @ x
        del unused
        x = jax.lax.fori_loop(0, 3, lambda _, x: x @ x, x)
        return jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x @ x, x)

    assert arithmetic.count(jax.jit(thrice).trace(square).jaxpr) == arithmetic.Flops(3 * 128, 2 * 128)
