"""What compilers report of a run's programs: the one definition of its fields, in memory and in JSON. No JAX."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltrobust.runtime import typed_json
from ltrobust.runtime.files import write_json
from ltrobust.runtime.typed_json import Count

# What a program does at a time.
STEP, PASS, CALL = "step", "pass", "call"


@dataclasses.dataclass(frozen=True)
class Collectives:
    """Collectives of one kind.

    Attributes:
      kind: such as `all-reduce`.
      depth: in how many loops they stand.
      count: how many there are.
      bytes: that one chip gives, to all of them together.
    """

    kind: str
    depth: Count
    count: Count
    bytes: Count


@dataclasses.dataclass(frozen=True)
class Unpriced:
    """Instructions of one kind and origin that the compiler does not estimate.

    Attributes:
      kind: such as `gather`.
      operation: where they come from in the traced program.
      depth: in how many loops they stand.
      count: how many there are.
      bytes: of their outputs together.
    """

    kind: str
    operation: str
    depth: Count
    count: Count
    bytes: Count


@dataclasses.dataclass(frozen=True)
class Row:
    """Data of one program for one topology. Unknown numbers are None.

    Attributes:
      program, attacks, unit, image_shape: as in `programs.Program`.
      chips: how many.
      images: at a time, on all chips.
      problem: why the program does not compile or does not fit; empty where it does.
      compile_seconds, cpu_seconds: of tracing and compiling, by the wall clock and of this process.
      memory: bytes on one chip, at most at a time.
      cycles: estimated by the compiler for one unit, on one chip, without what is `unpriced`.
      seconds: the same at the chip's rate.
      flops: of one unit on one chip, by arithmetic.
      share_of_peak: flops over what the chip could do in these seconds.
      collectives: what chips send to each other, the most bytes first.
      unpriced: where there are estimates, what has none, the most bytes first.
      float64: whether anything is computed in it.
    """

    program: str
    attacks: tuple[str, ...]
    unit: str
    chips: Count
    images: Count
    image_shape: tuple[Count, ...]
    problem: str = ""
    compile_seconds: float | None = None
    cpu_seconds: float | None = None
    memory: Count | None = None
    cycles: Count | None = None
    seconds: float | None = None
    flops: Count | None = None
    share_of_peak: float | None = None
    collectives: tuple[Collectives, ...] = ()
    unpriced: tuple[Unpriced, ...] = ()
    float64: bool = False

    @property
    def images_per_chip(self) -> float:
        """Images that one chip works on at a time."""
        return self.images / self.chips

    @property
    def images_per_second(self) -> float | None:
        """On all chips, by the compiler's estimate: trained images, or passes of images."""
        return self.images / self.seconds if self.seconds else None

    def depth(self) -> int:
        """In how many loops a collective stands, at most."""
        return max((one.depth for one in self.collectives), default=0)


@dataclasses.dataclass(frozen=True)
class Compilation:
    """The programs of one configuration for one topology, by one compiler and from one commit.

    Attributes:
      jax: its version.
      compiler: package and version, such as `libtpu 0.0.42.1`.
      commit: of the checkout, `+changes` if it was edited; see `cards.commit`.
      topology: such as `v5e:2x4`.
      protocol: of evaluation.
      config: the whole configuration.
      rows: one for each program.
    """

    jax: str
    compiler: str
    commit: str
    topology: str
    protocol: str
    config: Mapping[str, Any]
    rows: tuple[Row, ...] = ()


def write(path: Path, compilation: Compilation, *, new: bool = False) -> None:
    """Writes JSON, whole or not at all.

    Raises:
      FileExistsError: `new`, and the file exists.
    """
    write_json(path, typed_json.plain(compilation), new=new)


def read(path: Path) -> Compilation:
    """What `write` wrote.

    Raises:
      ValueError: the file is no such JSON; names the field.
    """
    try:
        return typed_json.parse(Compilation, json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path} is no record of `ltrobust compile`: {error}") from error
