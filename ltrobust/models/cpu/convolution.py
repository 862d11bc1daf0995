"""A convolution that is fast on the CPU, also inside loops, with gradients to match.

XLA's CPU compiler brings convolutions into the layout of its fast kernels only in the outermost computation, not in the
bodies of loops. There, the gradients that JAX derives, which swap the roles of batch and channel, fall back to naive
code, several times slower for the input gradient and far more for the kernel gradient. Attacks and chunks of
training steps are loops. So on the CPU both gradients are written here as ordinary NHWC x HWIO convolutions between
explicit transpositions: the same sums, the same speed in a loop as outside. A convolution whose output is smaller than
its kernel falls back to naive code everywhere: there, patches are laid side by side and one matrix product is made of
it. A convolution with few outputs leaves most of a vector unit idle: there, two neighbouring columns are computed as
outputs of one wider kernel. A 3x3 convolution with many channels has a form with fewer products: `winograd.py`.

`jax.custom_vjp` would take these gradients, but it rules out forward-mode differentiation. A primitive takes them as
the transposes of a function that is linear in images and in kernel, and JAX derives the rest.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from ltrobust.models.cpu import winograd

PRIMITIVE = core.Primitive("cpu_convolution")
# Channels last, in which XLA's fast kernels work.
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_Padding = tuple[tuple[int, int], tuple[int, int]]
_Strides = tuple[int, int]
_FEW_OUTPUTS = 16  # up to here, a third more products is less than what the idle lanes cost


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """Two-dimensional convolution [B,H,W,c] * [k,l,c,o] -> [B,H',W',o]; takes the place of `conv_general_dilated`.

    Grouped and dilated ones are JAX's own. For programs that are compiled for the CPU.
    """
    if feature_group_count == 1 and tuple(lhs_dilation) == tuple(rhs_dilation) == (1, 1):
        strides, pads = tuple(window_strides), tuple((int(low), int(high)) for low, high in padding)
        sides = _output_sides(images, kernel, strides, pads)
        # XLA's fast kernels do not take these. The last stage of a small network on 8x8 images is 2x2, and its
        # convolutions were most of a run.
        if any(side < k for side, k in zip(sides, kernel.shape[:2], strict=True)):
            return _multiply_patches(images, kernel, strides, pads)
        return _convolve(images, kernel, strides, pads)  # pyright: ignore[reportArgumentType]
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        feature_group_count=feature_group_count,
        **options,
    )


def _output_sides(
    images: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> list[int]:
    """Height and width of the convolution's output."""
    axes = zip(images.shape[1:3], kernel.shape[:2], strides, padding, strict=True)
    return [(n + low + high - k) // s + 1 for n, k, s, (low, high) in axes]


def _multiply_patches(
    images: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    """The convolution as patches [B H' W', k l c] times the kernel [k l c, o]."""
    (rows, columns), (down, right) = _output_sides(images, kernel, strides, padding), strides
    high, wide, _, outputs = kernel.shape
    padded = jnp.pad(images, ((0, 0), *padding, (0, 0)))
    taps = [
        padded[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
        for i in range(high)
        for j in range(wide)
    ]
    patches = jnp.concatenate(taps, axis=-1).reshape(-1, kernel.size // outputs)
    return (patches @ kernel.reshape(-1, outputs)).reshape(-1, rows, columns, outputs)


def _convolve(images: jax.Array, kernel: jax.Array, strides: _Strides, padding: _Padding) -> jax.Array:
    """Binds the primitive."""
    # Traced here, because settings such as the matmul precision count where a function is called. The lowering comes
    # later, and does not see them.
    form = jax.jit(_direct, static_argnums=(2, 3)).trace(images, kernel, strides, padding).jaxpr
    return PRIMITIVE.bind(images, kernel, strides=strides, padding=padding, form=form)


def _direct(images: jax.Array, kernel: jax.Array, strides: _Strides, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """The convolution; of few outputs two columns at once, by a kernel that holds the kernel twice, shifted by one."""
    _, wide, _, outputs = kernel.shape
    sides = _output_sides(images, kernel, strides, padding)
    if winograd.pays(images, kernel, strides, sides):
        return winograd.convolve(images, kernel, tuple(padding))
    columns = sides[1]
    if outputs > _FEW_OUTPUTS or wide < 3 or strides[1] > 1 or columns % 2:
        return lax.conv_general_dilated(images, kernel, strides, padding, dimension_numbers=_LAYOUT)
    zero = np.zeros((), kernel.dtype)
    both = [lax.pad(kernel, zero, ((0, 0, 0), (i, 1 - i, 0), (0, 0, 0), (0, 0, 0))) for i in (0, 1)]
    kernel = lax.concatenate(both, dimension=3)
    result = lax.conv_general_dilated(images, kernel, (strides[0], 2), padding, dimension_numbers=_LAYOUT)
    return result.reshape(*result.shape[:2], columns, outputs)


def _image_rule(cotangent: jax.Array, images: Any, kernel: jax.Array, **options: Any) -> jax.Array:
    """The transpose with respect to the images."""
    axes = _axes(images.aval.shape, kernel.shape, cotangent.shape, options)
    return _image_gradient(axes, kernel, cotangent)


def _kernel_rule(cotangent: jax.Array, images: jax.Array, kernel: Any, **options: Any) -> jax.Array:
    """The transpose with respect to the kernel."""
    shape, strides, padding = kernel.aval, options["strides"], options["padding"]
    if winograd.gradient_pays(images, shape, strides, cotangent.shape[1:3]):
        return winograd.kernel_gradient(images, cotangent, padding)
    axes = _axes(images.shape, shape.shape, cotangent.shape, options)
    # Images and channels change places: the sum over images becomes the sum over channels of a plain convolution.
    kernel_gradient = lax.conv_general_dilated(
        images.transpose(3, 1, 2, 0),
        cotangent.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, k + (o - 1) * s - n - low) for n, k, o, s, (low, _) in axes],
        rhs_dilation=strides,
        dimension_numbers=_LAYOUT,
    )
    return kernel_gradient.transpose(1, 2, 0, 3)


def _axes(images: Sequence[int], kernel: Sequence[int], outputs: Sequence[int], options: Any) -> list[tuple[Any, ...]]:
    """Of height and width: n inputs, k kernel taps, o outputs, stride s and padding.

    The dilated cotangent is (o - 1) s + 1 long.
    """
    return list(zip(images[1:3], kernel[:2], outputs[1:3], options["strides"], options["padding"], strict=True))


def _image_gradient(axes: list[tuple[Any, ...]], kernel: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The cotangent convolved with the mirrored kernel, at the images' resolution.

    Where the strides divide the kernel, each of the s x s residues of a pixel's position sees its own taps only: one
    convolution at the cotangent's resolution gives all residues as channels, without the zeros of a dilated cotangent.
    Otherwise the padding that this would need costs more than it saves.
    """
    strides = tuple(s for *_, s, _ in axes)
    if max(strides) > 1 and all(k % s == 0 for _, k, _, s, _ in axes):
        return _residues(axes, kernel, cotangent, strides)
    pads = [(k - 1 - low, n + low - (o - 1) * s - 1) for n, k, o, s, (low, _) in axes]
    if winograd.pays(cotangent, kernel, strides, [n for n, *_ in axes]):
        return winograd.convolve(cotangent, kernel, tuple(pads), mirrored=True)
    mirrored = lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)
    if max(strides) == 1:
        return _direct(cotangent, mirrored, strides, pads)
    return lax.conv_general_dilated(cotangent, mirrored, (1, 1), pads, lhs_dilation=strides, dimension_numbers=_LAYOUT)


def _residues(
    axes: list[tuple[Any, ...]], kernel: jax.Array, cotangent: jax.Array, strides: tuple[int, ...]
) -> jax.Array:
    """`_image_gradient` where the strides divide the kernel.

    With padding `low` and h + low = s q + a, pixel h of residue a is the sum over m of taps[s m + a] cotangent[q - m].
    """
    (rows, high, _, s, (top, _)), (columns, wide, _, t, (left, _)) = axes
    channels, outputs = kernel.shape[2:]
    taps = kernel.reshape(high // s, s, wide // t, t, channels, outputs).transpose(0, 2, 5, 1, 3, 4)
    taps = lax.rev(taps, (0, 1)).reshape(high // s, wide // t, outputs, s * t * channels)
    lengths = [(n - 1 + low) // stride + 1 for n, _, _, stride, (low, _) in axes]
    pads = [(k // stride - 1, q - o) for (_, k, o, stride, _), q in zip(axes, lengths, strict=True)]
    result = lax.conv_general_dilated(cotangent, taps, (1, 1), pads, dimension_numbers=_LAYOUT)
    result = result.reshape(-1, *lengths, s, t, channels).transpose(0, 1, 3, 2, 4, 5)
    result = result.reshape(-1, lengths[0] * s, lengths[1] * t, channels)
    return result[:, top : top + rows, left : left + columns]


def _compute(images: jax.Array, kernel: jax.Array, *, form: Any, **_: Any) -> jax.Array:
    """What the primitive computes."""
    (result,) = core.jaxpr_as_fun(form)(images, kernel)
    return result


def _batch(arguments: Sequence[jax.Array], axes: Sequence[int | None], **options: Any) -> tuple[jax.Array, int]:
    """Under `vmap`: more images side by side; different kernels one after another."""
    strides, padding = options["strides"], options["padding"]
    images, kernel = (
        one if axis is None else jnp.moveaxis(one, axis, 0) for one, axis in zip(arguments, axes, strict=True)
    )
    if axes[0] is None:
        return lax.map(lambda one: _convolve(images, one, strides, padding), kernel), 0
    if axes[1] is None:
        result = _convolve(images.reshape(-1, *images.shape[2:]), kernel, strides, padding)
        return result.reshape(*images.shape[:2], *result.shape[1:]), 0
    return lax.map(lambda both: _convolve(both[0], both[1], strides, padding), (images, kernel)), 0


PRIMITIVE.def_impl(jax.jit(_compute, static_argnames=("strides", "padding", "form")))
PRIMITIVE.def_abstract_eval(lambda *_, form, **__: form.out_avals[0])
mlir.register_lowering(PRIMITIVE, mlir.lower_fun(_compute, multiple_results=False))
# The convolution is linear in each argument, so JAX derives forward mode, second derivatives and their mixtures from
# these two transposes. The sanity panel knows the primitive by its name.
ad.defbilinear(PRIMITIVE, _image_rule, _kernel_rule)
batching.primitive_batchers[PRIMITIVE] = _batch
