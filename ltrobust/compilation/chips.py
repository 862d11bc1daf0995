"""Accelerators for which programs can be compiled without having one, with their data."""

import dataclasses
import math

from ltrobust.runtime.names import nearest

GIB = 1 << 30
# Shapes of slices that Google rents, in chips along each axis.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_NODES = tuple(str(count) for count in (1, 2, 4, 8))


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: as in topologies, such as `v5e`.
      platform: JAX's name of its compiler.
      memory: bytes.
      peak: multiplications and additions in bfloat16 a second, each counted; the maker's number.
      gigahertz: of the cycles in which its compiler estimates; 0 where the compiler estimates nothing.
      shapes: of the topologies that exist.
    """

    name: str
    platform: str
    memory: int
    peak: float
    gigahertz: float
    shapes: tuple[str, ...]

    @property
    def usable(self) -> int:
        """Bytes that JAX takes by default, which a run sees as the device's memory."""
        return self.memory * 3 // 4 if self.platform == "cuda" else self.memory


# Cycles: the compilers' models do 131,072 (v5e), 262,144 (v4, v5p) and 524,288 (v6e) operations in a cycle at best,
# which are the peaks below at these rates.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "tpu", 32 * GIB, 275e12, 1.05, _CUBES),
        Chip("v5e", "tpu", 16 * GIB, 197e12, 1.5, _FLAT),
        Chip("v5p", "tpu", 95 * GIB, 459e12, 1.75, _CUBES),
        Chip("v6e", "tpu", 32 * GIB, 918e12, 1.75, _FLAT),
        Chip("h100", "cuda", 84_942_979_072, 989e12, 0.0, _NODES),
        Chip("h200", "cuda", 150_754_820_096, 989e12, 0.0, _NODES),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of chips of one kind, and their arrangement."""

    chip: Chip
    shape: str

    @property
    def name(self) -> str:
        """As it is given on the command line, such as `v5e:2x4`."""
        return f"{self.chip.name}:{self.shape}"

    @property
    def size(self) -> int:
        """How many chips there are."""
        return math.prod(int(side) for side in self.shape.split("x"))


def parse(name: str) -> Topology:
    """The topology of that name.

    Raises:
      ValueError: unknown chip or shape; lists the known ones.
    """
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None or shape not in chip.shapes:
        known = "; ".join(f"{one.name}:{', '.join(one.shapes)}" for one in CHIPS.values())
        raise ValueError(f"--topology is {name!r}; {nearest(kind, CHIPS)}known topologies, CHIP:SHAPE: {known}.")
    return Topology(chip, shape)
