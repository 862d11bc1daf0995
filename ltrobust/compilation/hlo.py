"""Reads the text of a compiled program (`compiled.as_text()`): collectives, cycles, loops, gathers."""

import dataclasses
import math
import re
from collections.abc import Iterator

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "reduce-scatter",
)
_HEADER = re.compile(r"(ENTRY )?(%\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%\S+) = (.+?) ([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(body|condition|calls|to_apply|branch_computations|true_computation|false_computation)="
    r"(?:\{([^}]*)\}|(%\S+?)(?=[,\s)]|$))"
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"\}')
_OPERATION = re.compile(r'op_name="([^"]*)"')
# The compiler writes about 2^63 where it has no estimate.
_NO_ESTIMATE = 1 << 62
# Instructions whose cost is always in their estimate or is none worth a line.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "partition-id", "replica-id"),
    *("while", "conditional", "call", "after-all", "copy-start", "copy-done", "copy", "opt-barrier", "broadcast"),
    *("slice-start", "slice-done", "async-start", "async-update", "async-done"),
}

# Custom calls that reserve memory or name a part of it.
_FREE_CALLS = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast|SliceBitcast)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction: its kind, how many loops it stands in, how many numbers and bytes a device gives."""

    kind: str
    depth: int
    numbers: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Cycles:
    """The compiler's estimate. `once`: outside of loops of unknown length; `each`: one round of those loops."""

    once: int
    each: int


@dataclasses.dataclass(frozen=True)
class Unpriced:
    """An instruction without an estimate: what it is, where it comes from, its output's bytes, its loops."""

    kind: str
    operation: str
    bytes: int
    depth: int


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line. `shape` is its output's, `called` has pairs of a role, such as `body`, and a computation."""

    name: str
    shape: str
    kind: str
    called: tuple[tuple[str, str], ...]
    line: str

    def role(self, *roles: str) -> list[str]:
        """Names of the computations that it calls in these roles."""
        return [name for role, name in self.called if role in roles]

    def operands(self) -> list[str]:
        """Names of the instructions of the same computation whose outputs it takes."""
        inside = self.line.partition(f" {self.kind}(")[2]
        return re.findall(r"%[^\s,()]+", re.split(r"\)(?:,|$)", inside)[0])


class Program:
    """A compiled program's text, parsed once.

    Loops are counted loops, whose length the text states, or loops of unknown length, such as that over training steps.
    """

    def __init__(self, text: str) -> None:
        self.computations = _parse(text)
        self.float64 = bool(re.search(r"\b[fc](64|128)\[", text))
        self._places = self._find_places()

    def collectives(self) -> list[Collective]:
        """All collectives. One in a computation that is called from several places counts once, at the deepest."""
        result = []
        for name, depth in self._places.items():
            shapes = {line.name: line.shape for line in self.computations[name]}
            for instruction in self.computations[name]:
                kind = instruction.kind.removesuffix("-start")
                if kind in COLLECTIVES:
                    # Its output may be larger than what a device gives, or have both where it is asynchronous.
                    given = " ".join(shapes[operand] for operand in instruction.operands())
                    result.append(Collective(kind, depth, *_size(given)))
        return result

    def cycles(self) -> Cycles:
        """Estimated cycles, counted loops multiplied by their length; of a conditional the dearest branch counts."""
        return Cycles(*self._cycles(""))

    def unpriced(self) -> list[Unpriced]:
        """Instructions that take time and have no estimate: gathers, sorts, custom calls and collectives."""
        result = []
        for instruction, depth in self._instructions():
            # What a fusion consists of is in the fusion's estimate.
            if instruction.kind in _FREE or instruction.kind.endswith("-done") or _FREE_CALLS.search(instruction.line):
                continue
            if _estimate(instruction) is not None:
                continue
            named = _OPERATION.search(instruction.line)
            kind = "gather" if "kind=kCustom" in instruction.line and self._gathers(instruction) else instruction.kind
            operation = named[1] if named else instruction.name
            result.append(Unpriced(kind, operation, _size(instruction.shape)[1], depth))
        return result

    def _gathers(self, fusion: Instruction) -> bool:
        inside = [line.kind for name in fusion.role("calls") for line in self.computations.get(name, ())]
        return "gather" in inside or "dynamic-gather" in inside

    def _instructions(self) -> Iterator[tuple[Instruction, int]]:
        """Every instruction that is executed by itself, and in how many loops."""
        for name, depth in self._places.items():
            for instruction in self.computations[name]:
                yield instruction, depth

    def _find_places(self) -> dict[str, int]:
        """Computation -> in how many loops it stands, at most; of those that are executed by themselves."""
        places = {"": 0}
        waiting = [""]
        while waiting:
            name = waiting.pop()
            for called, deeper in self._executed(name):
                depth = places[name] + deeper
                if called in self.computations and places.get(called, -1) < depth:
                    places[called] = depth
                    waiting.append(called)
        return places

    def _executed(self, name: str) -> Iterator[tuple[str, int]]:
        """Computations that one executes, each with 1 if it is in a loop that the computation starts, else 0."""
        for instruction in self.computations[name]:
            for role, called in instruction.called:
                if instruction.kind == "while":
                    yield called, 1
                elif role.endswith(("computations", "computation")) or instruction.kind in ("call", "async-start"):
                    yield called, 0

    def _cycles(self, name: str) -> tuple[int, int]:
        once, each = 0, 0
        for instruction in self.computations[name]:
            if instruction.kind == "while":
                trips = self._trips(instruction)
                inner = [self._cycles(called) for called in instruction.role("body")]
                for outside, inside in inner:
                    # A loop of unknown length inside of another one counts one round.
                    once, each = (
                        (once, each + outside + inside)
                        if trips is None
                        else (once + trips * outside, each + trips * inside)
                    )
            elif instruction.kind == "conditional":
                branches = [self._cycles(called) for _, called in instruction.called]
                dearest = max(branches, key=sum, default=(0, 0))
                once, each = once + dearest[0], each + dearest[1]
            elif instruction.kind in ("call", "async-start"):
                for called in instruction.role("calls", "to_apply"):
                    outside, inside = self._cycles(called)
                    once, each = once + outside, each + inside
            else:
                once += _estimate(instruction) or 0
        return once, each

    def _trips(self, loop: Instruction) -> int | None:
        """Number of rounds of a loop; None if the text does not give it."""
        if known := _TRIPS.search(loop.line):
            return int(known[1])
        # A loop that JAX counts from 0 compares its counter with a constant; there is no other end.
        for name in loop.role("condition"):
            lines = self.computations[name]
            last = lines[-1]
            if last.kind == "compare" and "direction=LT" in last.line:
                for line in lines:
                    if line.kind == "constant" and re.search(rf"{re.escape(line.name)}\b", last.line):
                        return int(re.search(r"constant\((-?\d+)\)", line.line)[1])  # pyright: ignore
        return None


def _parse(text: str) -> dict[str, list[Instruction]]:
    """Instructions of each computation by its name; the entry's has the empty name."""
    result: dict[str, list[Instruction]] = {}
    lines: list[Instruction] = []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            lines = result.setdefault("" if header[1] else header[2], [])
        elif matched := _INSTRUCTION.match(line):
            called = tuple(
                (role, name)
                for role, several, one in _CALLED.findall(line)
                for name in re.split(r",\s*", several or one)
            )
            lines.append(Instruction(matched[1], matched[2], matched[3], called, line))
    return result


def _estimate(instruction: Instruction) -> int | None:
    """The compiler's cycles, None where it has none."""
    result = _CYCLES.search(instruction.line)
    return int(result[1]) if result and int(result[1]) < _NO_ESTIMATE else None


def _size(shapes: str) -> tuple[int, int]:
    """Numbers and bytes of an HLO shape or tuple of shapes."""
    numbers, size = 0, 0
    for kind, bits, sides in _ARRAY.findall(shapes):
        count = math.prod(int(side) for side in sides.split(",") if side)
        numbers += count
        size += count * (1 if kind == "pred" else int(bits) // 8)
    return numbers, size
