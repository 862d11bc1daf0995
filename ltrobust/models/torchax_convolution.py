"""Two-dimensional convolutions of translated PyTorch modules in the form that is fast on a CPU."""

import importlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ltrobust.models.cpu.convolution import convolve


def replace(torchax: Any, torch: Any) -> None:
    """Lets torchax compute two-dimensional convolutions by `convolution`, others as before.

    torchax's own have channels first, whose gradients XLA's CPU compiler computes by naive code inside of loops, and
    attacks are loops.
    """
    jaten: Any = importlib.import_module("torchax.ops.jaten")
    original, operators = jaten._aten_convolution, torchax.default_env()._ops
    if getattr(original, "__module__", "") == __name__:
        return

    def convolution(
        images: jax.Array,
        kernel: jax.Array,
        bias: jax.Array | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ) -> jax.Array:
        """`aten.convolution`: [B,c,H,W] * [o,c,k,l] -> [B,o,H',W']."""
        plain = kernel.ndim == images.ndim == 4 and not transposed and groups == 1 and set(dilation) == {1}
        settings = (stride, padding, dilation, transposed, output_padding, groups)
        if not plain:
            return original(images, kernel, bias, *settings)

        def fast(images: jax.Array, kernel: jax.Array) -> jax.Array:
            # One number may stand for both directions.
            strides, pads = ([*values] * (2 // len(values)) for values in (stride, padding))
            channels_last, kernel = jnp.transpose(images, (0, 2, 3, 1)), jnp.transpose(kernel, (2, 3, 1, 0))
            return jnp.transpose(convolve(channels_last, kernel, strides, [(p, p) for p in pads]), (0, 3, 1, 2))

        result = jax.lax.platform_dependent(
            images, kernel, cpu=fast, default=lambda images, kernel: original(images, kernel, None, *settings)
        )
        return result if bias is None else result + bias[:, None, None]

    jaten._aten_convolution = convolution  # called by other operations, such as conv2d
    operator = torch.ops.aten.convolution
    operators[operator] = type(operators[operator])(operator, convolution, True, False, False, False)
