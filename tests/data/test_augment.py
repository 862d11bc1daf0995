"""Augmentation: independence of the batch, the distributions of the policies, and the pixels of Pillow."""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ltrobust.data import augment as augment_module
from ltrobust.data import color_jitter, image_operations
from ltrobust.data.augment import (
    AUTOAUGMENT_PAIRS,
    POLICIES,
    RANDAUGMENT_OPERATIONS,
    augment,
    magnitude_at_level,
)

jitted_augment = jax.jit(augment, static_argnames=("policy", "crop_padding", "flip"))
apply_to_each = jax.jit(jax.vmap(image_operations.apply_operation, in_axes=(0, None)))
apply_each = jax.jit(jax.vmap(image_operations.apply_operation, in_axes=(None, 0)))

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


def noise(count: int, height: int = 16, width: int = 16, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def keys_for(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def varied_images(height: int, width: int) -> np.ndarray:
    """Noise, a gradient, low contrast, few levels, one odd pixel, constants: where tone curves differ."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    gradient = np.stack([y * 255 // height, x * 255 // width, (x * y) % 256], -1)
    odd = np.full((height, width, 3), 90)
    odd[1, 2] = (200, 90, 3)
    images = [
        generator.integers(0, 256, (height, width, 3)),
        generator.integers(100, 131, (height, width, 3)),
        generator.integers(250, 256, (height, width, 3)),
        generator.choice([0, 17, 255], (height, width, 3)),
        gradient,
        odd,
        np.full((height, width, 3), 0),
        np.full((height, width, 3), 255),
    ]
    return np.stack(images).astype(np.uint8)


def pillow(name: str, magnitude: float, pixels: np.ndarray) -> np.ndarray:
    """The same operation by Pillow, as torchvision calls it."""
    image = Image.fromarray(pixels)
    matrices = {
        "shear_x": (1, magnitude, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, magnitude, 1, 0),
        "translate_x": (1, 0, -int(magnitude), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -int(magnitude)),
    }
    if name in matrices:
        affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
        return np.asarray(image.transform(image.size, affine, matrices[name], nearest))
    if name in ENHANCERS:
        return np.asarray(ENHANCERS[name](image).enhance(1 + magnitude))
    calls = {
        "identity": lambda: image,
        "rotate": lambda: image.rotate(magnitude, Image.Resampling.NEAREST),
        "posterize": lambda: ImageOps.posterize(image, int(magnitude)),
        "solarize": lambda: ImageOps.solarize(image, magnitude),  # pyright: ignore[reportArgumentType]
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
    }
    return np.asarray(calls[name]())


def both(name: str, magnitude: float, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our pixels and Pillow's, int [B, H, W, 3]."""
    _, height, width, _ = images.shape
    operation = image_operations.make_operation(name, magnitude, height=height, width=width)
    ours = np.asarray(apply_to_each(images, operation))
    assert ours.dtype == np.uint8
    return ours.astype(int), np.stack([pillow(name, magnitude, image) for image in images]).astype(int)


def candidates(image: np.ndarray, names_and_magnitudes: list[tuple[str, float]]) -> np.ndarray:
    """One image under each of several operations, uint8 [N, H, W, 3]."""
    height, width, _ = image.shape
    rows = [image_operations.make_operation(name, m, height=height, width=width) for name, m in names_and_magnitudes]
    return np.asarray(apply_each(image, jax.tree.map(lambda *fields: np.stack(fields), *rows)))


# Independence


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_an_image_depends_on_its_own_key_and_pixels_only(policy):
    images, keys = noise(12), keys_for(12)
    result = np.asarray(jitted_augment(images, keys, policy=policy))
    order = np.random.default_rng(1).permutation(12)
    np.testing.assert_array_equal(jitted_augment(images[order], keys[order], policy=policy), result[order])
    np.testing.assert_array_equal(jitted_augment(images[5:6], keys[5:6], policy=policy), result[5:6])
    others = noise(12, seed=9)
    others[5] = images[5]
    np.testing.assert_array_equal(jitted_augment(others, keys, policy=policy)[5], result[5])


@pytest.mark.parametrize("policy", POLICIES)
def test_dtype_and_shape_are_kept_and_calls_repeat(policy):
    shape = (2, 12, 20, 3)
    images, keys = noise(*shape), keys_for(2)
    result = jitted_augment(images, keys, policy=policy)
    assert result.dtype == jnp.uint8
    assert result.shape == shape
    np.testing.assert_array_equal(jitted_augment(images, keys, policy=policy), result)


@pytest.mark.parametrize("policy", ["base", "randaugment", "autoaugment"])
def test_keys_matter(policy):
    images = np.repeat(noise(1), 12, axis=0)
    result = np.asarray(jitted_augment(images, keys_for(12), policy=policy))
    assert len({image.tobytes() for image in result}) > 6


def test_none_is_the_identity():
    images = noise(4)
    np.testing.assert_array_equal(jitted_augment(images, keys_for(4), policy="none"), images)


# Base


def windows(image: np.ndarray, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every outcome of the base policy on one image."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    outcomes = {}
    for row, column in itertools.product(range(2 * padding + 1), repeat=2):
        window = padded[row : row + height, column : column + width]
        outcomes[window.tobytes()] = (row, column, False)
        outcomes[window[:, ::-1].tobytes()] = (row, column, True)
    return outcomes


@pytest.mark.parametrize(("padding", "flip"), [(4, True), (2, False), (0, True), (0, False)])
@pytest.mark.parametrize("channels", [1, 3])
def test_base_draws_every_window_equally_often(padding, flip, channels):
    image = noise(1, 8, 8, channels)[0]
    count = 4000
    images, keys = np.repeat(image[None], count, axis=0), keys_for(count)
    result = np.asarray(jitted_augment(images, keys, policy="base", crop_padding=padding, flip=flip))
    outcomes = windows(image, padding)
    drawn = [outcomes[window.tobytes()] for window in result]
    positions = collections.Counter((row, column) for row, column, _ in drawn)
    assert len(positions) == (2 * padding + 1) ** 2
    expected = count / len(positions)
    assert all(abs(seen - expected) < 5 * expected**0.5 for seen in positions.values())
    flipped = sum(mirrored for _, _, mirrored in drawn)
    assert abs(flipped - count / 2) < 5 * (count / 4) ** 0.5 if flip else flipped == 0


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
def test_policies_come_before_the_crop(policy):
    images, keys = noise(12), keys_for(12)
    plain = np.asarray(jitted_augment(images, keys, policy=policy, crop_padding=0, flip=False))
    cropped = np.asarray(jitted_augment(images, keys, policy=policy))
    assert all(after.tobytes() in windows(before, 4) for before, after in zip(plain, cropped, strict=True))


# Policies


def signed(name: str, magnitude: float) -> list[tuple[str, float]]:
    return [(name, magnitude)] * 2 if name in ("posterize", "solarize") else [(name, magnitude), (name, -magnitude)]


def assert_distribution(drawn: np.ndarray, probabilities: dict[bytes, float]) -> None:
    """Every image is a possible outcome, the counts pass a chi-square test (outcomes expected 5 times)."""
    counts = collections.Counter(image.tobytes() for image in drawn)
    assert set(counts) <= set(probabilities)
    assert sum(probabilities.values()) == pytest.approx(1)
    frequent = {image: p * len(drawn) for image, p in probabilities.items() if p * len(drawn) >= 5}
    chi_square = sum((counts[image] - mean) ** 2 / mean for image, mean in frequent.items())
    assert len(frequent) > 20
    assert abs(chi_square - len(frequent)) < 5 * (2 * len(frequent)) ** 0.5


@pytest.mark.slow
def test_randaugment_draws_operations_and_signs_uniformly():
    image, count = noise(1, 12, 12)[0], 6000
    choices = [
        choice
        for name in RANDAUGMENT_OPERATIONS
        for choice in signed(name, magnitude_at_level(name, 8, 30, height=12, width=12))
    ]
    assert len(choices) == 28
    probabilities = collections.defaultdict(float)
    for first in candidates(image, choices):
        for second in candidates(first, choices):
            probabilities[second.tobytes()] += 1 / 28**2
    images = np.repeat(image[None], count, axis=0)
    drawn = jitted_augment(images, keys_for(count), policy="randaugment", crop_padding=0, flip=False)
    assert_distribution(np.asarray(drawn), probabilities)


@pytest.mark.slow
def test_autoaugment_draws_pairs_members_and_signs_as_written():
    image, count = noise(1, 12, 12)[0], 6000
    probabilities = collections.defaultdict(float)
    for pair in AUTOAUGMENT_PAIRS:
        outcomes = [(image, 1 / 25)]
        for name, probability, level in pair:
            choices = [
                ("identity", 0.0),
                *signed(name, magnitude_at_level(name, level, 9, height=12, width=12)),
            ]
            weights = (1 - probability, probability / 2, probability / 2)
            outcomes = [
                (after, chance * weight)
                for before, chance in outcomes
                for after, weight in zip(candidates(before, choices), weights, strict=True)
            ]
        for after, chance in outcomes:
            probabilities[after.tobytes()] += chance
    images = np.repeat(image[None], count, axis=0)
    drawn = jitted_augment(images, keys_for(count), policy="autoaugment", crop_padding=0, flip=False)
    possible = {outcome: chance for outcome, chance in probabilities.items() if chance > 0}
    assert_distribution(np.asarray(drawn), possible)


def test_levels_are_those_of_the_papers():
    level = functools.partial(magnitude_at_level, top_level=30, level=8, height=64, width=32)
    assert level("shear_x") == pytest.approx(0.08)
    assert int(level("translate_x")) == 3
    assert int(level("translate_y")) == 7
    assert level("rotate") == 8
    assert level("contrast") == pytest.approx(0.24)
    assert level("posterize") == 7
    assert level("solarize") == 187
    assert level("equalize") == 0
    assert magnitude_at_level("posterize", 7, 9, height=32, width=32) == 5
    assert len(RANDAUGMENT_OPERATIONS) == 14
    assert len(AUTOAUGMENT_PAIRS) == 25


def test_every_table_row_is_what_pillow_does_at_that_level():
    """The rows the policies really draw from, both signs, on one image."""
    image = noise(1, 32, 32, seed=5)[0]
    for top_level, name, level in [(30, name, 8) for name in RANDAUGMENT_OPERATIONS] + sorted(
        {(9, name, level) for pair in AUTOAUGMENT_PAIRS for name, _, level in pair}
    ):
        magnitude = magnitude_at_level(name, level, top_level, height=32, width=32)
        rows = augment_module.both_signs(name, level, top_level, 32, 32)
        for row, (_, value) in zip(rows, signed(name, magnitude), strict=True):
            difference = np.asarray(apply_to_each(image[None], row))[0].astype(int) - pillow(name, value, image)
            assert difference.min() >= 0, (name, value)
            assert difference.max() <= (1 if round(100 * value) == 30 else 0), (name, value)


# Pixels


WARPS = [
    *(("shear_x", m) for m in (0.08, -0.08, 0.3, -0.3)),
    *(("shear_y", m) for m in (0.08, -0.08, 0.3 * 7 / 9, -0.3 * 8 / 9)),
    *(("translate_x", m) for m in (3.87, -3.87, 14.5, -0.9)),
    *(("translate_y", m) for m in (3.87, -3.87, 40.0, -7.0)),
    *(("rotate", m) for m in (8.0, -8.0, 30 * 2 / 9, -30 * 2 / 9, 30.0, 0.0, 90.0, 180.0, -133.7)),
]


@pytest.mark.parametrize(("name", "magnitude"), WARPS)
@pytest.mark.parametrize("size", [(32, 32), (15, 24)])
def test_warps_equal_pillow(name, magnitude, size):
    ours, theirs = both(name, magnitude, noise(3, *size))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", sorted(ENHANCERS))
@pytest.mark.parametrize("percent", [10, 20, 24, 30, 40, 50, 70, 76, 80, 90, 100, 110, 124, *range(130, 200, 10)])
def test_enhancements_equal_pillow(name, percent):
    ours, theirs = both(name, percent / 100 - 1, varied_images(24, 32))
    if percent == 130:  # Pillow's float32 truncates some whole numbers to one level less.
        assert set(np.unique(ours - theirs)) <= {0, 1}
        assert (ours[0] != theirs[0]).mean() < 0.05
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [(2, 9), (3, 3)])
def test_sharpness_of_images_too_small_for_the_filter(size):
    np.testing.assert_array_equal(*both("sharpness", 0.24, noise(4, *size)))


POINT_OPERATIONS = [
    *(("posterize", bits) for bits in (1, 4, 5, 7, 8)),
    *(("solarize", threshold) for threshold in (0, 28.3, 113.3, 187, 198.3, 255, 256)),
    *((name, 0) for name in ("identity", "invert", "equalize")),
]


@pytest.mark.parametrize(("name", "magnitude"), POINT_OPERATIONS)
@pytest.mark.parametrize("size", [(64, 48), (9, 11)])
def test_point_operations_equal_pillow(name, magnitude, size):
    np.testing.assert_array_equal(*both(name, magnitude, varied_images(*size)))


def test_autocontrast_is_the_exact_floor_and_pillow_at_most_one_level_below():
    """Random darkest and brightest levels: Pillow may miss whole numbers, by its float64 rounding."""
    generator = np.random.default_rng(7)
    darkest = generator.integers(0, 200, (200, 1, 1, 1))
    span = generator.integers(1, 256 - darkest)
    images = (darkest + generator.integers(0, span + 1, (200, 16, 16, 3))).astype(np.uint8)
    images = np.concatenate([images, varied_images(16, 16)])
    ours, theirs = both("autocontrast", 0, images)
    pixels = images.astype(int)
    low, high = pixels.min((1, 2), keepdims=True), pixels.max((1, 2), keepdims=True)
    numerator, denominator = 255 * (pixels - low), np.maximum(high - low, 1)
    np.testing.assert_array_equal(ours, np.where(high > low, numerator // denominator, pixels))
    missed = ours != theirs
    assert set(np.unique(ours - theirs)) <= {0, 1}
    assert not (missed & (numerator % denominator != 0)).any()
    assert missed.mean() < 0.05


# Errors


def test_unknown_policy_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'trivial'.*none, base, randaugment, autoaugment"):
        augment(jnp.asarray(noise(1)), keys_for(1), policy="trivial")


@pytest.mark.parametrize("policy", ["randaugment", "autoaugment"])
def test_colour_policies_want_three_channels(policy):
    with pytest.raises(ValueError, match="3 colour channels, got 1"):
        augment(jnp.asarray(noise(1, channels=1)), keys_for(1), policy=policy)


@pytest.mark.parametrize("images", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_images_of_another_dtype_or_rank(images):
    with pytest.raises(ValueError, match=rf"got {images.dtype} \["):
        augment(jnp.asarray(images), keys_for(2), policy="base")


def test_keys_one_for_each_image():
    with pytest.raises(ValueError, match=r"keys must be typed PRNG keys \[3\].*\[2\]"):
        augment(jnp.asarray(noise(3)), keys_for(2), policy="base")
    with pytest.raises(ValueError, match="got uint32"):
        augment(jnp.asarray(noise(3)), jnp.zeros((3, 2), jnp.uint32), policy="base")


def test_negative_padding():
    with pytest.raises(ValueError, match="-1"):
        augment(jnp.asarray(noise(1)), keys_for(1), policy="base", crop_padding=-1)


def test_unknown_operation_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'blur'.*identity, shear_x"):
        image_operations.make_operation("blur", height=8, width=8)


def test_the_device_leaves_the_crop_of_random_resized_crop_to_the_host():
    """It mirrors the images that base without a crop mirrors, and moves nothing."""
    images, keys = noise(64), keys_for(64)
    expected = augment(images, keys, policy="base", crop_padding=0)
    np.testing.assert_array_equal(augment(images, keys, policy="random_resized_crop"), expected)
    mirrored = (np.asarray(expected) == images[:, :, ::-1]).all((1, 2, 3))
    assert 16 < mirrored.sum() < 48


def enhanced(image: np.ndarray, name: str, factor: float) -> np.ndarray:
    """torchvision's definition: the blend with black, with the rounded mean grey, or with each pixel's grey."""
    pixels = image.astype(np.float64)
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float64)
    base = {"brightness": 0.0, "contrast": np.floor(grey.mean() + 0.5), "color": grey[..., None]}[name]
    return np.clip(base + factor * (pixels - base), 0, 255)


@pytest.mark.parametrize("name", color_jitter.NAMES)
@pytest.mark.parametrize("factor", [0.0, 0.37, 1.0, 1.4, 2.0])
def test_jitter_is_torchvision_s_enhancement(name, factor):
    weight = round(factor * image_operations.ONE)
    for image in varied_images(9, 12):
        result = np.asarray(color_jitter.enhance(jnp.asarray(image), name, jnp.int32(weight)))
        exact = enhanced(image, name, weight / image_operations.ONE)
        assert (np.abs(result - np.floor(exact + 0.005)) <= (np.abs(exact - np.round(exact)) < 0.01)).all()
        by_pillow = np.asarray(ENHANCERS[name](Image.fromarray(image)).enhance(weight / image_operations.ONE))
        assert np.abs(result.astype(int) - by_pillow).max() <= 1


def test_jitter_follows_the_flip_and_draws_each_factor_uniformly():
    image = np.full((1, 4, 4, 3), 100, np.uint8)
    images, keys = np.repeat(image, 2000, axis=0), keys_for(2000)
    options = {"policy": "base", "crop_padding": 0}
    bright = np.asarray(augment(images, keys, **options, jitter=(0.4, 0.0, 0.0)))[:, 0, 0, 0]
    assert 60 <= bright.min() < 62
    assert 138 < bright.max() <= 140
    assert abs(bright.mean() - 99.5) < 1.5
    np.testing.assert_array_equal(augment(images, keys, **options, jitter=(0.0, 0.4, 0.4)), images)  # grey stays
    images = noise(8)
    both = augment(images, keys[:8], **options, jitter=(0.4, 0.4, 0.4))
    flipped = augment(images, keys[:8], **options)
    alone = [
        color_jitter.jitter(one, jax.random.fold_in(key, 2), (0.4,) * 3)
        for one, key in zip(flipped, keys[:8], strict=True)
    ]
    np.testing.assert_array_equal(both, jnp.stack(alone))
    unflipped = augment(images, keys[:8], policy="none", jitter=(0.4, 0.4, 0.4))
    alone = [
        color_jitter.jitter(one, jax.random.fold_in(key, 2), (0.4,) * 3)
        for one, key in zip(images, keys[:8], strict=True)
    ]
    np.testing.assert_array_equal(unflipped, jnp.stack(alone))


@pytest.mark.parametrize(("jitter", "channels"), [((0.4, 0.4), 3), ((0.4, 1.1, 0.0), 3), ((0.1, 0.0, 0.0), 1)])
def test_jitter_out_of_range_and_of_grey_images_is_refused(jitter, channels):
    with pytest.raises(ValueError, match="jitter is"):
        augment(noise(2, channels=channels), keys_for(2), policy="base", jitter=jitter)
