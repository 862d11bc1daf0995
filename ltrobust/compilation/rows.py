"""Compiles one program and says what its compiler says of it: memory, cycles, messages between devices."""

import collections
import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax

from ltrobust.compilation import arithmetic, hlo, topologies
from ltrobust.compilation.chips import GIB, Topology
from ltrobust.compilation.programs import Program, programs
from ltrobust.compilation.record import CALL, Collectives, Compilation, Row, Unpriced
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
Group = TypeVar("Group", Collectives, Unpriced)


def make_record(plan: RunPlan, topology: Topology, commit: str, rows: Sequence[Row] = ()) -> Compilation:
    """The rows with what they depend on.

    Args:
      plan: of the run.
      topology: what was compiled for.
      commit: of the code that the programs are from.
      rows: of programs that are compiled.
    """
    compiler, protocol = topologies.compiler_version(topology.chip), plan.evaluation.protocol.name
    return Compilation(jax.__version__, compiler, commit, topology.name, protocol, plan.recorded, tuple(rows))


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
    row = Row(program.name, program.attacks, program.unit, topology.size, program.images, program.image_shape)
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
        collectives=_grouped(Collectives, text.collectives()),
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
        unpriced=_grouped(Unpriced, _worth_a_line(text.unpriced())),
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


def _grouped(group: type[Group], found: Sequence[Any]) -> tuple[Group, ...]:
    """Instructions that are alike, with how many there are and the sum of their bytes; the largest sum first."""
    keys = [field.name for field in dataclasses.fields(group) if field.name not in ("count", "bytes")]
    counts, sums = collections.Counter(), collections.Counter()
    for one in found:
        kind = tuple(getattr(one, key) for key in keys)
        counts[kind] += 1
        sums[kind] += one.bytes
    return tuple(
        group(**dict(zip(keys, kind, strict=True)), count=counts[kind], bytes=size) for kind, size in sums.most_common()
    )


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
