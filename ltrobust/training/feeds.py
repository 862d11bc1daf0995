"""Examples of the steps of a phase: kept on the devices, or read on the host and sent there ahead of the steps.

Both give the same training, bit for bit (tested on CPUs).
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltrobust.data import batches, loader
from ltrobust.data.images import FileImages
from ltrobust.data.run_data import RunData
from ltrobust.methods import Teacher
from ltrobust.runtime import processes
from ltrobust.training import devices, placement, steps
from ltrobust.training.phases import Phase

# Training images that take more than this share of a device's memory are sent from the host, by default.
_SHARE = 0.5
# Rows of so many images are drawn and given to the workers at once: megabytes, against seconds to start workers again.
_BLOCK = 1 << 21


def host_fed(residence: str, run_data: RunData, memory: int | None) -> bool:
    """Whether the training images are sent from the host for each chunk of steps, rather than kept on the devices.

    Args:
      residence: `device`, `host`, or `auto`: the host where images are in files, or take more than half of `memory`.
      memory: bytes of a device; None where they are not known, as on a CPU.

    Raises:
      ValueError: images in files cannot be kept on the devices.
    """
    images = run_data.training.images
    in_files = isinstance(images, FileImages)
    if in_files and residence == "device":
        raise ValueError(
            "data.residence is 'device', but the images are files that are decoded when they are needed; use 'auto' "
            "or 'host'."
        )
    return (
        in_files
        or residence == "host"
        or (residence == "auto" and memory is not None and math.prod(images.shape) > _SHARE * memory)
    )


class Feed(Protocol):
    """Gives chunks of steps their examples.

    Attributes:
      inputs: of the first chunk; what is the same in all chunks is valid.
      capacity: most steps in one chunk.
    """

    @property
    def inputs(self) -> steps.Inputs: ...

    @property
    def capacity(self) -> int: ...

    def take(self, first: int, count: int) -> tuple[steps.Inputs, jax.Array]:
        """Inputs of `count` steps from step `first` on, and their rows, int32 [capacity, B] divided over the devices.

        Each call begins where the one before ended.

        Raises:
          ValueError: from a feed that reads ahead, if `first` is another step.
        """
        ...


@contextlib.contextmanager
def open_feed(
    phase: Phase,
    run_data: RunData,
    mesh: Mesh,
    teachers: Mapping[str, Teacher] = MappingProxyType({}),
    capacity: int = 1,
    workers: int = 0,
) -> Iterator[Feed]:
    """The feed that the phase's settings ask for; what it has started ends with the body.

    `teachers` are as for `placement.make_inputs`, `capacity` as for `placement.most_steps`, `workers` as for
    `loader.read`.
    """
    capacity = placement.most_steps(phase, run_data, mesh, capacity)
    inputs = placement.make_inputs(phase, run_data, mesh, teachers, capacity)
    if not phase.settings.host_fed:
        yield DeviceFeed(phase, mesh, inputs, capacity)
        return
    feed = HostFeed(phase, run_data, mesh, inputs, capacity, workers)
    try:
        yield feed
    finally:
        feed.close()


@dataclasses.dataclass(frozen=True)
class DeviceFeed:
    """All examples are on every device; a chunk gets rows."""

    phase: Phase
    mesh: Mesh
    inputs: steps.Inputs
    capacity: int

    def take(self, first: int, count: int) -> tuple[steps.Inputs, jax.Array]:
        """See `Feed`."""
        return self.inputs, placement.make_order(self.phase, first, count, self.mesh, self.capacity)


class HostFeed:
    """Examples are read in the order of the steps by a thread, which also sends them to the devices.

    At most `capacity` steps are read ahead, whatever the devices do meanwhile. A chunk's steps are then copied into one
    buffer on the devices, so that chunks of every length are one program and nothing is sent that is not used.
    """

    def __init__(self, phase: Phase, run_data: RunData, mesh: Mesh, inputs: steps.Inputs, capacity: int, workers: int):
        self.inputs, self.capacity, self._workers = inputs, capacity, workers
        self._phase, self._images = phase, run_data.training.images
        self._place = devices.sharding(mesh, devices.divided())
        size = phase.schedule.batch_size
        # Of the devices of this process only: others' positions are read by their processes.
        parts = self._place.addressable_devices_indices_map((size,)).values()
        self._positions = np.sort(np.concatenate([np.arange(size)[part] for part in parts]))
        share = size // mesh.size
        rows = np.tile(np.arange(capacity * share, dtype=np.int32).reshape(capacity, share), (1, mesh.size))
        self._order = processes.put(rows, devices.sharding(mesh, devices.divided(1)))
        whole, divided = devices.REPLICATED, devices.divided()
        self._copy = devices.map_over_devices(
            _copy, mesh, in_specs=(divided, divided, whole), out_specs=divided, donate=(0,)
        )
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._ahead: collections.deque[Future[batches.OnDevice]] = collections.deque()
        self._steps: Any = None
        self._next = self._asked = 0

    def take(self, first: int, count: int) -> tuple[steps.Inputs, jax.Array]:
        """See `Feed`."""
        if self._steps is None:
            self._steps, self._next, self._asked = self._read(first), first, first
        if first != self._next:
            raise ValueError(f"step {first} is asked for, but the next is step {self._next}; open another feed for it.")
        data, self._next = self.inputs.data, first + count
        for slot in range(count):
            self._ask()
            data = self._copy(data, self._ahead.popleft().result(), jnp.int32(slot))
        # The next chunk is read while the devices work on this one.
        self._ask()
        self.inputs = dataclasses.replace(self.inputs, data=data)
        return self.inputs, self._order

    def close(self) -> None:
        """Ends the reading."""
        self._reader.shutdown(wait=True, cancel_futures=True)
        if self._steps is not None:
            self._steps.close()

    def _ask(self) -> None:
        """Asks the reader for so many steps that `capacity` are there or on their way."""
        while len(self._ahead) < self.capacity and self._asked < self._phase.total_steps:
            self._ahead.append(self._reader.submit(next, self._steps))
            self._asked += 1

    def _read(self, first: int) -> Iterator[batches.OnDevice]:
        """The examples of one step after another, from step `first` on, on the devices."""
        steps_at_once = max(1, _BLOCK // self._phase.schedule.batch_size)
        for start in range(first, self._phase.total_steps, steps_at_once):
            visits = self._visits(start, min(steps_at_once, self._phase.total_steps - start))
            labels = self._phase.labels[visits.rows].astype(np.int32)
            with contextlib.closing(loader.read(self._images, visits, self._workers)) as images:
                for pair in zip(images, labels, strict=True):
                    yield jax.tree.map(self._put, batches.OnDevice.of(*pair))

    def _visits(self, first: int, count: int) -> loader.Visits:
        """What this process reads for `count` steps from step `first` on."""
        phase, host, keys = self._phase, devices.host(), None
        # On the CPU: an accelerator would answer after the steps that it is working on.
        with jax.default_device(host):
            order_key, step_key = jax.device_put((phase.order_key, phase.step_key), host)
            rows = batches.order(phase.schedule, order_key, first, count, phase.examples_of)
            if phase.settings.augmentation == "random_resized_crop":
                keys = _augmentation_keys(step_key, np.arange(first, first + count), self._positions)
        return loader.Visits(rows[:, self._positions], keys)

    def _put(self, share: np.ndarray) -> jax.Array:
        """This process's share of a step, [L, ...], as its part of an array [B, ...] divided over all devices."""
        shape = (self._phase.schedule.batch_size, *share.shape[1:])
        return jax.make_array_from_process_local_data(self._place, share, shape)


def _augmentation_keys(key: jax.Array, steps: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """What the keys that the steps augment their examples with are made of, uint32 [steps, positions, 2]."""
    keys_of = jax.vmap(lambda step: batches.example_keys(key, step, jnp.asarray(positions, jnp.int32))[:, 0])
    return np.asarray(jax.random.key_data(jax.jit(keys_of)(jnp.asarray(steps, jnp.int32))))


def _copy(data: batches.OnDevice, step: batches.OnDevice, slot: jax.Array) -> batches.OnDevice:
    """One device's data with the examples of a step, [B / devices, ...], at the place of the chunk's step `slot`."""
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, slot * part.shape[0], 0), data, step
    )
