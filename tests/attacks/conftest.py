"""The linear fixture: a network for which the distance of every image to its nearest error is known exactly."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.sanity import control


class Linear(NamedTuple):
    """Images float32 [N,8,8,3], labels int [N] of 10 classes, and weights float32 [10,192] in channel-first order."""

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def logits(self, images: jax.Array) -> jax.Array:
        """`(x - 0.5) W^T`, [B,10]."""
        return (images.transpose(0, 3, 1, 2).reshape(len(images), -1) - 0.5) @ jnp.asarray(self.weights).T

    def rows(self, rows: np.ndarray | slice) -> "Linear":
        """The same network with some of the images."""
        return self._replace(images=self.images[rows], labels=self.labels[rows])

    def distances(self, norm: str) -> np.ndarray:
        """Of each image to the nearest point of the box [0,1]^d where another class has as high a logit, float64 [N].

        By bisection of the multiplier m in `d_i = min(m, q_i)` (linf) or `min(m |v_i|, q_i)` (l2), towards each rival.
        """
        flat = self.images.transpose(0, 3, 1, 2).reshape(len(self.images), -1).astype(np.float64)
        weights = self.weights.astype(np.float64)
        nearest = np.full(len(flat), np.inf)
        for rival in range(len(weights)):
            toward = weights[rival] - weights[self.labels]
            gap = -np.sum((flat - 0.5) * toward, axis=1)
            reach = np.where(toward > 0, 1 - flat, flat)
            rate = np.abs(toward) if norm == "l2" else np.ones_like(toward)
            low, high = np.zeros(len(flat)), np.full(len(flat), 1e3)
            for _ in range(80):
                middle = (low + high) / 2
                gained = np.sum(np.abs(toward) * np.minimum(middle[:, None] * rate, reach), axis=1)
                low, high = np.where(gained < gap, middle, low), np.where(gained < gap, high, middle)
            change = np.minimum(high[:, None] * rate, reach)
            length = np.sqrt(np.sum(change**2, axis=1)) if norm == "l2" else change.max(axis=1)
            reached = (self.labels != rival) & (high < 999)
            nearest = np.where(reached, np.minimum(nearest, length), nearest)
        return nearest


@pytest.fixture(scope="session")
def linear() -> Linear:
    """All 1,000 images of the linear network."""
    weights, images, labels = control.linear()
    return Linear(np.ascontiguousarray(images), labels, weights)
