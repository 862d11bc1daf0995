"""The pixel operations of RandAugment and AutoAugment on uint8 RGB images, as Pillow computes them.

Every operation is one row of integers, `Operation`, applied by the one function `apply_operation`: a warp, a
blend, a bit mask, a solarisation and a tone curve follow each other, and a row leaves all but one of them
neutral. Under `vmap` a `lax.switch` over fourteen operations would run all fourteen for every image; this
costs one warp, one histogram and one lookup.

All arithmetic on pixels is integer, so the result does not depend on the device or on fused multiply-adds.
Compared with Pillow 13 on x86-64, every operation is pixel-exact but for two roundings in Pillow's floating
point, both one level and both only where the exact result is a whole number:

* enhancement at 130 %: Pillow's float32 lands just below the whole number and truncates for 78 of the 65,536
  pairs of bytes; the other percentages that the policies use agree everywhere. torchvision builds its levels
  in float32, so that its 20, 40, 70 and 130 % are a hair less, and some whole numbers there, at 40 %
  brightness one pixel in five, come out one level darker;
* autocontrast: the same with float64, for 12,094 triples (darkest, brightest, level) out of 2.8 million; the
  brightest level itself becomes 254 instead of 255 for 15 % of the pairs (darkest, brightest).
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

NAMES = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize", "invert",
)  # fmt: skip

ONE = 1 << 16  # 16.16 fixed point, as in Pillow's affine transform
_NO_WARP = (ONE, 0, ONE // 2, 0, ONE, ONE // 2)
_WARPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_BLEND_BASES = ("brightness", "color", "contrast", "sharpness")
_TONE_CURVES = ("keep", "autocontrast", "equalize")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation as int32 numbers (or a table of them, with leading axes).

    matrix: [..., 6] 16.16 fixed point (a, b, c, d, e, f): output pixel (x, y) shows the input pixel
        (floor(a x + b y + c), floor(d x + e y + f)); the half-pixel shift to pixel centres is inside c and f.
    base: what to blend the image with; 0 black, 1 the image in grey, 2 its mean grey, 3 the smoothed image.
    weight: 16.16 fixed-point weight of the image in the blend, the base has the rest; above 1 extrapolates.
    mask: bits of a byte to keep, 255 for all.
    threshold: bytes from here upwards are inverted, 256 for none.
    curve: 0 none, 1 autocontrast, 2 equalize.
    """

    matrix: jax.Array | np.ndarray
    base: jax.Array | np.ndarray
    weight: jax.Array | np.ndarray
    mask: jax.Array | np.ndarray
    threshold: jax.Array | np.ndarray
    curve: jax.Array | np.ndarray


def make_operation(name: str, magnitude: float = 0.0, *, height: int, width: int) -> Operation:
    """The row of `Operation` for one named operation on images of height x width pixels; plain NumPy.

    With m the magnitude, an output pixel (x, y), counted from the top left corner, shows the input at

    * shear_x: (x + m y, y); shear_y: (x, y + m x); both leave the top left *corner* of the image in place
    * translate_x: (x - int(m), y); translate_y: (x, y - int(m)); m in pixels, positive is right or down
    * rotate: m degrees counter-clockwise about the centre (width / 2, height / 2)

    evaluated at the pixel's centre (x + 1/2, y + 1/2) in 16.16 fixed point and floored (nearest neighbour);
    pixels from outside are black. This is `Image.transform(size, AFFINE, ..., NEAREST)` and `Image.rotate`.

    * brightness, color, contrast, sharpness: base + (1 + m) (image - base), floored and clipped to 0..255,
      where base is black, the grey image, its rounded mean, or the image under the 3x3 filter
      (1 1 1, 1 5 1, 1 1 1) / 13. Exact for m a multiple of 1/100.
    * posterize: keeps the m highest bits. solarize: inverts bytes >= m.
    * identity, autocontrast, equalize, invert: m is ignored.

    The operations and their conventions are those of torchvision's RandAugment (Cubuk et al. 2020,
    arXiv:1909.13719) and AutoAugment (Cubuk et al. 2019, arXiv:1805.09501) on Pillow images.

    Raises:
      ValueError: unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown operation {name!r}; known: {', '.join(NAMES)}")
    fields: dict[str, object] = {
        "matrix": _NO_WARP, "base": 0, "weight": ONE, "mask": 255, "threshold": 256, "curve": 0,
    }  # fmt: skip
    if name in _WARPS:
        fields["matrix"] = _fixed_point(_inverse_matrix(name, magnitude, height, width))
    elif name in _BLEND_BASES:
        fields["base"] = _BLEND_BASES.index(name)
        fields["weight"] = round((1 + magnitude) * ONE)
    elif name == "posterize":
        fields["mask"] = 256 - (1 << (8 - int(magnitude)))
    elif name == "solarize":
        fields["threshold"] = math.ceil(magnitude)
    elif name == "invert":
        fields["threshold"] = 0
    elif name in _TONE_CURVES:
        fields["curve"] = _TONE_CURVES.index(name)
    return Operation(**{field: np.asarray(value, np.int32) for field, value in fields.items()})


def crop_and_flip(row: jax.Array, column: jax.Array, flip: jax.Array, *, width: int) -> jax.Array:
    """Warp matrix, int32 [6], of the window starting at (row, column), mirrored left to right if flip is 1.

    row, column: int32 scalars, negative to start in the black padding; flip: int32 scalar, 0 or 1.
    Output (x, y) shows input (column + x, row + y), or (column + width - 1 - x, row + y) when flipped.
    """
    zero, half = jnp.int32(0), jnp.int32(ONE // 2)
    first_column = column + flip * (width - 1)
    return jnp.stack([ONE * (1 - 2 * flip), zero, ONE * first_column + half, zero, zero + ONE, ONE * row + half])


def warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Nearest-neighbour affine warp of one uint8 image [H, W, C] by `Operation.matrix`; black outside."""
    height, width, channels = image.shape
    y, x = jnp.mgrid[:height, :width].astype(jnp.int32)
    # An arithmetic shift floors negative numbers too, so that -1/2 is outside and not in row 0.
    source_x = (matrix[0] * x + matrix[1] * y + matrix[2]) >> 16
    source_y = (matrix[3] * x + matrix[4] * y + matrix[5]) >> 16
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    index = jnp.where(inside, source_y * width + source_x, 0)
    pixels = image.reshape(-1, channels).at[index].get(mode="promise_in_bounds")
    return jnp.where(inside[..., None], pixels, jnp.uint8(0))


def crop_by_shifts(image: jax.Array, row: jax.Array, column: jax.Array, flip: jax.Array, *, padding: int) -> jax.Array:
    """The same as `warp` by `crop_and_flip`, without indexing pixels. row, column: int32 in [-padding, padding]."""
    height, width, _ = image.shape
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    rows = _choose(row + padding, [padded[start : start + height] for start in range(2 * padding + 1)])
    window = _choose(column + padding, [rows[:, start : start + width] for start in range(2 * padding + 1)])
    return _choose(flip, [window, window[:, ::-1]])


def displacements(matrices: np.ndarray, *, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Every (right, down) by which one of the warps, int [..., 6], moves its look at a pixel inside the image."""
    y, x = np.mgrid[:height, :width]
    result = set()
    for a, b, c, d, e, f in np.unique(matrices.reshape(-1, 6), axis=0).astype(int):
        source_x, source_y = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
        inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
        result |= set(zip((source_x - x)[inside].tolist(), (source_y - y)[inside].tolist(), strict=True))
    return tuple(sorted(result))


def warp_by_shifts(image: jax.Array, matrix: jax.Array, shifts: Sequence[tuple[int, int]]) -> jax.Array:
    """The same as `warp`, without indexing pixels: chooses among shifted images. `shifts`: see `displacements`."""
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width].astype(jnp.int32)
    right = ((matrix[0] * x + matrix[1] * y + matrix[2]) >> 16) - x
    down = ((matrix[3] * x + matrix[4] * y + matrix[5]) >> 16) - y
    reach = max((abs(step) for shift in shifts for step in shift), default=0)
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)))
    result = jnp.zeros_like(image)
    for to_right, to_down in shifts:
        shifted = padded[reach + to_down :, reach + to_right :][:height, :width]
        result = jnp.where(((right == to_right) & (down == to_down))[..., None], shifted, result)
    return result


def apply_operation(
    image: jax.Array, operation: Operation, *, gather: bool = True, shifts: Sequence[tuple[int, int]] | None = None
) -> jax.Array:
    """Applies one `Operation` (scalar fields, int32) to one uint8 image [H, W, 3]; same shape and dtype.

    Args:
      gather: whether levels are looked up by index; False computes the same without.
      shifts: `displacements` of all warps that `operation` may have, for `warp_by_shifts`; None: by index.
    """
    matrix = jnp.asarray(operation.matrix)
    pixels = (warp(image, matrix) if shifts is None else warp_by_shifts(image, matrix, shifts)).astype(jnp.int32)
    pixels = blend(_blend_base(pixels, jnp.asarray(operation.base), gather), pixels, operation.weight)
    pixels = pixels & operation.mask
    pixels = jnp.where(pixels < operation.threshold, pixels, 255 - pixels)
    return _apply_curve(pixels, jnp.asarray(operation.curve), gather).astype(jnp.uint8)


def _choose(index: jax.Array, candidates: Sequence[jax.Array]) -> jax.Array:
    """`candidates[index]` for a traced index, by comparing it with every number."""
    chosen = candidates[0]
    for number, candidate in enumerate(candidates[1:], 1):
        chosen = jnp.where(index == number, candidate, chosen)
    return chosen


def _inverse_matrix(name: str, magnitude: float, height: int, width: int) -> tuple[float, ...]:
    """The map (a, b, c, d, e, f) from output to input coordinates, before the shift to pixel centres."""
    if name == "shear_x":
        return (1.0, magnitude, 0.0, 0.0, 1.0, 0.0)
    if name == "shear_y":
        return (1.0, 0.0, 0.0, magnitude, 1.0, 0.0)
    if name == "translate_x":
        return (1.0, 0.0, -int(magnitude), 0.0, 1.0, 0.0)
    if name == "translate_y":
        return (1.0, 0.0, 0.0, 0.0, 1.0, -int(magnitude))
    # Rounded as in Pillow's Image.rotate, which wants exact zeros and ones at right angles.
    cos, sin = (round(function(math.radians(magnitude)), 15) for function in (math.cos, math.sin))
    x, y = width / 2, height / 2
    return (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def _fixed_point(matrix: tuple[float, ...]) -> tuple[int, ...]:
    """Rounds to 16.16 as Pillow does, offsets taken at the centre (1/2, 1/2) of the first pixel."""
    a, b, c, d, e, f = matrix
    at_centre = (a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2)
    return tuple(math.floor(value * ONE + 0.5) for value in at_centre)


def blend(base: jax.Array, pixels: jax.Array, weight: jax.Array | np.ndarray) -> jax.Array:
    """floor(base + weight (pixels - base)) clipped to 0..255; int32."""
    # Rounding the weight to 16 bits costs at most 255 / 2^17 < 0.002 levels, and whole percents stay 0.01
    # clear of the next whole number, so that adding 0.005 levels makes the floor exact.
    margin = round(0.005 * ONE)
    return jnp.clip((base * ONE + weight * (pixels - base) + margin) >> 16, 0, 255)


def _blend_base(pixels: jax.Array, base: jax.Array, gather: bool) -> jax.Array:
    """The image to blend with, int32 [H, W, 3]: black, grey, mean grey or smoothed, chosen by `base`."""
    grey = grey_of(pixels)
    candidates = (jnp.zeros_like(grey), grey, jnp.full_like(grey, mean_of(grey)))
    chosen = jnp.select([base == index for index in range(3)], candidates)
    return jnp.where(base == 3, _smooth(pixels, gather), chosen[..., None])


def grey_of(pixels: jax.Array) -> jax.Array:
    """ITU-R 601 luma in 16.16 fixed point, Pillow's numbers; int32 [H, W]."""
    return (19595 * pixels[..., 0] + 38470 * pixels[..., 1] + 7471 * pixels[..., 2] + ONE // 2) >> 16


def mean_of(grey: jax.Array) -> jax.Array:
    """The rounded mean, int32."""
    return (2 * jnp.sum(grey) + grey.size) // (2 * grey.size)


def _smooth(pixels: jax.Array, gather: bool) -> jax.Array:
    """The filter (1 1 1, 1 5 1, 1 1 1) / 13, rounded; the outermost rows and columns stay as they are."""
    height, width, _ = pixels.shape
    if min(height, width) < 3:
        return pixels
    columns = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = columns[:-2] + columns[1:-1] + columns[2:] + 4 * pixels[1:-1, 1:-1]
    if gather:  # a CPU copies the middle faster than it selects
        return pixels.at[1:-1, 1:-1].set((2 * total + 13) // 26)
    around = ((1, 1), (1, 1), (0, 0))
    inside = np.pad(np.ones((height - 2, width - 2, 1), bool), around)
    return jnp.where(inside, jnp.pad((2 * total + 13) // 26, around), pixels)


def _apply_curve(pixels: jax.Array, curve: jax.Array, gather: bool) -> jax.Array:
    """Maps each channel through its tone curve (`Operation.curve`); int32 [H, W, 3]."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    levels = jnp.arange(256, dtype=jnp.int32)
    count, look_up = (_count, _look_up) if gather else (_count_by_products, _look_up_by_products)

    def one_channel(values: jax.Array) -> jax.Array:
        curves = (levels, _autocontrast_curve(values), _equalize_curve(values, count(values), gather))
        return look_up(jnp.select([curve == index for index in range(3)], curves), values)

    return jax.vmap(one_channel, in_axes=1, out_axes=1)(flat).reshape(pixels.shape)


def _count(values: jax.Array) -> jax.Array:
    """How often each byte is among the values, int32 [256]."""
    return jnp.zeros(256, jnp.int32).at[values].add(1, mode="promise_in_bounds")


def _look_up(curve: jax.Array, values: jax.Array) -> jax.Array:
    """`curve[values]`, int32 [N]; curve: int32 [256] of bytes."""
    return curve.at[values].get(mode="promise_in_bounds")


def _count_by_products(values: jax.Array) -> jax.Array:
    """The same as `_count`, by a matrix product over the halves of each byte."""
    high, low = _halves(values)
    counts = jnp.einsum("hn,ln->hl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(256).astype(jnp.int32)


def _look_up_by_products(curve: jax.Array, values: jax.Array) -> jax.Array:
    """The same as `_look_up`, by a matrix product and a choice over the halves of each byte."""
    high, low = _halves(values)
    table = curve.reshape(16, 16).astype(jnp.bfloat16)
    candidates = jnp.einsum("hl,ln->hn", table, low, preferred_element_type=jnp.float32)
    return jnp.sum(jnp.where(high > 0, candidates, 0), axis=0).astype(jnp.int32)


def _halves(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which of 16 values each byte's upper and lower half has: two [16, N] of zeros and ones."""
    # bfloat16 holds whole numbers up to 256, and products are summed in float32, so that nothing is rounded.
    one_hot = lambda half: (half == jnp.arange(16, dtype=jnp.int32)[:, None]).astype(jnp.bfloat16)  # noqa: E731
    return one_hot(values >> 4), one_hot(values & 15)


def _autocontrast_curve(values: jax.Array) -> jax.Array:
    """floor(255 (level - darkest) / (brightest - darkest)) for the 256 levels; flat channels stay."""
    levels = jnp.arange(256, dtype=jnp.int32)
    darkest, brightest = jnp.min(values), jnp.max(values)
    stretched = 255 * (levels - darkest) // jnp.maximum(brightest - darkest, 1)
    return jnp.where(brightest > darkest, jnp.clip(stretched, 0, 255), levels)


def _equalize_curve(values: jax.Array, counts: jax.Array, gather: bool) -> jax.Array:
    """floor((step // 2 + #values below the level) / step), step = #values below the brightest // 255.

    Channels with step 0 stay: constant ones, or with fewer than 255 pixels below the brightest level.
    """
    levels = jnp.arange(256, dtype=jnp.int32)
    below, brightest = jnp.cumsum(counts) - counts, jnp.max(values)
    step = (below[brightest] if gather else jnp.sum(values < brightest, dtype=jnp.int32)) // 255
    equalized = (step // 2 + below) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.clip(equalized, 0, 255), levels)
