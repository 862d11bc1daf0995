"""P32: an attack on a network whose exact answer is known in closed form.

The network is linear, `z = (x - 1/2) W^T`, with 10 classes and 1,000 images of 8x8x3 from a fixed random generator. In
a box the worst point for rival j is `x + eps sign(v)` cut to [0,1], with `v = w_j - w_y`; an image is robust if and
only if `z_y - z_j > sum_i v_i (worst_i - x_i)` for every j. No image is nearer than 0.005 logits to a tie at 8/255, so
a float32 attack has to agree image by image.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.evaluation import protocols
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.runtime import ambient
from ltrobust.sanity.rules import Item, stated
from ltrobust.threat import Threat

# If another NumPy drew other bits, the answers below would be those of another network.
IMAGES_SHA256 = "e402e51e77a50fbbd8d931ac9d674de1f8183340d6fb639ba910b9c36a1cb1b6"
WEIGHTS_SHA256 = "8ff1d2c2e3bed07ae16e0d9a897838f4f27e3703de0a4e0e2bfed76ca344fc21"
RADIUS = 8  # in 1/255
_EVERY = 10  # P32 attacks every tenth image


class Fixture(NamedTuple):
    """Weights float32 [10,192], of flat [3,8,8] images; images float32 [1000,8,8,3]; labels [1000]."""

    weights: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def linear() -> Fixture:
    """The linear network and its images."""
    generator = np.random.RandomState(0)
    directions = generator.randn(10, 192)
    labels = np.repeat(np.arange(10), 100)
    images = np.clip(0.5 + 0.05 * directions[labels] + 0.1 * generator.randn(1000, 192), 0, 1).astype(np.float32)
    return Fixture(directions.astype(np.float32), images.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1), labels)


def recorded(fixture: Fixture) -> bool:
    """Whether weights and images have the recorded SHA-256."""
    raw = np.ascontiguousarray(fixture.images.transpose(0, 3, 1, 2))
    result = [hashlib.sha256(part.tobytes()).hexdigest() for part in (fixture.weights, raw)]
    return result == [WEIGHTS_SHA256, IMAGES_SHA256]


def apply(weights: Any, images: jax.Array) -> jax.Array:
    """Logits [B,10] of images [B,8,8,3], in full float32 on any device."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return jnp.matmul(flat - 0.5, jnp.asarray(weights).T, precision="highest")


def exactly_robust(fixture: Fixture, radius: float) -> np.ndarray:
    """The closed form in float64, bool [N]; `radius` in 1/255, linf."""
    flat = fixture.images.transpose(0, 3, 1, 2).reshape(len(fixture.images), -1).astype(np.float64)
    weights, labels = fixture.weights.astype(np.float64), fixture.labels
    robust = np.ones(len(labels), bool)
    for rival in range(len(weights)):
        toward = weights[rival] - weights[labels]
        worst = np.clip(flat + radius / 255 * np.sign(toward), 0, 1)
        # In float64, because the float32 attack is compared with it.
        gap = -np.sum((flat - 0.5) * toward, axis=1)
        robust &= (gap > np.sum(toward * (worst - flat), axis=1)) | (rival == labels)
    return robust


def examine() -> Item:
    """Whether the targeted APGD of `standard` finds the exact answer on each of a hundred images."""
    fixture = linear()
    rows = np.arange(0, len(fixture.labels), _EVERY)
    exact = exactly_robust(fixture, RADIUS)[rows]
    driver = Driver(
        apply,
        apply,
        threat=Threat(radius=RADIUS),
        num_classes=10,
        batch_size=len(rows),
        seed=0,
        place=jax.device_put,
        devices=1,
    )
    subject = Subject(fixture.weights, fixture.images[rows], fixture.labels[rows], rows)
    attack = next(attack for attack in protocols.get("standard").attacks if attack.name == "apgd-t")
    logits = np.asarray(driver.clean(subject).logits)
    result = np.zeros(len(rows), bool)
    for judged in driver.attack(subject, attack, np.arange(len(rows)), logits):
        result[judged.rows] = judged.verdicts["prediction"] == subject.labels[judged.rows]
    misses = int(np.sum(result != exact))
    evidence = f"{misses} of {len(rows)} images differ from the exact answer ({int(np.sum(exact))} robust)"
    if misses:
        return stated("P32", "fail", evidence)
    if not recorded(fixture):
        return stated(
            "P32", "warn", f"{evidence}, but the fixture is not the recorded one: other bits of NumPy's draws"
        )
    return stated("P32", "pass", evidence)


def item(examine: Callable[[], Item] = examine) -> Item:
    """`examine()`, computed once per process and settings of JAX: another precision is another answer."""
    return _cached(examine, tuple(ambient.describe().items()))


@functools.cache
def _cached(examine: Callable[[], Item], settings: tuple[tuple[str, Any], ...]) -> Item:
    """`examine()` under JAX's settings at hand, which `settings` name."""
    del settings
    return examine()
