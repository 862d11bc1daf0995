"""Runs one attack on one batch of images; the attack functions of `ltrobust.attacks` share it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.attacks import ball, inputs
from ltrobust.attacks import search as searches
from ltrobust.attacks.inputs import Ids, Images, Key, Labels
from ltrobust.attacks.search import LogitsFn, Search
from ltrobust.threat import Threat


def find(
    build: Callable[[Threat, int, tuple[int, ...]], tuple[Search, dict[str, Any]]],
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    threat: Threat,
    key: Key,
    ids: Ids | None,
) -> jax.Array:
    """Adversarial images of a batch, by the search that `build(threat, K, image shape)` returns with its settings."""
    if not isinstance(threat, Threat):
        raise ValueError(f"threat is {threat!r}; give a Threat, such as ltrobust.Threat('linf', 8) for linf 8/255.")
    images, labels = (one if isinstance(one, jax.Array) else np.asarray(one) for one in (images, labels))
    ball.check_shape(images.shape)
    if len(images) == 0:
        raise ValueError("there are 0 images; give at least 1.")
    num_classes = inputs.count_classes(logits_fn, images.shape[1:])
    inputs.check_labels(labels, len(images), num_classes)
    search, settings = build(threat, num_classes, images.shape[1:])
    lanes = searches.run(
        search,
        # In float32, as in an evaluation: losses and margins of bfloat16 logits would often tie.
        lambda points: logits_fn(points).astype(jnp.float32),
        images,
        labels,
        searches.keys_of(inputs.root_of(key), inputs.ids_of(ids, len(images))),
        settings=settings,
        threat=threat,
    )
    return jax.lax.stop_gradient(lanes.state.candidate)
