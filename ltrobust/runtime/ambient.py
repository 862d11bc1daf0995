"""Settings of JAX that results depend on and that no configuration of ours names: pinned by refusing other values.

They come from environment variables (`JAX_ENABLE_X64=1`) or from a program that uses JAX before it calls this one.
"""

from typing import Any

import jax

# Flag -> the value under which a draw depends on its key alone, and numbers have the types that they are written with.
REQUIRED: dict[str, Any] = {
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_enable_x64": False,
}


def check() -> None:
    """Refuses settings under which the same seed gives other results.

    With another generator, or without partitionable draws, draws depend on the batch that they are made in. With 64-bit
    numbers, images and weights would change their types.

    Raises:
      ValueError: names the setting, its value, the one that is needed, and how to set it.
    """
    for flag, needed in REQUIRED.items():
        value = jax.config.values[flag]
        if value != needed:
            raise ValueError(
                f"JAX's setting {flag} is {value!r}; results are only reproducible with {needed!r}. "
                f"Unset the environment variable {flag.upper()}, or call jax.config.update({flag!r}, {needed!r})."
            )


def describe() -> dict[str, Any]:
    """Settings that change the last bits of results, for cards and stores: plain values."""
    names = [*REQUIRED, "jax_default_matmul_precision", "jax_disable_jit", "jax_debug_nans"]
    return {name: jax.config.values[name] for name in names}
