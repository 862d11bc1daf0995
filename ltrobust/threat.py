"""The threat model: how far a perturbation may go. The one place where `k/255` is divided."""

import dataclasses
import math

from ltrobust.runtime.names import nearest

NORMS = ("linf", "l2")
# Radii below these, in 1/255, are what one writes who means pixel units: 8/255 and 0.3 for linf, 0.5 and 3 for l2.
_LEAST = {"linf": 0.5, "l2": 5.0}


@dataclasses.dataclass(frozen=True)
class Threat:
    """A ball of radius `radius/255` around each image, cut to the pixel bounds.

    `radius` is in units of 1/255 (8 means 8/255, which is 0.03137..., not 0.031). For `linf` it bounds
    every pixel's change, for `l2` the Euclidean length of the whole change. Most other libraries take pixel units
    (8/255): `Threat.in_pixels` does.

    Raises:
      ValueError: unknown norm; a radius or a bound that is no number; a radius that is negative or not finite; one
        above 0 that is only plausible in pixel units, below 0.5 for `linf` and 5 for `l2` (`Threat.in_255ths` takes
        it); or one for `linf` that is more than the range of pixels.
    """

    norm: str = "linf"
    radius: float = 8
    lower: float = 0.0
    upper: float = 1.0
    any_radius: dataclasses.InitVar[bool] = False  # whether a radius as small as a mistaken unit is meant

    @classmethod
    def in_255ths(cls, norm: str, radius: float) -> "Threat":
        """A radius in 1/255, however small: `Threat.in_255ths("linf", 8)`."""
        return cls(norm, radius, any_radius=True)

    @classmethod
    def in_pixels(cls, norm: str, epsilon: float) -> "Threat":
        """A radius in pixel units, for pixels in [0,1]: `Threat.in_pixels("linf", 8 / 255)`."""
        if not _is_number(epsilon):
            raise ValueError(f"threat epsilon is {epsilon!r}; it must be a number, in pixel units.")
        # Rounded, so that 8/255 is exactly 8.
        return cls(norm, round(255 * epsilon, 9), any_radius=True)

    def __post_init__(self, any_radius: bool) -> None:
        if self.norm not in NORMS:
            raise ValueError(
                f"threat norm is {self.norm!r}; {nearest(self.norm, NORMS)}known norms: {', '.join(NORMS)}."
            )
        if not (_is_number(self.radius) and math.isfinite(self.radius) and self.radius >= 0):
            raise ValueError(f"threat radius is {self.radius!r}/255; it must be finite and at least 0.")
        if 0 < self.radius < _LEAST[self.norm] and not any_radius:
            raise ValueError(
                f"threat radius is {self.radius:.6g}, in units of 1/255: next to no change. If pixel units are meant, "
                f"give {255 * self.radius:.4g} or Threat.in_pixels({self.norm!r}, {self.radius:.6g}); else "
                f"Threat.in_255ths({self.norm!r}, {self.radius:.6g})."
            )
        for name, bound in (("lower", self.lower), ("upper", self.upper)):
            if not _is_number(bound):
                raise ValueError(f"threat {name} is {bound!r}; it must be a number.")
        if not self.lower < self.upper:
            raise ValueError(f"pixel bounds are [{self.lower}, {self.upper}]; the lower must be smaller.")
        if self.norm == "linf" and self.epsilon > self.upper - self.lower:
            raise ValueError(
                f"threat radius is {self.radius:g}/255 = {self.epsilon:.4g} in pixel units, more than the whole range "
                f"[{self.lower}, {self.upper}]; give at most {255 * (self.upper - self.lower):g}/255."
            )

    @property
    def epsilon(self) -> float:
        """The radius in pixel units, `radius / 255`."""
        return pixels(self.radius)

    def __str__(self) -> str:
        return f"{self.norm} {self.radius:g}/255"


def _is_number(value: object) -> bool:
    """Whether a value is one number, of Python's or NumPy's; truth values are none."""
    return not isinstance(value, bool) and hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0


def pixels(in_255ths: float) -> float:
    """A length given in 1/255 units, in pixel units: `in_255ths / 255`."""
    return in_255ths / 255
