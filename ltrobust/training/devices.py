"""The one place that knows how many devices there are: a one-axis mesh, and steps mapped over it.

A step is written for one device's share of the batch. State is replicated, rows of the batch are divided, and the
named axis `AXIS` carries every sum over devices.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ltrobust.runtime import processes

AXIS = "devices"
# The whole array on every device.
REPLICATED = PartitionSpec()


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with one axis over the given devices, by default all of them, those of other processes included."""
    return Mesh(np.array(jax.devices() if devices is None else devices), (AXIS,))


def platform(mesh: Mesh) -> str:
    """What a program on this mesh is compiled for, such as `cpu`, `gpu` or `tpu`."""
    return mesh.devices.flat[0].platform


def divided(dimension: int = 0) -> PartitionSpec:
    """The specification of an array whose given dimension is divided over the devices."""
    return PartitionSpec(*([None] * dimension), AXIS)


def sharding(mesh: Mesh, spec: PartitionSpec = REPLICATED) -> NamedSharding:
    """Where an array with that specification lives."""
    return NamedSharding(mesh, spec)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """A copy of every array on every device. Always fresh buffers, so that the result may be donated."""
    # `device_put` may return the array that it was given, which must not be donated.
    copies = jax.tree.map(
        lambda leaf: np.array(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf.copy(), tree
    )
    return processes.put(copies, sharding(mesh))


def shapes(tree: Any, mesh: Mesh, spec: PartitionSpec = REPLICATED) -> Any:
    """Shapes (`jax.ShapeDtypeStruct`) with that place on the mesh for every array, to lower programs without any."""
    where = sharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), jax.dtypes.result_type(leaf), sharding=where), tree
    )


def zeros(shapes: Any) -> Any:
    """Arrays of zeros with the given shapes, types and places (`jax.ShapeDtypeStruct`)."""
    places = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return jax.jit(lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes), out_shardings=places)()


def memory(mesh: Mesh) -> int | None:
    """Bytes that JAX may use on each device, the least of all processes'; None where the platform does not say.

    All processes must call it.
    """
    given = [(device.memory_stats() or {}).get("bytes_limit") for device in mesh.local_devices]
    # Processes that decided for themselves could train with different programs.
    least = processes.gather(min((limit for limit in given if limit), default=None))
    return min((limit for limit in least if limit), default=None)


def host() -> Any:
    """The CPU as a device of this process, for small computations that must not wait for an accelerator's queue.

    The default device where JAX is set to use no CPU.
    """
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def map_over_devices(
    function: Callable,
    mesh: Mesh,
    *,
    in_specs: tuple,
    out_specs: Any = REPLICATED,
    donate: tuple[int, ...] = (),
    compiler: Mapping[str, Any] | None = None,
) -> Callable:
    """`jit(shard_map(function))` over the mesh, with the arguments at `donate` given up to the result.

    `compiler` are options of XLA's compiler by name.

    Replication of outputs is not checked by JAX (`check_vma=False`): the steps mix replicated and divided values, and
    the tests compare one device with eight instead.
    """
    mapped = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate, compiler_options=dict(compiler) if compiler else None)


def check_compiler(options: Mapping[str, Any]) -> None:
    """Refuses options that the compiler of the default device does not know.

    Raises:
      ValueError: names them and the compiler's reason.
    """
    if not options:
        return
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError, TypeError) as error:
        platform = jax.default_backend()
        raise ValueError(
            f"compiler is {dict(options)}, which the compiler for {platform} refuses: {str(error).splitlines()[0]}. "
            "Leave the option out, or give one of that platform."
        ) from error


def check_batch_size(batch_size: int, mesh: Mesh, key: str) -> None:
    """Refuses a batch that does not divide evenly over the devices.

    Raises:
      ValueError: names the config key, the size and the number of devices.
    """
    # Unequal shares would weigh examples differently in the mean over devices.
    if batch_size % mesh.size:
        raise ValueError(
            f"{key} is {batch_size}, which does not divide over {mesh.size} devices; use a multiple of {mesh.size}."
        )
