"""Devices of accelerators that are not present: for these, the accelerator's own compiler compiles on any machine.

TPU programs need `libtpu`, CUDA programs JAX's CUDA plugin, each of JAX's version; no driver and no CUDA library.
"""

import importlib.metadata
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from ltrobust.compilation.chips import Chip, Topology

# Without these libtpu asks Google's metadata server for a host name, and two processes at once end on a lock file.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
# Packages, and the extra of this package that installs them.
PACKAGES = {"tpu": ("libtpu", "tpu-compile"), "cuda": ("jax-cuda13-plugin", "cuda-compile")}
# What XLA's GPU compiler would ask the device for.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }} registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 12 }} device_description_str: "{name}"
"""
_GPUS = {"h100": ("NVIDIA H100 80GB HBM3", 3_352_320_000_000), "h200": ("NVIDIA H200", 4_800_000_000_000)}


def check_compiler(chip: Chip) -> None:
    """Refuses a machine without the chip's compiler, or with one that is not of JAX's version.

    Raises:
      ValueError: names both versions and the command that installs the right one.
    """
    package, extra = PACKAGES[chip.platform]
    needed = needed_version(chip.platform)
    install = f"python -m pip install '{package}=={needed}', or the extra {extra}, installs it."
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"programs for {chip.name} are compiled by {package}, which is not installed; {install}"
        ) from None
    if not _is_version(found, needed):
        raise ValueError(f"{package} is {found}, but jax {jax.__version__} compiles with {package} {needed}; {install}")


def compiler_version(chip: Chip) -> str:
    """Package and version of the chip's compiler, such as `libtpu 0.0.42.1`.

    Raises:
      ValueError: see `check_compiler`.
    """
    check_compiler(chip)
    package, _ = PACKAGES[chip.platform]
    return f"{package} {importlib.metadata.version(package)}"


def needed_version(platform: str) -> str:
    """The version of the platform's compiler that the installed JAX asks for, such as `0.0.42.*`."""
    if platform == "cuda":
        return jax.__version__
    for requirement in importlib.metadata.requires("jax") or ():
        if result := re.match(r"libtpu\s*==\s*([\w.*]+)", requirement):
            return result[1]
    raise ValueError(f"jax {jax.__version__} does not say which libtpu it needs; use a released version of jax.")


def _is_version(found: str, needed: str) -> bool:
    return found.startswith(needed.removesuffix("*")) if needed.endswith("*") else found == needed


def make_devices(topology: Topology) -> list[Any]:
    """Devices for `jax.sharding.Mesh`, to compile for and not to compute with.

    Raises:
      ValueError: see `check_compiler`.
    """
    chip = topology.chip
    check_compiler(chip)
    # The computing that tracing needs is done on the CPU; JAX asks no accelerator whether it is there.
    jax.config.update("jax_platforms", "cpu")
    if chip.platform == "cuda":
        name, bandwidth = _GPUS[chip.name]
        target = _GPU.format(name=name, bandwidth=bandwidth, memory=chip.memory)
        # Nodes x devices of a node x 1.
        settings: dict[str, Any] = {"target_config": target, "topology": f"1x{topology.size}x1"}
        return topologies.get_topology_desc(platform="cuda", topology_name="", **settings).devices
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    settings = {}
    if topology.size == 1:
        settings["chips_per_host_bounds"] = (1, 1, 1)
    if chip.name == "v4":
        settings["chip_config_name"] = "megacore"  # both cores of a chip as one device, as on the machines
    return topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **settings).devices


def compiler_options(chip: Chip) -> dict[str, str]:
    """Options without which a compiler would need the device."""
    # Autotuning times kernels on the GPU.
    return {"xla_gpu_autotune_level": "0"} if chip.platform == "cuda" else {}
