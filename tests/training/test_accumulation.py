"""Steps whose batches are computed in parts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import planned
import pytest
from one_phase import NETWORK, assert_close, mesh_of, phase_with

from ltrobust import models
from ltrobust.models import convnext
from ltrobust.training import accumulation, devices, placement, steps


def small_convnext(classes: int = 10) -> Any:
    """A ConvNeXt of one block, without BatchNorm, for 8x8 images."""
    module = models.create("convnext_tiny", num_classes=classes)
    return module.clone(widths=(4,), blocks=(1,))


def first_steps(config: Any, mesh: Any, parts: int, module: Any = None, count: int = 2) -> Any:
    """The state after the first steps of the teacher phase."""
    run_data = planned.load_run_data(config)
    phase = planned.make_phase(config, "teacher", run_data, mesh)
    phase = phase_with(phase, module=module or phase.settings.module, accumulate=parts)
    inputs = placement.make_inputs(phase, run_data, mesh)
    state, _ = placement.first_state(phase, inputs, mesh)
    order = placement.make_order(phase, 0, count, mesh, count)
    return steps.compile_chunk(phase.settings, mesh)(state, inputs, order, jnp.int32(count), jnp.int32(1))


def test_parts_train_as_the_whole_batch_does_without_batch_norm_and_average_weights(tiny):
    with tiny.unlocked():
        tiny.teacher.attack.steps = 1
        tiny.teacher.ema_decay = 0.5
    whole, parts = (first_steps(tiny, mesh_of(1), count, small_convnext()) for count in (1, 4))
    assert convnext.SCALE == 1e-6
    assert_close(whole.weights, parts.weights, 1e-5)
    assert_close(whole.sums, parts.sums, 1e-3)
    assert whole.weights.batch_stats == parts.weights.batch_stats == {}
    # The mean of the weights before the first step, after it and after the second one: 1/4, 1/4, 1/2.
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), whole.averaged.params, whole.weights.params)
    assert max(jax.tree.leaves(moved)) > 1e-4
    assert_close(whole.averaged, parts.averaged, 1e-5)


@pytest.mark.slow
def test_parts_on_several_devices_are_those_of_one(tiny):
    with tiny.unlocked():
        tiny.teacher.attack.steps = 1
        tiny.teacher.wrappers = ("awp",)
    one = first_steps(tiny, mesh_of(1), 1, small_convnext())
    several = first_steps(tiny, devices.make_mesh(jax.devices()[:2]), 2, small_convnext())
    assert_close(one.weights, several.weights, 2e-4)


@pytest.mark.slow
def test_batch_norm_s_statistics_are_those_of_each_part(tiny):
    with tiny.unlocked():
        tiny.teacher.attack.steps = 1
    whole, parts = (first_steps(tiny, mesh_of(1), count, NETWORK, count=1) for count in (1, 2))
    mean = lambda state: state.weights.batch_stats["stem_norm"]["mean"]  # noqa: E731
    # The stem sees the adversarial images alone, and those of the first step are the same: the attack is in mode eval.
    np.testing.assert_allclose(mean(whole), mean(parts), atol=1e-6)
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), whole.weights, parts.weights)
    assert 0 < max(jax.tree.leaves(apart)) < 0.5


@pytest.mark.parametrize(
    ("method", "parts", "devices_used", "message"),
    [
        ("pgd_at", 0, 1, r"^student\.accumulate is 0; give a number of parts, at least 1"),
        (
            "reat",
            2,
            1,
            r"^student\.accumulate is 2, but the loss of reat is not known to be a mean .*separable.*give 1",
        ),
        ("pgd_at", 3, 1, r"^student\.accumulate is 3, and a batch of 64 does not .* 1 device.*a multiple of 3"),
        (
            "pgd_at",
            32,
            4,
            r"does not divide into 32 parts on 4 device\(s\); use a batch size that is a multiple of 128",
        ),
    ],
)
def test_a_number_of_parts_that_cannot_be_is_refused(tiny, method, parts, devices_used, message):
    with tiny.unlocked():
        tiny.student.method, tiny.student.accumulate = method, parts
    with pytest.raises(ValueError, match=message):
        planned.make_phase(tiny, "student", planned.load_run_data(tiny), mesh_of(devices_used))


@pytest.mark.parametrize(
    ("changes", "remedies"),
    [
        ({}, ("student.accumulate=2", "model.remat=True", "model.dtype=bfloat16")),
        ({"student.accumulate": 2, "model.remat": True}, ("student.accumulate=4", "model.dtype=bfloat16")),
        ({"student.accumulate": 64, "model.dtype": "bfloat16"}, ("model.remat=True",)),
        ({"student.method": "reat"}, ("model.remat=True", "model.dtype=bfloat16")),
        ({"model.name": "own:Plain"}, ("student.accumulate=2", "model.dtype=bfloat16")),
    ],
)
def test_remedies_for_a_lack_of_memory_are_allowed_and_not_in_force(tiny, changes, remedies):
    with tiny.unlocked():
        tiny.student.method = "pgd_at"
        tiny.update_from_flattened_dict(changes)
    phase = planned.make_phase(tiny, "student", planned.load_run_data(tiny), mesh_of(1))
    assert phase.remedies == remedies


def test_one_part_is_the_program_without_parts(tiny, monkeypatch):
    with tiny.unlocked():
        tiny.student.method, tiny.student.attack.steps = "pgd_at", 1
    run_data, mesh = planned.load_run_data(tiny), mesh_of(1)
    phase = phase_with(planned.make_phase(tiny, "student", run_data, mesh), module=NETWORK)
    shapes = placement.argument_shapes(phase, run_data, mesh, {}, 2)

    def text(parts: int) -> str:
        settings = phase_with(phase, accumulate=parts).settings
        return steps.compile_chunk(settings, mesh).trace(*shapes).lower().as_text()

    one, two = text(1), text(2)
    # As if there were no parts.
    monkeypatch.setattr(accumulation, "attack", lambda of_part, batch, parts: of_part(batch))
    monkeypatch.setattr(
        accumulation, "gradient", lambda of_part, learner, batch, adv, parts: of_part(learner, batch, adv)
    )
    assert one == text(1) != two
