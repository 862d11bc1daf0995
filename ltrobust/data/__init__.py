"""Data sets: reading, long-tailed splits, batches and augmentation.

`load` returns training, validation and test data as `Dataset`s; `to_unit` converts uint8 pixels to float32 in [0,1].
The names are imported on first use, because reading data does not need JAX.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltrobust.data.batches import to_unit
    from ltrobust.data.dataset import Dataset, load

__all__ = ["Dataset", "load", "to_unit"]


def __getattr__(name: str) -> Any:
    """The public names, imported on demand."""
    if name in ("Dataset", "load"):
        from ltrobust.data import dataset

        return getattr(dataset, name)
    if name == "to_unit":
        from ltrobust.data.batches import to_unit

        return to_unit
    raise AttributeError(f"module 'ltrobust.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted(__all__)
