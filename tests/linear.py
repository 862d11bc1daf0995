"""The base fixture of docs/protocols.md 8.1: 1,000 images of 8x8x3 in 10 classes, and a linear network."""

import functools

import jax
import numpy as np


@functools.cache
def fixture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights float32 [10,192], images float32 [1000,8,8,3], labels [1000]."""
    generator = np.random.RandomState(0)
    directions = generator.randn(10, 192)
    labels = np.repeat(np.arange(10), 100)
    images = np.clip(0.5 + 0.05 * directions[labels] + 0.1 * generator.randn(1000, 192), 0, 1).astype(np.float32)
    return directions.astype(np.float32), images.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1), labels


def apply(weights: jax.Array, images: jax.Array) -> jax.Array:
    """Logits `(x - 0.5) W^T` of the images flattened channel by channel."""
    return (images.transpose(0, 3, 1, 2).reshape(len(images), -1) - 0.5) @ weights.T


def exactly_robust(radius: float, rows: np.ndarray | None = None) -> np.ndarray:
    """Closed form in float64: for each rival j the worst corner of the box. `radius` in 1/255."""
    weights, images, labels = fixture()
    rows = np.arange(len(labels)) if rows is None else rows
    flat = images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1).astype(np.float64)
    weights, labels = weights.astype(np.float64), labels[rows]
    robust = np.ones(len(labels), bool)
    for rival in range(10):
        toward = weights[rival] - weights[labels]
        corner = np.clip(flat + radius / 255 * np.sign(toward), 0, 1)
        gap = np.sum((flat - 0.5) * -toward, axis=1)
        robust &= (gap > np.sum(toward * (corner - flat), axis=1)) | (rival == labels)
    return robust
