"""Random brightness, contrast and saturation, as torchvision's `ColorJitter` on Pillow images.

Two differences: the three follow each other in one order, where torchvision shuffles them, and there is no hue, which
the published ImageNet-LT recipes leave at 0. Arithmetic is integer, so that all devices give the same pixels.
"""

import jax
import jax.numpy as jnp

from ltrobust.data.image_operations import ONE, blend, grey_of, mean_of

# In this order; `color` is saturation.
NAMES = ("brightness", "contrast", "color")


def jitter(image: jax.Array, key: jax.Array, strengths: tuple[float, ...]) -> jax.Array:
    """Brightness, contrast and saturation of one uint8 image [H, W, 3], each times its own random factor.

    Args:
      image: the image.
      key: typed key.
      strengths: three numbers from 0 (off) to 1; a factor is drawn uniformly from [1 - strength, 1 + strength].
    """
    for name, strength, own_key in zip(NAMES, strengths, jax.random.split(key, len(NAMES)), strict=True):
        if strength:
            # In fixed point, so that devices agree on the factor.
            low, high = (round(factor * ONE) for factor in (1 - strength, 1 + strength))
            image = enhance(image, name, jax.random.randint(own_key, (), low, high + 1, dtype=jnp.int32))
    return image


def enhance(image: jax.Array, name: str, factor: jax.Array) -> jax.Array:
    """One of `NAMES` of one uint8 image [H, W, 3] times a factor, int32 in 16.16 fixed point, as in Pillow.

    The distance of each pixel from black, from the image's rounded mean grey, or from the pixel's own grey.
    """
    pixels = image.astype(jnp.int32)
    base: jax.Array = jnp.int32(0)
    if name != "brightness":
        grey = grey_of(pixels)
        base = grey[..., None] if name == "color" else mean_of(grey)
    return blend(base, pixels, factor).astype(jnp.uint8)
