"""CPU cores and the devices that JAX makes of them.

XLA's CPU backend runs one device's large operations on all cores, but not the many small ones between them. Several
devices, each with its share of the batch, keep the cores busy. Sums over several devices have other last bits.
"""

import math
import os
from collections.abc import Sequence

# Fewer images a device are not worth the messages between devices.
_SHARE = 32


def usable() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_devices(given: str, batch_sizes: Sequence[int], cores: int) -> int:
    """How many CPU devices `--cpu_devices` asks for.

    `auto` is the most, up to one a core, that every batch divides over with at least 32 images each.

    Args:
      given: `auto` or a number.
      batch_sizes: images in a step of each phase, over all devices.
      cores: see `usable`.

    Raises:
      ValueError: neither a number of at least 1 nor `auto`.
    """
    if given == "auto":
        shared = math.gcd(*batch_sizes)
        fitting = [count for count in range(1, cores + 1) if shared % count == 0 and shared // count >= _SHARE]
        return max(fitting, default=1)
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"--cpu_devices is {given!r}; give a number of at least 1, or auto for the available cores.")
    return int(given)


def advice(batch_sizes: Sequence[int], cores: int) -> str:
    """Advice on how to use the cores that one device leaves idle; empty if there are none."""
    more = count_devices("auto", batch_sizes, cores)
    if more == 1:
        return ""
    return (
        f"CPU: one device on {cores} cores, which are often idle. --cpu_devices={more} divides batches over {more} "
        "devices; training then has other last bits, so start it in a new workdir."
    )
