"""Inputs of the steps of a phase, on its devices: constants, the first state, and row numbers in their order."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltrobust.data import batches
from ltrobust.data.run_data import RunData
from ltrobust.methods import Teacher
from ltrobust.models import initialise
from ltrobust.runtime import processes
from ltrobust.training import devices, steps
from ltrobust.training.phases import Phase
from ltrobust.training.state import Selection, TrainState, Weights, create_selection, create_state

# Most bytes of images in one chunk of steps on a device, where data are divided. As many again are read ahead.
CHUNK_BYTES = 128 << 20


def make_inputs(
    phase: Phase,
    run_data: RunData,
    mesh: Mesh,
    teachers: Mapping[str, Teacher] = MappingProxyType({}),
    capacity: int = 1,
) -> steps.Inputs:
    """The phase's inputs on the devices. Divided data are zeros, for the examples of `capacity` steps.

    `teachers` are frozen networks by the names that the method asks for.
    """
    if phase.settings.host_fed:
        shapes = devices.shapes(_data_shapes(phase, run_data, capacity), mesh, devices.divided())
        inputs = devices.replicate(_inputs(phase, None, teachers), mesh)
        return dataclasses.replace(inputs, data=devices.zeros(shapes))  # pyright: ignore[reportArgumentType]
    # All images stay on the devices as uint8 for the whole phase. The host sends row numbers only; augmentation and the
    # division by 255 happen on the device.
    data = batches.OnDevice.of(run_data.training.images, phase.labels.astype(np.int32))
    return devices.replicate(_inputs(phase, data, teachers), mesh)


def _inputs(phase: Phase, data: Any, teachers: Mapping[str, Teacher]) -> steps.Inputs:
    """The data with the phase's class counts, teachers and key, as they are given."""
    counts = jnp.asarray(phase.class_counts, jnp.float32)
    return steps.Inputs(data, counts, dict(teachers), phase.step_key)


def _data_shapes(phase: Phase, run_data: RunData, capacity: int) -> batches.OnDevice:
    """The phase's data as shapes: the whole training part, or where they are divided the examples of so many steps."""
    divided, shape = phase.settings.host_fed, run_data.image_shape
    examples = capacity * phase.schedule.batch_size if divided else len(run_data.training)
    pixels = jax.ShapeDtypeStruct((examples, math.prod(shape)), jnp.uint8)
    return batches.OnDevice(pixels, jax.ShapeDtypeStruct((examples,), jnp.int32), shape)


def most_steps(phase: Phase, run_data: RunData, mesh: Mesh, capacity: int) -> int:
    """Most steps in one chunk: `capacity`, or as many as `CHUNK_BYTES` hold the images of where data are divided."""
    if not phase.settings.host_fed:
        return capacity
    share = phase.schedule.batch_size // mesh.size * math.prod(run_data.image_shape)
    # No chunk crosses the end of an epoch.
    an_epoch = -(-phase.schedule.examples // phase.schedule.batch_size)
    return max(1, min(capacity, CHUNK_BYTES // share, an_epoch))


def weight_shapes(phase: Phase, run_data: RunData) -> Weights:
    """The phase's weights as shapes (`jax.ShapeDtypeStruct`)."""
    drawn = jax.eval_shape(lambda key: initialise(phase.settings.module, key, run_data.image_shape), phase.init_key)
    return Weights(*drawn)


def trace(phase: Phase, run_data: RunData, mesh: Mesh, teachers: Mapping[str, Teacher]) -> tuple[str, ...]:
    """Names of the metrics that the phase's loss returns. Attack and loss are traced for that; nothing is trained.

    Args:
      teachers: as for `make_inputs`; shapes (`jax.ShapeDtypeStruct`) in place of their weights suffice.

    Raises:
      ValueError: the method's attack or loss returns something that it must not.
    """
    weights = _zeros(phase, run_data)
    inputs = _inputs(phase, _data_shapes(phase, run_data, 1), teachers)
    return _metrics(phase, weights, _method_state(phase, weights), inputs, mesh)


def _zeros(phase: Phase, run_data: RunData) -> Weights:
    """Zeros in place of the phase's weights."""
    # A method may compute with numbers when it makes its state, so shapes alone are not enough.
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), weight_shapes(phase, run_data))


def _method_state(phase: Phase, initial: Weights) -> Any:
    """The method's first state."""
    return phase.settings.method.initial_state(initial.params, jnp.asarray(phase.class_counts, jnp.float32))


def _metrics(phase: Phase, weights: Weights, method_state: Any, inputs: steps.Inputs, mesh: Mesh) -> tuple[str, ...]:
    """As `trace`, for weights and a method's state that are there already."""
    batch_size = phase.schedule.batch_size
    return steps.metric_names(weights, method_state, inputs, settings=phase.settings, mesh=mesh, batch_size=batch_size)


def first_state(
    phase: Phase, inputs: steps.Inputs, mesh: Mesh, initial: Weights | None = None
) -> tuple[TrainState, Selection]:
    """State and selection before the first step, on every device. `initial` are first weights; None draws them.

    Raises:
      ValueError: the method's attack or loss returns something that it must not.
    """
    if initial is None:
        initial = Weights(*initialise(phase.settings.module, phase.init_key, inputs.data.image_shape))
    state = _state(phase, inputs, mesh, initial)
    # Separate copies: the training step takes over the buffers of the state (`donate`), and the selection must survive.
    return devices.replicate(state, mesh), devices.replicate(create_selection(initial), mesh)


def _state(phase: Phase, inputs: steps.Inputs, mesh: Mesh, initial: Weights) -> TrainState:
    """The state before the first step, not yet on the devices."""
    settings, method_state = phase.settings, _method_state(phase, initial)
    return create_state(
        initial.params,
        initial.batch_stats,
        optimizer=settings.optimizer,
        method_state=method_state,
        metrics=_metrics(phase, initial, method_state, inputs, mesh) if phase.metrics is None else phase.metrics,
        averaging=settings.ema_decay > 0 or settings.method.averaging is not None,
    )


def argument_shapes(
    phase: Phase, run_data: RunData, mesh: Mesh, teachers: Mapping[str, Teacher], capacity: int
) -> tuple[TrainState, steps.Inputs, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Arguments of the phase's `steps.compile_chunk` as shapes with their places on the mesh; nothing is computed.

    Args:
      teachers: as for `make_inputs`; shapes in place of their weights suffice.
      capacity: most steps in one chunk, see `most_steps`: rows of the order array.

    Raises:
      ValueError: the method's attack or loss returns something that it must not.
    """
    capacity = most_steps(phase, run_data, mesh, capacity)
    inputs = _inputs(phase, _data_shapes(phase, run_data, capacity), teachers)
    state = _state(phase, inputs, mesh, _zeros(phase, run_data))
    order = jax.ShapeDtypeStruct((capacity, phase.schedule.batch_size), jnp.int32)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    (placed,) = devices.shapes((inputs,), mesh)
    spec: Any = steps.input_specs(phase.settings).data
    data = devices.shapes(inputs.data, mesh, spec)
    return (
        *devices.shapes((state,), mesh),
        dataclasses.replace(placed, data=data),
        *devices.shapes((order,), mesh, devices.divided(1)),
        *devices.shapes((number, number), mesh),
    )


def make_order(phase: Phase, first: int, count: int, mesh: Mesh, capacity: int) -> jax.Array:
    """Rows of the training part for `count` steps from step `first`, int32 [capacity, B] divided over the devices.

    Rows from `count` on are padding: programs are compiled for one length, `capacity`, and take `count` beside it.
    """
    rows = batches.order(phase.schedule, phase.order_key, first, count, phase.examples_of)
    padded = np.concatenate([rows, np.zeros((capacity - count, rows.shape[1]), rows.dtype)])
    return processes.put(padded, devices.sharding(mesh, devices.divided(1)))
