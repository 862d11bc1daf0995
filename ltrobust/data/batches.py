"""Batches: order of examples, padding, conversion of pixels to [0,1], and placement on devices."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ltrobust.runtime.names import nearest

REMAINDERS = ("drop", "carry")

# A table, because compilers may turn x / 255 into x * (1 / 255), which differs in the last bit.
_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OnDevice:
    """Images and labels on the devices: a complete data set on each, or each one's share of the batches of some steps.

    Attributes:
      pixels: uint8 [N, H*W*C]. As [N,H,W,C] a TPU pads the channels, so that every dispatch would copy all images into
        four times the memory.
      labels: int32 [N].
      image_shape: H, W and C.
    """

    pixels: Any
    labels: Any
    image_shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, images: Any, labels: Any) -> "OnDevice":
        """Images [N,H,W,C] and labels [N], NumPy's or JAX's."""
        return cls(images.reshape(len(images), -1), labels, tuple(images.shape[1:]))

    def images(self, rows: Any) -> Any:
        """The images at `rows` [B], uint8 [B,H,W,C]."""
        return self.pixels[rows].reshape(-1, *self.image_shape)


def to_unit(images: Any, *, gather: bool = True) -> Any:
    """Converts uint8 pixels to float32 in [0,1], `pixel / 255`, bit-identical on the host and in compiled code.

    Args:
      images: uint8 array of any shape, NumPy or JAX.
      gather: in compiled code, look pixels up in a table; False computes the same bits without indexing (`augment`).

    Returns:
      float32 array of the same shape, NumPy for NumPy and JAX for JAX.

    Raises:
      ValueError: not uint8.

    Example:
      >>> import numpy as np
      >>> to_unit(np.array([0, 51, 255], np.uint8))
      array([0. , 0.2, 1. ], dtype=float32)
    """
    if images.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, got {images.dtype}.")
    if isinstance(images, np.ndarray):
        return _UNIT[images]
    pixels = images.astype(jnp.int32)
    if gather:
        return jnp.asarray(_UNIT)[pixels]
    # The first term is x / 255 cut off after 24 bits and the second one is the rest, so that the sum rounds once, as
    # the division does. Fused multiply-adds give the same bits inside of this sum; the barrier keeps others out of it.
    head = (pixels * 0x010101).astype(jnp.float32) * np.float32(2**-24)
    return jax.lax.optimization_barrier(head + pixels.astype(jnp.float32) * np.float32(2**-24 / 255))


class Schedule(NamedTuple):
    """Division of epochs into steps.

    `drop`: every epoch has its own permutation, its last partial batch is dropped (`examples // batch_size` steps).
    `carry`: batches are cut from the concatenation of the epochs' permutations, so none is partial; an epoch is then
    `floor((e+1) N / B) - floor(e N / B)` steps long.
    """

    examples: int
    batch_size: int
    remainder: str = "drop"

    def first_step(self, epoch: int) -> int:
        """The first step of an epoch counted from 0; also the number of steps in `epoch` epochs."""
        if self.remainder == "drop":
            return epoch * (self.examples // self.batch_size)
        return epoch * self.examples // self.batch_size

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 0, that a step belongs to: the last one whose first step is not after it."""
        if self.remainder == "drop":
            return step // (self.examples // self.batch_size)
        return ((step + 1) * self.batch_size - 1) // self.examples


def make_schedule(examples: int, batch_size: int, remainder: str) -> Schedule:
    """A checked `Schedule`.

    Raises:
      ValueError: unknown remainder rule, or fewer examples than one batch.
    """
    if remainder not in REMAINDERS:
        raise ValueError(
            f"batch remainder is {remainder!r}; {nearest(remainder, REMAINDERS)}known rules: {', '.join(REMAINDERS)}."
        )
    if not 1 <= batch_size <= examples:
        raise ValueError(
            f"batch size is {batch_size}, but the phase trains on {examples} images; choose a size in [1, {examples}]."
        )
    return Schedule(examples, batch_size, remainder)


def order(
    schedule: Schedule, key: jax.Array, first: int, steps: int, examples_of: Callable[[int], np.ndarray]
) -> np.ndarray:
    """Rows of the on-device data for `steps` steps from `first` on, int32 [steps, B].

    Epoch e (from 0) visits `examples_of(e)`, a list of `schedule.examples` rows, in the permutation of
    `fold_in(key, e)`; so any chunk of steps of any run sees the same order.
    """
    size, examples = schedule.batch_size, schedule.examples
    step = np.arange(first, first + steps)
    if schedule.remainder == "drop":
        epoch, within = np.divmod(step, examples // size)
        epochs = np.repeat(epoch[:, None], size, axis=1)
        offsets = within[:, None] * size + np.arange(size)
    else:
        epochs, offsets = np.divmod(step[:, None] * size + np.arange(size), examples)
    rows = np.empty((steps, size), np.int32)
    for epoch in np.unique(epochs):
        # Addressed by the epoch: a resumed run, or a run that is cut into other chunks of steps, sees the same batches.
        permutation = np.asarray(jax.random.permutation(jax.random.fold_in(key, int(epoch)), examples))
        here = epochs == epoch
        rows[here] = examples_of(int(epoch))[permutation[offsets[here]]]
    return rows


def example_keys(key: jax.Array, step: Any, positions: Any) -> jax.Array:
    """Two keys for each example of a step, [B, 2]: the first for augmentation, the second for the attack.

    They are addressed by step and position in the whole batch, so that a resumed run draws the same on any number of
    devices.

    Args:
      key: of the phase.
      step: int32 scalar.
      positions: int32 [B], in the whole batch.
    """
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(lambda position: jax.random.split(jax.random.fold_in(step_key, position)))(positions)


class Chunk(NamedTuple):
    """A batch padded to full size. `rows` are positions in the source arrays; only the first `valid` count."""

    rows: np.ndarray
    valid: int


def chunks(rows: np.ndarray, batch_size: int) -> Iterator[Chunk]:
    """Full-size batches over `rows` in order; the last is padded by repeating its first row, and masked by `valid`."""
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        # A real image rather than zeros: it cannot cause NaN, and one compiled program serves every batch.
        padded = np.concatenate([part, np.full(batch_size - len(part), part[0], part.dtype)])
        yield Chunk(padded, len(part))
