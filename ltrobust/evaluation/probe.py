"""A network's answers by which a store recognises it: `identity.py` compares them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.data.batches import chunks
from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.runtime import processes

IMAGES = 8  # the first ones
_DIRECTIONS = 8


def take(driver: Driver, subject: Subject, logits: np.ndarray) -> dict[str, Any]:
    """Logits of the first images, and projections of input gradients there, of the network that attacks search with.

    A gradient is that of a fixed random combination of the logits, which no saturated loss can hide: two networks with
    equal logits and other gradients, such as a quantised input with and without a straight-through estimator, differ.

    Args:
      driver: of the evaluation.
      subject: the network and its images.
      logits: [N, K] of all clean images.

    Returns:
      Lists of floats: `logits` [n, K], `gradients` [n, 8] (projections on fixed random directions) and
      `gradient_norms` [n], Euclidean.
    """
    number = min(IMAGES, len(subject.labels))
    # A fixed seed: every start must ask the network the same questions.
    generator = np.random.RandomState(0)
    weights = generator.randn(logits.shape[1]).astype(np.float32)
    directions = generator.randn(_DIRECTIONS, *subject.images.shape[1:]).astype(np.float32)

    @jax.jit
    def project(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        gradients = jax.grad(lambda points: jnp.sum(driver.apply(variables, points) * weights))(images)
        return jnp.einsum("bhwc,dhwc->bd", gradients, directions), jnp.sqrt(jnp.sum(gradients**2, axis=(1, 2, 3)))

    parts = []
    for rows, valid in chunks(np.arange(number), driver.smallest_batch):
        result = processes.fetch(project(subject.variables, driver.place(subject.gather(rows))))
        parts.append([np.asarray(each[:valid], float) for each in result])
    projections, norms = (np.concatenate(each) for each in zip(*parts, strict=True))
    return {
        "logits": np.asarray(logits[:number], float).tolist(),
        "gradients": projections.tolist(),
        "gradient_norms": norms.tolist(),
    }
