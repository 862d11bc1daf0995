"""Few images on the CPU: padded to as many rows as keep an image's bits, and no more."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear import apply, fixture

from ltrobust.evaluation import padding, verdict
from ltrobust.evaluation.protocols import PGD20, Apgd, Protocol
from ltrobust.evaluator import make_evaluator
from ltrobust.threat import Threat

SHORT = Protocol("short", (dataclasses.replace(PGD20, steps=3), Apgd("apgd-ce", "ce", steps=5)))


def convolve(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def network(weights, images: jax.Array) -> jax.Array:
    features = jax.nn.relu(convolve(images, weights[0], 1))
    features = jax.nn.relu(convolve(features, weights[1], 2))
    return features.mean((1, 2)) @ weights[2]


@functools.cache
def weights_for(classes: int) -> tuple[np.ndarray, ...]:
    """Of a small convolutional network for RGB images."""
    generator = np.random.RandomState(0)
    shapes = (3, 3, 3, 16), (3, 3, 16, 32), (32, classes)
    return tuple(generator.randn(*s).astype(np.float32) / np.float32(np.prod(s[:-1]) ** 0.5) for s in shapes)


@pytest.mark.parametrize(
    ("side", "classes", "wanted", "rows"),
    [
        (96, 10, 1, 2),
        (96, 10, 2, 2),
        (96, 10, 5, 8),
        (96, 10, 33, 64),
        (96, 100, 2, 64),  # the last layer's product has more than 16 outputs
        (8, 10, 2, 64),  # cheap
    ],
)
def test_rows_that_a_network_needs(side, classes, wanted, rows):
    assert padding.rows((network,), weights_for(classes), (side, side, 3), classes, wanted) == rows


def test_small_outputs_and_unknown_operations_need_more():
    rows = functools.partial(padding.rows, expensive=0.0)
    needed = {side: rows((network,), weights_for(10), (side, side, 3), 10, 1) for side in (8, 16, 32)}
    assert needed == {8: 16, 16: 4, 32: 2}
    attention = lambda weights, images: jnp.einsum("bhwc,bhvc->bwv", images, images)[:, 0]  # noqa: E731
    assert rows((attention,), None, (16, 16, 3), 16, 1) == 64


def test_products_over_positions_count_every_position():
    """[B x H x W, 3] x [3, 3] has many rows where it stands before the pooling, and B behind it."""
    mixing = np.eye(3, dtype=np.float32)
    rows = functools.partial(padding.rows, expensive=0.0)
    before = lambda weights, images: network(weights, images @ mixing)  # noqa: E731
    assert rows((before,), weights_for(10), (32, 32, 3), 10, 1) == 2
    behind = lambda weights, images: images.mean((1, 2)) @ mixing  # noqa: E731
    assert rows((network, behind), weights_for(10), (32, 32, 3), 10, 1) == 64


def test_a_network_that_looks_at_its_batch_needs_all_rows():
    rows = functools.partial(padding.rows, expensive=0.0)
    branching = lambda weights, images: jnp.sin(images) if len(images) < 64 else jnp.cos(images)  # noqa: E731
    kernels = lambda weights, images: convolve(images, jnp.transpose(images, (1, 2, 3, 0)), 1)  # noqa: E731
    for other in (branching, kernels):
        assert rows((network, other), weights_for(10), (32, 32, 3), 10, 1) == 64


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.ci
def test_two_large_images_have_the_bits_that_they_have_among_seventy():
    weights = weights_for(10)
    images = np.random.RandomState(0).randint(0, 256, (70, 96, 96, 3), np.uint8)
    labels = np.asarray(jnp.argmax(jax.jit(network)(weights, images.astype(np.float32) / np.float32(255)), axis=-1))

    def evaluated(rows: np.ndarray, batch_size: int):
        evaluator = make_evaluator(
            network, protocol=SHORT, threat=Threat(radius=1), num_classes=10, batch_size=batch_size
        )
        return evaluator(weights, images[rows], labels[rows], ids=rows)

    whole, few = evaluated(np.arange(70), 72), evaluated(np.array([3, 69]), 2)
    for name, record in few.records.items():
        for field in verdict.FIELDS:
            np.testing.assert_array_equal(record[field], whole.records[name][field][[3, 69]], err_msg=f"{name} {field}")


def test_a_small_network_is_padded_as_before():
    weights, images, labels = fixture()
    seen = []

    def watched(variables, points):
        seen.append(points.shape[0])
        return apply(variables, points)

    make_evaluator(watched, protocol=SHORT, threat=Threat(), num_classes=10, batch_size=2)(
        weights, images[:2], labels[:2]
    )
    assert seen[-1] == 64
