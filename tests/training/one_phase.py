"""One phase with drawn teachers, and its first steps: what tests of the training step begin with."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import planned
from jax.sharding import Mesh

from ltrobust.data.run_data import RunData
from ltrobust.methods import Method, Teacher
from ltrobust.models import initialise
from ltrobust.models.layers import Layers
from ltrobust.models.resnet import ResNet
from ltrobust.training import devices, placement, steps
from ltrobust.training.phases import Phase
from ltrobust.training.state import TrainState, Weights

# Stem, batch norm and linear layer: every kind of state that a network has, and soon compiled.
NETWORK = ResNet(10, widths=(4,), strides=(1,), blocks=0, layers=Layers(jnp.float32))
# Rows of the order array: the most steps of one chunk.
CAPACITY = 8


class Prepared(NamedTuple):
    """A phase before its first step, everything on the devices of `mesh`."""

    phase: Phase
    run_data: RunData
    mesh: Mesh
    state: TrainState
    inputs: steps.Inputs

    def order(self, first: int, count: int) -> jax.Array:
        """Rows of `count` steps from step `first`."""
        return placement.make_order(self.phase, first, count, self.mesh, CAPACITY)

    def compile(self) -> Any:
        """The phase's program of several steps."""
        return steps.compile_chunk(self.phase.settings, self.mesh)

    def run(self, count: int) -> TrainState:
        """The state after the first `count` steps. Takes the buffers of `state`."""
        return self.compile()(self.state, self.inputs, self.order(0, count), jnp.int32(count), jnp.int32(1))


def mesh_of(count: int) -> Mesh:
    """The first `count` devices."""
    return devices.make_mesh(jax.devices()[:count])


def prepared(config: Any, name: str, mesh: Mesh, method: Method | None = None, *, stages: int = 1) -> Prepared:
    """The phase `name` of a configuration, with two drawn teachers of its make. `method` replaces its own.

    Its network has the first stages of the configured one, which are compiled in a fraction of the time.
    """
    run_data = planned.load_run_data(config)
    phase = planned.make_phase(config, name, run_data, mesh)
    method = method or phase.settings.method
    module = phase.settings.module
    assert isinstance(module, ResNet)
    module = module.clone(widths=module.widths[:stages], strides=module.strides[:stages])
    phase = phase_with(phase, method=method, module=module)
    first = Weights(*initialise(module, phase.init_key, run_data.image_shape))
    teacher = module.clone(layers=dataclasses.replace(module.layers, sync_axis=None))
    others = initialise(teacher, jax.random.key(3), run_data.image_shape)
    teachers = {
        "teacher": Teacher(teacher, first.params, first.batch_stats),
        "clean_teacher": Teacher(teacher, *others),
    }
    inputs = placement.make_inputs(phase, run_data, mesh, teachers)
    state, _ = placement.first_state(phase, inputs, mesh, first)
    return Prepared(phase, run_data, mesh, state, inputs)


def phase_with(phase: Phase, **settings: Any) -> Phase:
    """The phase with other settings of its steps, such as its method or module."""
    return dataclasses.replace(phase, settings=dataclasses.replace(phase.settings, **settings))


def assert_close(first: Any, second: Any, tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance), first, second)
