"""Compiles one program and says what its compiler says of it: memory, cycles, messages between devices."""

import collections
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from ltrobust.compilation import arithmetic, hlo, topologies
from ltrobust.compilation.chips import GIB, Topology
from ltrobust.compilation.programs import CALL, Program, programs
from ltrobust.plan import RunPlan
from ltrobust.training import devices

# Below so many bytes an instruction without an estimate is not worth a line.
_SMALL = 1024
# XLA for TPUs refuses a program that does not fit, in one of two forms.
_USED = (
    re.compile(r"required for HLO temporaries \(([\d.]+)([KMG]?)\) exceeds available HBM \(([\d.]+)([KMG]?)\)"),
    re.compile(r"Used ([\d.]+)([KMG]?) of ([\d.]+)([KMG]?) hbm"),
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclasses.dataclass(frozen=True)
class Row:
    """Data of one program for one topology. Unknown numbers are None.

    Attributes:
      program, attacks, unit: as in `programs.Program`.
      topology: such as `v5e:2x4`.
      chips: how many.
      images: at a time, on all chips.
      problem: why the program does not compile or does not fit; empty where it does.
      compile_seconds, cpu_seconds: of tracing and compiling, by the wall clock and of this process.
      memory: bytes on one chip, at most at a time.
      cycles: estimated by the compiler for one unit, on one chip, without what is `unpriced`.
      seconds: the same at the chip's rate.
      flops: of one unit on one chip, by arithmetic.
      share_of_peak: flops over what the chip could do in these seconds.
      collectives: entries with kind, depth (in how many loops), count and bytes (that one chip gives).
      unpriced: where there are estimates, instructions without one: kind, operation, bytes, depth and count.
      float64: whether anything is computed in it.
    """

    program: str
    attacks: tuple[str, ...]
    unit: str
    topology: str
    chips: int
    images: int
    problem: str = ""
    compile_seconds: float | None = None
    cpu_seconds: float | None = None
    memory: int | None = None
    cycles: int | None = None
    seconds: float | None = None
    flops: int | None = None
    share_of_peak: float | None = None
    collectives: tuple[dict[str, Any], ...] = ()
    unpriced: tuple[dict[str, Any], ...] = ()
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
        return max((entry["depth"] for entry in self.collectives), default=0)


def programs_for(plan: RunPlan, topology: Topology, only: str = "") -> Iterator[Program]:
    """The programs of a run on a topology, with the memory that JAX takes there; see `programs`.

    Raises:
      ValueError: the compiler is missing or of another version.
    """
    mesh = devices.make_mesh(topologies.make_devices(topology))
    yield from programs(plan, mesh, only, topology.chip.usable)


def compile_rows(plan: RunPlan, topology: Topology, only: str = "") -> Iterator[Row]:
    """Compiles the programs of a run one after the other; arguments and errors are those of `programs_for`."""
    for program in programs_for(plan, topology, only):
        yield compile_row(program, topology)


def compile_row(program: Program, topology: Topology) -> Row:
    """Traces and compiles a program. One that does not compile, or does not fit, has a `problem`.

    Args:
      program: its mesh is of that topology.
      topology: what to compile for.
    """
    chip, began, worked = topology.chip, time.perf_counter(), time.process_time()
    row = Row(program.name, program.attacks, program.unit, topology.name, topology.size, program.images)
    try:
        traced = program.trace()
        compiled = traced.lower().compile(compiler_options=topologies.compiler_options(chip) or None)
    except jax.errors.JaxRuntimeError as error:
        problem, memory = _problem(str(error), row, topology, program)
        return dataclasses.replace(row, problem=problem, memory=memory, **_spent(began, worked))
    text = hlo.Program(compiled.as_text())
    memory = _memory(compiled)
    count = arithmetic.count(traced.jaxpr)
    flops = (sum(count) if program.unit == CALL else count.each) // (1 if program.mapped else topology.size)
    result = dataclasses.replace(
        row,
        **_spent(began, worked),
        problem=_too_large(memory, chip.usable, row, program) if memory > chip.usable else "",
        memory=memory,
        flops=flops,
        collectives=tuple(_grouped(text.collectives(), "bytes", "kind", "depth")),
        float64=text.float64,
    )
    if not chip.gigahertz:
        return result
    cycles = text.cycles()
    estimated = cycles.once + cycles.each if program.unit == CALL else cycles.each
    seconds = estimated / (chip.gigahertz * 1e9)
    return dataclasses.replace(
        result,
        cycles=estimated,
        seconds=seconds,
        unpriced=tuple(_grouped(_worth_a_line(text.unpriced()), "bytes", "kind", "operation", "depth")),
        share_of_peak=flops / (seconds * chip.peak) if seconds else None,
    )


def _spent(began: float, worked: float) -> dict[str, float]:
    return {
        "compile_seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - worked, 1),
    }


def _memory(compiled: Any) -> int:
    """Bytes on one device, at most at a time."""
    parts = compiled.memory_analysis()
    held = parts.argument_size_in_bytes + parts.output_size_in_bytes - parts.alias_size_in_bytes
    peak = getattr(parts, "peak_memory_in_bytes", 0)
    return max(peak, held + parts.temp_size_in_bytes) + parts.generated_code_size_in_bytes


def _worth_a_line(found: Sequence[hlo.Unpriced]) -> list[hlo.Unpriced]:
    return [one for one in found if one.bytes >= _SMALL and one.kind.removesuffix("-start") not in hlo.COLLECTIVES]


def _grouped(found: Sequence[Any], total: str, *keys: str) -> list[dict[str, Any]]:
    """Entries with these keys, how many there are of each, and the sum of `total`; the largest first."""
    counts, sums = collections.Counter(), collections.Counter()
    for one in found:
        kind = tuple(getattr(one, key) for key in keys)
        counts[kind] += 1
        sums[kind] += getattr(one, total)
    entries = [dict(zip(keys, kind, strict=True)) | {"count": counts[kind], total: sums[kind]} for kind in counts]
    return sorted(entries, key=lambda entry: -entry[total])


def _problem(message: str, row: Row, topology: Topology, program: Program) -> tuple[str, int | None]:
    """Why a compiler refused a program, and the bytes that it would need, if it says so."""
    if used := next(filter(None, (form.search(message) for form in _USED)), None):
        need, have = (int(float(used[part]) * _UNITS[used[part + 1]]) for part in (1, 3))
        return _too_large(need, have, row, program), need
    first = message.strip().splitlines()[0]
    return f"{row.program} does not compile for {topology.name}: {first[:300]}", None


def _too_large(need: int, have: int, row: Row, program: Program) -> str:
    """By how much a program does not fit, and what would."""
    # Most of what a program holds grows with its images; what does not makes this too low rather than too high.
    fits = max(1, int(row.images * have / need) // row.chips) * row.chips
    # Evaluations count the images of each device, training those of all.
    value = fits // row.chips if program.batch_key == "eval.batch_size" else fits
    remedies = [f"{program.batch_key}={value} or less"] * (fits < row.images) + [*program.remedies, "more chips"]
    return (
        f"{row.program} does not fit: it needs {need / GIB:.2f} GiB on a chip where JAX may use {have / GIB:.2f}, "
        f"{(need - have) / GIB:.2f} too many. Use {', or '.join(remedies)}."
    )
