"""Input gradients side by side, and linearity, on networks whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust import models
from ltrobust.analysis.gradient_agreement import agreement, mean_of, remainder

IMAGES = np.random.RandomState(0).uniform(0, 1, (5, 2, 2, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 1])
KERNEL = np.random.RandomState(1).normal(size=(12, 2)).astype(np.float32)


def affine(kernel):
    return lambda images: images.reshape(len(images), -1) @ jnp.asarray(kernel)


def measure(student, teacher, **settings):
    return agreement(student, teacher, IMAGES, LABELS, epsilon=8 / 255, **settings).per_image


def test_a_network_agrees_with_itself_and_opposes_its_negative():
    same = measure(affine(KERNEL), affine(KERNEL))
    np.testing.assert_array_equal(same.distance, 0)
    np.testing.assert_allclose(same.cosine, 1, rtol=1e-6)
    # Of two classes, the gradient of CE is p_other times the difference of the columns.
    np.testing.assert_allclose(measure(affine(KERNEL), affine(-KERNEL)).cosine, -1, rtol=1e-6)


def test_distance_and_cosine_by_hand():
    other = np.random.RandomState(2).normal(size=(12, 2)).astype(np.float32)
    result = measure(affine(KERNEL), affine(other), batch_size=2)
    gradients = []
    for kernel in (KERNEL.astype(np.float64), other.astype(np.float64)):
        logits = IMAGES.reshape(5, -1) @ kernel
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradients.append((shares - np.eye(2)[LABELS]) @ kernel.T)
    lengths = [np.linalg.norm(gradient, axis=1) for gradient in gradients]
    np.testing.assert_allclose(result.distance, np.linalg.norm(gradients[0] - gradients[1], axis=1), rtol=1e-4)
    np.testing.assert_allclose(result.cosine, (gradients[0] * gradients[1]).sum(1) / lengths[0] / lengths[1], atol=1e-5)


def test_a_linear_network_leaves_no_remainder_and_a_square_leaves_its_second_order():
    np.testing.assert_allclose(measure(affine(KERNEL), affine(KERNEL)).student_remainder, 0, atol=1e-5)
    square = lambda images: images.reshape(len(images), -1) ** 2  # noqa: E731
    change = jnp.full(IMAGES.shape, 0.5)
    expected = np.linalg.norm(np.full(12, 0.25)) / np.linalg.norm((IMAGES.reshape(5, -1) + 0.5) ** 2, axis=1)
    np.testing.assert_allclose(remainder(square, jnp.asarray(IMAGES), change), expected, rtol=1e-5)


def test_the_slope_of_a_convolutional_network_is_that_of_differences():
    module = models.create("small_resnet", num_classes=2, width=4)
    params, stats = models.initialise(module, jax.random.key(0), (4, 4, 3))
    network = lambda images: models.forward(module, params, stats, images, bn="eval")[0]  # noqa: E731
    images = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3))
    direction = jax.random.normal(jax.random.key(2), images.shape)
    # A piecewise linear network: the remainder vanishes with the change faster than the change does.
    of = jax.jit(lambda size: remainder(network, images, size * direction))
    assert float(of(1e-3).max()) < 1e-3 < float(of(1e-1).max())


def test_the_direction_of_a_confident_network_is_not_lost():
    # At margins beyond 100 all of float32's softmax is one 1 and zeros.
    steep = measure(affine(KERNEL * 100), affine(KERNEL))
    np.testing.assert_allclose(steep.cosine, 1, rtol=1e-5)


def test_images_do_not_depend_on_their_batch():
    whole, parts = (measure(affine(KERNEL), affine(-KERNEL), batch_size=size) for size in (5, 2))
    for one, other in zip(whole, parts, strict=True):
        assert one.shape == (5,)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_means_have_an_interval():
    result = mean_of(np.array([1.0, 2.0, 3.0, 4.0]))
    np.testing.assert_allclose(result, (2.5, 2.5 - 1.2651513, 2.5 + 1.2651513), rtol=1e-6)
    assert np.isnan(mean_of(np.array([1.0])).low)


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"labels": LABELS[:2]}, {"images": IMAGES[:0]}])
def test_nothing_to_measure_is_refused(settings):
    given = {"images": IMAGES, "labels": LABELS} | settings
    with pytest.raises(ValueError, match="at least one image, a label for each"):
        agreement(affine(KERNEL), affine(KERNEL), epsilon=0.1, **given)
