"""The golden networks: two small trained networks, and what the public PyTorch attacks decided on each image."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.models.cpu.convolution import convolve

NAMES = ("cnn_a", "conv_small")
_PADDING = {"cnn_a": 1, "conv_small": 0}


def load(
    folder: pathlib.Path, name: str
) -> tuple[jax.Array, jax.Array, Callable[[jax.Array], jax.Array], dict[str, np.ndarray]]:
    """Images float32 [N,32,32,3], labels [N], the network's logits function, and the whole record.

    `folder` is the shared data; see its `golden/README.md` for the record's keys.
    """
    with np.load(folder / "golden" / f"{name}_4_255.npz") as file:
        record = dict(file)
    images = jnp.asarray(record["images"].astype(np.float32) / np.float32(255))
    return images, jnp.asarray(record["labels"].astype(np.int32)), network(record, name), record


def network(record: dict[str, np.ndarray], name: str, dtype: Any = jnp.float32) -> Callable[[jax.Array], jax.Array]:
    """The network of a record: images [B,32,32,3] -> logits [B,10], weights and every layer in `dtype`."""
    weights = {
        key.removeprefix("weight/"): jnp.asarray(record[key], dtype) for key in record if key.startswith("weight/")
    }
    mean, deviation, pad = jnp.asarray(record["mean"]), jnp.asarray(record["std"]), _PADDING[name]

    def logits(images: jax.Array) -> jax.Array:
        x = ((images - mean) / deviation).astype(dtype)
        for layer in ("0", "2"):
            kernel = weights[f"{layer}.weight"].transpose(2, 3, 1, 0)
            x = convolve(x, kernel, (2, 2), ((pad, pad), (pad, pad))) + weights[f"{layer}.bias"]
            x = jax.nn.relu(x)
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = jax.nn.relu(x @ weights["5.weight"].T + weights["5.bias"])
        return x @ weights["7.weight"].T + weights["7.bias"]

    return logits
