"""Augmentation on the device: crop and flip, RandAugment, AutoAugment, colour, each image under its own key.

What happens to an image depends on its key and its pixels only, never on the batch around it, so that a
resumed run, another batch size or another number of devices sees the same pixels.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.data import color_jitter, image_operations
from ltrobust.data.image_operations import Operation
from ltrobust.runtime.names import nearest

# The crop of `random_resized_crop` is made on the host, where files are decoded (`images.FileImages.random_crop`).
POLICIES = ("none", "base", "randaugment", "autoaugment", "random_resized_crop")

# RandAugment(2, 8): two operations per image, at level 8 of the grid 0..30.
RANDAUGMENT_OPERATIONS = tuple(name for name in image_operations.NAMES if name != "invert")
RANDAUGMENT_COUNT = 2
RANDAUGMENT_LEVEL = 8
RANDAUGMENT_TOP_LEVEL = 30

# Up to this many shifts, warps without `gather` select among them.
MOST_SHIFTS = 256

# The CIFAR-10 policy: two members each, (operation, probability, level on the grid 0..9); level 0 is also
# written where an operation has no magnitude.
AUTOAUGMENT_PAIRS = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)
AUTOAUGMENT_TOP_LEVEL = 9


def augment(
    images: jax.Array,
    keys: jax.Array,
    *,
    policy: str,
    crop_padding: int = 4,
    flip: bool = True,
    jitter: tuple[float, ...] = (0.0, 0.0, 0.0),
    gather: bool = True,
) -> jax.Array:
    """Augments every image under its own key; pure, for use inside `jit` with static keyword arguments.

    * none: the images as they are.
    * base: pads `crop_padding` black pixels on each side, cuts a window of the old size at one of the
      (2 crop_padding + 1)^2 positions, drawn uniformly, then, if `flip`, mirrors it left to right with
      probability 1/2.
    * random_resized_crop: the flip of base, of images that were cropped while they were decoded.
    * randaugment: RandAugment(2, 8) (Cubuk et al. 2020, arXiv:1909.13719), then base: twice, one of 14
      operations, drawn uniformly, at level 8 of a grid up to 30, its sign random where it has one.
    * autoaugment: the CIFAR-10 policy of AutoAugment (Cubuk et al. 2019, arXiv:1805.09501), then base: one of
      25 pairs, drawn uniformly, each member applied with its own probability, sign random where it has one.

    Last, brightness, contrast and saturation are changed by `color_jitter`, in this order.

    Levels as in torchvision, see `magnitude_at_level`; pixels as in Pillow, see `image_operations`.

    Args:
      images: uint8 [B, H, W, C], bytes 0..255; C = 3 for randaugment and autoaugment.
      keys: typed PRNG keys [B] (`jax.random.key`). With the default threefry generator an image's draws
        do not depend on B; with `rbg` keys JAX does not promise that.
      policy: one of `POLICIES`.
      crop_padding: pixels, 0 for no crop.
      flip: whether mirrored images are as good (digits are not).
      jitter: strengths of brightness, contrast and saturation, 0 (off) to 1; above 0 with C = 3 only.
      gather: whether pixels and levels are indexed one by one, which CPUs and GPUs are fast at and TPUs are not. False
        computes the same pixels by comparing and selecting.

    Returns:
      uint8 [B, H, W, C].

    Raises:
      ValueError: unknown policy, negative padding or more than an image's side, strengths out of range, or images or
        keys of another dtype, rank or length.
    """
    _check(images, keys, policy, crop_padding, jitter)
    if policy == "none" and not any(jitter):
        return images
    padding = 0 if policy == "random_resized_crop" else crop_padding
    options = {"policy": policy, "crop_padding": padding, "flip": flip, "jitter": jitter, "gather": gather}
    one = functools.partial(_augment_one, **options)
    return jax.vmap(one)(images, keys)


def magnitude_at_level(name: str, level: int, top_level: int, *, height: int, width: int) -> float:
    """Magnitude of an operation at `level` of a grid 0..top_level, as in torchvision, sign left out.

    With t = level / top_level: shear 0.3 t; translate 150/331 t times the width (x) or height (y), in pixels;
    rotate 30 t degrees; enhancements 0.9 t to either side of factor 1; posterize to 8 - round(4 t) bits;
    solarize from 255 - 255 t upwards; 0 for the operations without magnitude.
    """
    fraction = level / top_level
    if name in ("shear_x", "shear_y"):
        return 0.3 * fraction
    if name in ("translate_x", "translate_y"):
        return 150 / 331 * fraction * (width if name == "translate_x" else height)
    if name == "rotate":
        return 30 * fraction
    if name in ("brightness", "color", "contrast", "sharpness"):
        return 0.9 * fraction
    if name == "posterize":
        return 8 - round(4 * fraction)
    if name == "solarize":
        # In this order whole thresholds come out whole: 187 at 8/30, not a hair above.
        return 255 - 255 * level / top_level
    return 0.0


def _check(images: jax.Array, keys: jax.Array, policy: str, crop_padding: int, jitter: tuple[float, ...]) -> None:
    """Refuses arguments that `augment` does not define."""
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}; {nearest(policy, POLICIES)}known: {', '.join(POLICIES)}")
    if images.ndim != 4 or images.dtype != jnp.uint8:
        raise ValueError(f"images must be uint8 [B, H, W, C], got {images.dtype} {list(images.shape)}")
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) or keys.shape != images.shape[:1]:
        count = images.shape[0]
        raise ValueError(
            f"keys must be typed PRNG keys [{count}], one for each image, as"
            f" jax.random.split(jax.random.key(0), {count}) makes them; got {keys.dtype} {list(keys.shape)}"
        )
    if policy in ("randaugment", "autoaugment") and images.shape[-1] != 3:
        raise ValueError(f"policy {policy!r} is defined for 3 colour channels, got {images.shape[-1]}; use 'base'")
    check_jitter(jitter)
    if any(jitter) and images.shape[-1] != 3:
        raise ValueError(f"jitter is defined for 3 colour channels, got {images.shape[-1]}; give (0, 0, 0)")
    if not 0 <= crop_padding <= min(images.shape[1:3]):
        raise ValueError(f"crop_padding must be 0 to {min(images.shape[1:3])} pixels, got {crop_padding}")


def check_jitter(jitter: Sequence[float]) -> None:
    """Refuses strengths that are not three numbers from 0 to 1."""
    if len(jitter) != len(color_jitter.NAMES) or not all(0 <= strength <= 1 for strength in jitter):
        raise ValueError(f"jitter is {jitter!r}; give three numbers from 0 to 1: brightness, contrast, saturation")


def _augment_one(
    image: jax.Array,
    key: jax.Array,
    *,
    policy: str,
    crop_padding: int,
    flip: bool,
    jitter: tuple[float, ...],
    gather: bool,
) -> jax.Array:
    """One uint8 image [H, W, C] under one key."""
    # Split in the same way for every policy, so that crops and flips do not change with the policy.
    policy_key, base_key = jax.random.split(key)
    height, width, _ = image.shape
    if policy == "randaugment":
        image = _apply_both(image, _draw_randaugment(policy_key, height, width), _randaugment_table, gather)
    elif policy == "autoaugment":
        image = _apply_both(image, _draw_autoaugment(policy_key, height, width), _autoaugment_table, gather)
    if policy != "none":
        image = _crop_and_flip(image, base_key, crop_padding, flip, gather)
    # 2, because `split` above has given what 0 and 1 may give.
    return color_jitter.jitter(image, jax.random.fold_in(key, 2), jitter) if any(jitter) else image


def _crop_and_flip(image: jax.Array, key: jax.Array, crop_padding: int, flip: bool, gather: bool) -> jax.Array:
    """The base policy: one warp does both."""
    crop_key, flip_key = jax.random.split(key)
    row, column = jax.random.randint(crop_key, (2,), -crop_padding, crop_padding + 1, dtype=jnp.int32)
    mirrored = jax.random.bernoulli(flip_key).astype(jnp.int32) if flip else jnp.int32(0)
    if not gather:
        return image_operations.crop_by_shifts(image, row, column, mirrored, padding=crop_padding)
    matrix = image_operations.crop_and_flip(row, column, mirrored, width=image.shape[1])
    return image_operations.warp(image, matrix)


def _apply_both(
    image: jax.Array, operations: Operation, table: Callable[[int, int], Operation], gather: bool
) -> jax.Array:
    """Applies a row of operations (leading axis of every field) of a table one after the other."""
    height, width, _ = image.shape
    shifts = None
    if not gather:
        shifts = image_operations.displacements(np.asarray(table(height, width).matrix), height=height, width=width)
        # Large images are turned by many different shifts, so that selecting among them takes longer than indexing.
        shifts = shifts if len(shifts) <= MOST_SHIFTS else None
    apply = functools.partial(image_operations.apply_operation, gather=gather, shifts=shifts)
    # A scan compiles the operation once; with two of them the loop costs nothing against the pixels.
    return jax.lax.scan(lambda pixels, one: (apply(pixels, one), None), image, operations)[0]


def _draw_randaugment(key: jax.Array, height: int, width: int) -> Operation:
    """Two rows of the RandAugment table; a draw over operation and sign together is uniform over both."""
    table = _randaugment_table(height, width)
    # An operation without a sign is in the table twice, so that each operation is equally likely.
    rows = jax.random.randint(key, (RANDAUGMENT_COUNT,), 0, len(table.curve))
    return jax.tree.map(lambda field: jnp.asarray(field)[rows], table)


def _draw_autoaugment(key: jax.Array, height: int, width: int) -> Operation:
    """The two members of one pair, in order; a member that is not applied becomes the identity."""
    pair_key, sign_key, apply_key = jax.random.split(key, 3)
    pair = jax.random.randint(pair_key, (), 0, len(AUTOAUGMENT_PAIRS))
    sign = jax.random.randint(sign_key, (2,), 0, 2)
    probabilities = jnp.asarray([[member[1] for member in pair] for pair in AUTOAUGMENT_PAIRS], jnp.float32)
    # The last column of the table is the identity.
    column = jnp.where(jax.random.uniform(apply_key, (2,)) < probabilities[pair], sign, 2)
    table = _autoaugment_table(height, width)
    return jax.tree.map(lambda field: jnp.asarray(field)[pair, jnp.arange(2), column], table)


@functools.lru_cache(maxsize=16)
def _randaugment_table(height: int, width: int) -> Operation:
    """All 14 operations with both signs: fields [14 x 2, ...], NumPy int32."""
    rows = [
        operation
        for name in RANDAUGMENT_OPERATIONS
        for operation in both_signs(name, RANDAUGMENT_LEVEL, RANDAUGMENT_TOP_LEVEL, height, width)
    ]
    return jax.tree.map(lambda *fields: np.stack(fields), *rows)


@functools.lru_cache(maxsize=16)
def _autoaugment_table(height: int, width: int) -> Operation:
    """All members of all pairs with sign +, with sign - and left out: fields [25, 2, 3, ...], NumPy int32."""
    left_out = image_operations.make_operation("identity", height=height, width=width)
    rows = [
        operation
        for pair in AUTOAUGMENT_PAIRS
        for name, _, level in pair
        for operation in (*both_signs(name, level, AUTOAUGMENT_TOP_LEVEL, height, width), left_out)
    ]
    shape = (len(AUTOAUGMENT_PAIRS), 2, 3)
    return jax.tree.map(lambda *fields: np.stack(fields).reshape(*shape, *fields[0].shape), *rows)


def both_signs(name: str, level: int, top_level: int, height: int, width: int) -> tuple[Operation, Operation]:
    """The operation with sign + and with sign -; the same twice where it has no sign."""
    magnitude = magnitude_at_level(name, level, top_level, height=height, width=width)
    opposite = magnitude if name in ("posterize", "solarize") else -magnitude
    return (
        image_operations.make_operation(name, magnitude, height=height, width=width),
        image_operations.make_operation(name, opposite, height=height, width=width),
    )
