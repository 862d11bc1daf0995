"""The threat model: how far a perturbation may go. The one place where `k/255` is divided."""

import dataclasses
import math

NORMS = ("linf", "l2")


@dataclasses.dataclass(frozen=True)
class Threat:
    """A ball of radius `radius/255` around each image, cut to the pixel bounds.

    `radius` is in units of 1/255 (8 means 8/255, which is 0.03137..., not 0.031). For `linf` it bounds
    every pixel's change, for `l2` the Euclidean length of the whole change.

    Raises:
      ValueError: unknown norm, or a radius that is negative or not finite.
    """

    norm: str = "linf"
    radius: float = 8
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"threat norm is {self.norm!r}; known norms: {', '.join(NORMS)}.")
        if not (math.isfinite(self.radius) and self.radius >= 0):
            raise ValueError(f"threat radius is {self.radius!r}/255; it must be finite and at least 0.")
        if not self.lower < self.upper:
            raise ValueError(f"pixel bounds are [{self.lower}, {self.upper}]; the lower must be smaller.")

    @property
    def epsilon(self) -> float:
        """The radius in pixel units, `radius / 255`."""
        return pixels(self.radius)

    def __str__(self) -> str:
        return f"{self.norm} {self.radius:g}/255"


def pixels(in_255ths: float) -> float:
    """A length given in 1/255 units, in pixel units: `in_255ths / 255`."""
    return in_255ths / 255
