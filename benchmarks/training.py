"""A training step as the program runs it, on drawn images: what the benchmarks of training time and look into."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from configs import default
from ltrobust import models
from ltrobust.data import batches, longtail
from ltrobust.data.run_data import Examples, RunData
from ltrobust.methods import CLEAN_TEACHER, TEACHER, Teacher
from ltrobust.models.model_plan import make_model_plan
from ltrobust.plan import make_phase_plan
from ltrobust.training import devices, phases, placement, steps
from ltrobust.training.state import TrainState

CLASSES = 10


def configuration(network: str, method: str, batch: int, **settings: Any) -> Any:
    """The default recipe with that network, method and batch; `settings` are keys of the configuration, dots as `__`.

    `network` is a name of `models.create`; `small_resnet` has 16 channels, on 8x8 images of one channel.
    """
    config = default.get_config()
    config.model.name = network
    config.student.method = method
    config.student.batch_size = batch
    config.data.imbalance_ratio = 10.0
    if network == "small_resnet":
        config.student.augmentation.crop_padding = 1
        config.student.augmentation.flip = False
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in settings.items()})
    return config


def image_shape(network: str) -> tuple[int, int, int]:
    """Of CIFAR for the large networks, of the digits for the small one."""
    return (8, 8, 1) if network == "small_resnet" else (32, 32, 3)


def drawn_run_data(config: Any, number: int) -> RunData:
    """At least so many images of drawn pixels, with long-tailed labels of ten classes, and no validation part."""
    generator = np.random.RandomState(0)
    shape = image_shape(config.model.name)
    available, ratio = np.full(CLASSES, number), config.data.imbalance_ratio
    counts = longtail.class_counts(available, imbalance_ratio=ratio, profile=config.data.profile)
    labels = np.repeat(np.arange(CLASSES), counts)
    images = generator.randint(0, 256, (len(labels), *shape)).astype(np.uint8)
    names = tuple(str(name) for name in range(CLASSES))
    return RunData(Examples(images, labels), Examples(images[:0], labels[:0]), names)


@dataclasses.dataclass
class Training:
    """One phase at its first step. `run` continues from where it stands, because a chunk takes its state's buffers."""

    phase: phases.Phase
    mesh: Mesh
    inputs: steps.Inputs
    state: TrainState
    order: jax.Array

    @property
    def batch(self) -> int:
        """Images in a step, over all devices."""
        return self.phase.schedule.batch_size

    def first_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Images of the first step before augmentation, float32 [B,H,W,C] in [0,1], and their labels."""
        rows, data = np.asarray(self.order)[0], jax.device_get(self.inputs.data)
        return batches.to_unit(data.images(rows)), np.asarray(data.labels)[rows]

    def lower(self) -> Any:
        """The chunk, traced and lowered."""
        chunk = steps.compile_chunk(self.phase.settings, self.mesh)
        return chunk.lower(self.state, self.inputs, self.order, jnp.int32(1), jnp.int32(1))

    def run(self, program: Any, count: int = 1) -> jax.Array:
        """So many steps in one dispatch of the compiled chunk."""
        self.state = program(self.state, self.inputs, self.order, jnp.int32(count), jnp.int32(1))
        return self.state.step


def prepare(config: Any, mesh: Mesh | None = None, *, steps_at_once: int = 1) -> Training:
    """A student's phase on drawn images, everything on the devices. Teachers have drawn weights.

    `steps_at_once` is the length of the order array: the most steps of one dispatch.
    """
    mesh = devices.make_mesh(jax.devices()[:1]) if mesh is None else mesh
    run_data = drawn_run_data(config, max(512, steps_at_once * config.student.batch_size))
    settings = config.to_dict()
    phase = phases.make_phase(make_phase_plan(settings, "student"), make_model_plan(settings["model"]), run_data, mesh)
    inputs = placement.make_inputs(phase, run_data, mesh, _teachers(config, phase))
    state, _ = placement.first_state(phase, inputs, mesh)
    order = placement.make_order(phase, 0, steps_at_once, mesh, capacity=steps_at_once)
    return Training(phase, mesh, inputs, state, order)


def _teachers(config: Any, phase: phases.Phase) -> Mapping[str, Teacher]:
    """The teachers that the method asks for, of the student's make."""
    module = make_model_plan(config.model.to_dict()).create(CLASSES, head=models.Head())
    keys = {TEACHER: 1, CLEAN_TEACHER: 2}
    shape = image_shape(config.model.name)
    return {
        name: Teacher(module, *models.initialise(module, jax.random.key(keys[name]), shape))
        for name in phase.settings.method.teachers
    }
