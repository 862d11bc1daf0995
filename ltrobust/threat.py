"""The threat model: norm, radius and pixel bounds of a perturbation. Radii are divided by 255 here and nowhere else."""

import dataclasses
import math

from ltrobust.runtime.names import nearest

NORMS = ("linf", "l2")
# Smaller radii, in 1/255, are probably meant in pixel units: 8/255 and 0.3 for linf, 0.5 and 3 for l2.
_LEAST = {"linf": 0.5, "l2": 5.0}


@dataclasses.dataclass(frozen=True)
class Threat:
    """A ball of radius `radius/255` around each image, cut to the pixel bounds.

    Most other libraries give radii in pixel units, such as 8/255; for those use `Threat.in_pixels`.

    Attributes:
      norm: `linf` bounds the change of every pixel, `l2` the Euclidean length of the whole change.
      radius: in units of 1/255: 8 means 8/255 = 0.03137..., not 0.031.
      lower: smallest pixel value.
      upper: largest pixel value.
      any_radius: accept a radius so small that pixel units were probably meant.

    Raises:
      ValueError: unknown norm; a radius or bound that is not a number; a negative or infinite radius; a radius above 0
        but below 0.5 (`linf`) or 5 (`l2`), unless `any_radius`; or a `linf` radius above the range of pixels.

    Example:
      >>> from ltrobust import Threat
      >>> Threat("linf", 8).epsilon
      0.03137254901960784
      >>> Threat.in_pixels("linf", 8 / 255) == Threat("linf", 8)
      True
    """

    norm: str = "linf"
    radius: float = 8
    lower: float = 0.0
    upper: float = 1.0
    any_radius: dataclasses.InitVar[bool] = False

    @classmethod
    def in_255ths(cls, norm: str, radius: float) -> "Threat":
        """Creates a threat with a `radius` in 1/255 of any size, as in `Threat.in_255ths("linf", 0.1)`."""
        return cls(norm, radius, any_radius=True)

    @classmethod
    def in_pixels(cls, norm: str, epsilon: float) -> "Threat":
        """Creates a threat with radius `epsilon` in pixel units, as in `Threat.in_pixels("linf", 8 / 255)`."""
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
    """Whether a value is a single Python or NumPy number; booleans are not."""
    return not isinstance(value, bool) and hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0


def pixels(in_255ths: float) -> float:
    """Converts a length from 1/255 to pixel units."""
    return in_255ths / 255
