"""Which images exist, in which order, in which batch, under which augmentation.

`load` gives training, validation and test data as `Dataset`s; `to_unit` makes float32 pixels in [0,1] of uint8 ones.
All three are imported when they are first used: not every reader of data needs JAX.
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
