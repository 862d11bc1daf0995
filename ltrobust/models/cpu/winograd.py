"""The 3x3 convolution with 16 products for four outputs instead of 36, for the CPU (Winograd's F(2x2, 3x3)).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016), section 4.1. A tile of 4x4 pixels d and
the kernel g give 2x2 outputs

    y = O [(K g K') * (D d D')] O'

where * multiplies numbers of the same place and sums over channels: 16 matrix products of [tiles, c] and [c, o]. Its
derivative by the kernel, for a cotangent e of the 2x2 outputs,

    K' [(D d D') * (O' e O)] K

sums over tiles: 16 products of [c, tiles] and [tiles, o]. What the transformations read and write is 16 / 4 of the
images and of the outputs; it pays while it stays in the processor's cache, so images are taken a few at a time.

It is the same function in other roundings: in float32, of normal images and kernels, less than twice the error of the
direct sum against float64 (`tests/models/test_winograd.py`).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# F(2x2, 3x3) and not F(4x4, 3x3): the larger form saves more products and loses digits, and verdicts near a boundary
# depend on them.
_TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # D
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # K
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))  # O
_MIRRORED = (3, 1, 2, 0)  # the rows of K for a kernel in reverse order
CACHE = 8_400_000  # bytes that transformed tiles and products together may take
_CHANNELS, _TILES = 32, 64  # fewer than these, the transformations cost more than the products that they save
_GRADIENT_CHANNELS = 64  # the same for the kernel gradient
# Half precision has too few digits for the transformations.
_DTYPES = (jnp.float32, jnp.float64)

_Grid = Sequence[Sequence[Any]]


def pays(images: Any, kernel: Any, strides: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether a convolution of [B,H,W,c] * [k,l,c,o] with outputs of those sides has this form, and is faster in it."""
    tiles = len(images) * sides[0] * sides[1] // 4
    fits = kernel.shape[:2] == (3, 3) and tuple(strides) == (1, 1) and not any(side % 2 for side in sides)
    return fits and images.dtype in _DTYPES and min(kernel.shape[2:]) >= _CHANNELS and tiles >= _TILES


def gradient_pays(images: Any, kernel: Any, strides: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether the kernel gradient of that convolution has this form, and is faster in it."""
    return pays(images, kernel, strides, sides) and min(kernel.shape[2:]) >= _GRADIENT_CHANNELS


@functools.partial(jax.jit, static_argnames=("padding", "mirrored"))
def convolve(
    images: jax.Array, kernel: jax.Array, padding: Sequence[tuple[int, int]], *, mirrored: bool = False
) -> jax.Array:
    """The convolution [B,H,W,c] * [3,3,c,o] -> [B,H',W',o] of stride 1, H' and W' even.

    With `mirrored` the kernel, [3,3,o,c], is turned by 180 degrees and its channels are swapped: the image gradient of
    the convolution with it. Its transformation is the other's in another order, and a program does it once for both.
    """
    outputs, last = (kernel.shape[2], 1) if mirrored else (kernel.shape[3], 0)
    height, width = (side + low + high - 2 for side, (low, high) in zip(images.shape[1:3], padding, strict=True))
    taps = _transform(_KERNEL, [[kernel[i, j] for j in range(3)] for i in range(3)])
    if mirrored:
        taps = [[taps[i][j] for j in _MIRRORED] for i in _MIRRORED]

    def some(images: jax.Array) -> jax.Array:
        products = _products(_tiles(images, padding), taps, (1, last))
        parts = jnp.stack([jnp.stack(line, axis=1) for line in _transform(_OUTPUT, products)], axis=1)
        parts = parts.reshape(-1, height // 2, width // 2, 2, 2, outputs).transpose(0, 1, 3, 2, 4, 5)
        return parts.reshape(-1, height, width, outputs)

    held = 4 * height * width * sum(kernel.shape[2:]) * images.dtype.itemsize
    together = _together(len(images), held, CACHE)
    if together == len(images):
        return some(images)
    return jnp.moveaxis(lax.map(some, _groups(images, together)), 0, 1).reshape(-1, height, width, outputs)


@functools.partial(jax.jit, static_argnames="padding")
def kernel_gradient(images: jax.Array, cotangent: jax.Array, padding: Sequence[tuple[int, int]]) -> jax.Array:
    """The gradient [3,3,c,o] of `convolve` of images [B,H,W,c], for a cotangent [B,H',W',o] of its outputs."""

    def some(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        images, cotangent = pair
        parts = [[cotangent[:, i::2, j::2] for j in range(2)] for i in range(2)]
        products = _products(_tiles(images, padding), _transform(_transposed(_OUTPUT), parts), (0, 0))
        return jnp.stack([jnp.stack(line) for line in _transform(_transposed(_KERNEL), products)])

    channels, (_, height, width, outputs) = images.shape[-1], cotangent.shape
    held = 4 * height * width * (channels + outputs) * images.dtype.itemsize
    # Each group puts out 16 products: a group of images that hold less than those would spend its time on them.
    together = _together(len(images), held, max(CACHE, 16 * channels * outputs * images.dtype.itemsize))
    if together == len(images):
        return some((images, cotangent))
    return jnp.sum(lax.map(some, (_groups(images, together), _groups(cotangent, together))), axis=0)


def _tiles(images: jax.Array, padding: Sequence[tuple[int, int]]) -> _Grid:
    """The 4x4 numbers D d D' of every tile, each an array [B, rows, columns, c]."""
    padded = lax.pad(
        images, np.zeros((), images.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
    )
    rows, columns = (side - 3 for side in padded.shape[1:3])
    return _transform(_TILE, [[padded[:, i : i + rows : 2, j : j + columns : 2] for j in range(4)] for i in range(4)])


def _products(first: _Grid, second: _Grid, summed: tuple[int, int]) -> list[list[jax.Array]]:
    """The 16 products of the arrays of two grids, each as a matrix of its last axis, summed over those axes."""
    axes = ((summed[:1], summed[1:]), ((), ()))
    return [
        [
            lax.dot_general(left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1]), axes)
            for left, right in line
        ]
        for line in map(zip, first, second)
    ]


def _groups(images: jax.Array, together: int) -> jax.Array:
    """So many images in each group, every so many-th: where a batch is divided over devices, each group is too."""
    return jnp.moveaxis(images.reshape(together, -1, *images.shape[1:]), 1, 0)


def _together(number: int, held: int, most: int) -> int:
    """How many images that hold so many bytes each make a group: a divisor of their number, `most` bytes or less.

    A multiple of the devices where it can be, for a batch that is divided over them without their knowing.
    """
    least = jax.local_device_count() if number % jax.local_device_count() == 0 else 1
    largest = max(most // held, least) // least
    return least * max(divisor for divisor in range(1, largest + 1) if number // least % divisor == 0)


def _transform(matrix: _Grid, grid: _Grid) -> list[list[Any]]:
    """M G M' for a grid of arrays: each result is a signed sum of arrays."""
    half = [[_sum(row, [line[column] for line in grid]) for column in range(len(grid))] for row in matrix]
    return [[_sum(row, line) for row in matrix] for line in half]


def _transposed(matrix: _Grid) -> _Grid:
    return tuple(zip(*matrix, strict=True))


def _sum(factors: Sequence[float], terms: Sequence[Any]) -> Any:
    """The sum of factor times term, of those that are not zero."""
    first, *rest = [
        term if factor == 1 else factor * term for factor, term in zip(factors, terms, strict=True) if factor
    ]
    for term in rest:
        first = first + term
    return first
