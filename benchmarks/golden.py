"""The golden networks: two small trained networks, and what the public PyTorch attacks decided on each image."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.data import sources
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


def first_images(folder: pathlib.Path, record: Mapping[str, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """The first test images of CIFAR-10, float32 [number,32,32,3] in [0,1], and their labels, int32 [number].

    Those of a record, or if it has fewer, of the data set in the folder `tfds` beside `golden`.

    Raises:
      ValueError: there are fewer; names how many there are. Or the data set begins with other images than the record.
    """
    images, labels, held = record["images"], record["labels"], len(record["labels"])
    if number > held:
        try:
            split = sources.load("cifar10", "test", data_dir=folder / "tfds")
        except FileNotFoundError as error:
            raise ValueError(f"{number} images are asked for; give at most {held}, or more data: {error}") from error
        images, labels = np.asarray(split.images), split.labels
        if number > len(labels):
            raise ValueError(
                f"{number} images are asked for, but {folder / 'tfds'} has {len(labels)}; give at most that."
            )
        if not np.array_equal(images[:held], record["images"]):
            raise ValueError(
                f"{folder / 'tfds'} begins with other test images than golden/; give at most {held} images."
            )
    return images[:number].astype(np.float32) / np.float32(255), labels[:number].astype(np.int32)


def closest(record: dict[str, np.ndarray], attack: str, number: int) -> np.ndarray:
    """Positions of right images that are nearest to the other verdict of an attack, by their clean margins, [number].

    Half of them are robust and have the smallest margins, the others are broken and have the largest.

    Raises:
      ValueError: an odd number, or too few images that are robust, or broken.
    """
    if number % 2:
        raise ValueError(f"{number} images have no halves; give an even number.")
    labels, ranked = record["labels"], np.sort(record["logits"], axis=1)
    right, robust = record["logits"].argmax(axis=1) == labels, record[f"robust_{attack}"]
    order = np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")
    halves = order[(right & robust)[order]], order[(right & ~robust)[order]][::-1]
    for half, verdict in zip(halves, ("robust", "broken"), strict=True):
        if len(half) < number // 2:
            raise ValueError(
                f"{number // 2} {verdict} images are needed, but {attack} leaves {len(half)}; give a lower number."
            )
    return np.sort(np.concatenate([half[: number // 2] for half in halves]))


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


def torch_module(record: dict[str, np.ndarray], name: str) -> Any:
    """The network of a record as a PyTorch module, which normalises its input itself."""
    import torch  # not needed elsewhere

    class Normalise(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for key in ("mean", "std"):
                self.register_buffer(key, torch.from_numpy(record[key].astype(np.float32)).reshape(1, 3, 1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images - self.mean) / self.std

    weights = {
        key.removeprefix("weight/"): torch.from_numpy(record[key]) for key in record if key.startswith("weight/")
    }
    (width, channels, side, _), (hidden, features) = weights["0.weight"].shape, weights["5.weight"].shape
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(channels, width, side, stride=2, padding=_PADDING[name]),
        torch.nn.ReLU(),
        torch.nn.Conv2d(width, len(weights["2.weight"]), side, stride=2, padding=_PADDING[name]),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(features, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, len(weights["7.weight"])),
    )
    layers.load_state_dict(weights)
    return torch.nn.Sequential(Normalise(), layers).eval()
