"""What the pages say of speed, from arithmetic (`floors.json`) and from what benchmarks have measured. No JAX."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools import summary

PAGE = "docs/results/speed.md"
SHORT, ALL = "speed", "measurements"  # the names of its markers
NOT_MEASURED = "not measured"
# Per chip: FLOP/s in bfloat16, bytes/s of memory, bytes/s that one chip gives to an all-reduce over all its links (the
# pod's all-reduce bandwidth over its chips), links. From Google's pages "TPU v4" and "TPU v5e".
CHIPS: dict[str, dict[str, float]] = {
    "TPU v4": {"flops": 275e12, "memory": 1200e9, "exchange": 1.1e15 / 4096, "links": 6},
    "TPU v5e": {"flops": 197e12, "memory": 819e9, "exchange": 51.2e12 / 256, "links": 4},
}
TITLES = {
    "train_step": "Training step",
    "profile_step": "Where the time of a step goes",
    "evaluate_pgd20": "Evaluation, PGD-20",
    "evaluate_standard": "Evaluation, `standard`",
    "evaluate_start": "Evaluation, `standard`, in fresh processes",
    "evaluate_compile": "Compilation of `standard`",
    "input": "Input",
    "scaling": "Several devices",
    "convolution": "Convolutions on the CPU",
    "precision": "bfloat16",
}


def all_reduce_seconds(size: float, devices: int, rate: float) -> float:
    """Least seconds of an all-reduce of `size` bytes: each device sends `2 (n - 1) / n` of them (ring)."""
    return 2 * (devices - 1) / devices * size / rate


def tables(root: Path) -> str:
    """All tables: arithmetic, then measurements."""
    floors, measured = json.loads((root / "benchmarks" / "results" / "floors.json").read_text()), _read(root)
    parts = [
        _equivalents(floors),
        _networks(floors),
        _floors(floors, measured),
        _scaling(floors, measured),
        _measured(measured),
    ]
    return "\n".join(parts)


def short(root: Path) -> str:
    """The first table: training steps and PGD against PyTorch in the same rounds; one row for each measurement.

    Of measurements that differ in the number of devices alone, the fastest.
    """
    rows, machines = [["what", "images/s", *_AGAINST, "compile, s: cold, cached"]], {}
    for name, one in _read(root).items():
        make = {"train_step": _steps, "evaluate_pgd20": _evaluations}.get(name.split("-")[0])
        if make:
            machines |= {_where(one): None}
            machine = one["machine"]
            where = "" if machine["backend"] == "cpu" else f"{machine['processor']}: "
            rows += [[where + row[0], *row[1:]] for row in make(one["rows"])]
    if len(rows) == 1:
        return f"Against PyTorch: {NOT_MEASURED}.\n"
    return f"{summary.markdown(rows)}\n{'; '.join(machines)}.\n"


_AGAINST = {"PyTorch as released": "torch released, float32", "PyTorch tuned": "torch tuned, {dtype}"}


def _steps(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Our training steps; of each case the number of devices that was the fastest."""
    cases: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["form"] == "ours":
            cases.setdefault((row["method"], row["network"], row["batch"], row["dtype"]), []).append(row)
    result = []
    for (method, network, batch, dtype), measured in cases.items():
        row = max(measured, key=lambda row: row["images_per_second"]["median"])
        ratios = [_ratio(row.get(f"speed over {other.format(dtype=dtype)}")) for other in _AGAINST.values()]
        kind = "" if dtype == "float32" else f", {dtype}"
        what = f"`{method}` step, {network}, batch {batch}{kind}, {row['devices']} device(s)"
        seconds = ", ".join(f"{row[key]:.0f}" for key in ("compile_cold", "compile_cached") if key in row)
        result.append([what, f"{row['images_per_second']['median']:,.4g}", *ratios, seconds])
    return result


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Our PGD-20; the plain loop in PyTorch has frozen parameters."""
    theirs = {row["network"]: row for row in rows if row["form"] == "torch"}
    return [
        [
            f"PGD-20, {row['network']}",
            f"{row['images_per_second']['median']:,.4g}",
            "",
            _ratio(theirs.get(row["network"], {}).get("times_ours")),
            "",
        ]
        for row in rows
        if row["form"] == "ours"
    ]


def _ratio(value: Mapping[str, float] | None) -> str:
    """`1.4x [1.3, 1.5]`."""
    return "" if value is None else "{median:.2f}x [{least:.2f}, {greatest:.2f}]".format(**value)


def _read(root: Path) -> dict[str, Any]:
    """Every committed measurement by its file's name; those of accelerators by device and part besides."""
    paths = {path.stem: path for path in sorted((root / "benchmarks" / "results").glob("*.json"))}
    for path in sorted((root / "results" / "accelerator").glob("*/speed/*/*.json")):
        if path.stem != "part":
            device, _, part, _ = path.relative_to(root / "results" / "accelerator").parts
            paths[f"{path.stem.split('-')[0]}-{device}-{part}"] = path
    return {name: json.loads(path.read_text()) for name, path in paths.items() if name != "floors"}


def _where(one: Mapping[str, Any]) -> str:
    """On what something was measured, with what, and when."""
    machine, software = one["machine"], one["software"]
    versions = ", ".join(f"{name} {software[name]}" for name in ("jax", "torch") if name in software)
    day, commit = one.get("created", "")[:10], software["commit"][:12]
    devices = f"{machine['devices']} {machine['backend']} device(s)"
    return f"{machine['processor']}, {machine['threads']} thread(s), {devices}; {versions}; {day}, commit {commit}"


def _equivalents(floors: Mapping[str, Any]) -> str:
    """Forward passes by method."""
    rows = [["method", f"forward passes for an image in a step, {floors['attack_steps']} attack steps"]]
    rows += [[name, str(number)] for name, number in floors["forward_equivalents"].items()]
    return "**Passes.**\n\n" + summary.markdown(rows)


def _networks(floors: Mapping[str, Any]) -> str:
    """Arithmetic of each network."""
    rows = [["network", "image", "parameters", "GFLOP forward", "GFLOP PGD-20", "GFLOP step", "MB step, float32"]]
    for name, one in floors["networks"].items():
        steps = " / ".join(f"{value / 1e9:.4g}" for value in one["step_flops"].values())
        sizes = " / ".join(f"{value['float32'] / 1e6:.4g}" for value in one["step_bytes"].values())
        forward, pgd20 = one["forward_flops"] / 1e9, one["pgd20_flops"] / 1e9
        image = "x".join(map(str, one["image"]))
        rows.append([name, image, f"{one['parameters']:,}", f"{forward:.4g}", f"{pgd20:.4g}", steps, sizes])
    methods = " / ".join(next(iter(floors["networks"].values()))["step_flops"])
    return f"**Work of one image.** Steps: {methods}; bytes at batch {floors['batch']}.\n\n" + summary.markdown(rows)


def _floors(floors: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Least milliseconds of a step on each chip, and what it took."""
    rows = [["network", "method", "chip", "arithmetic, ms", "memory, ms", "measured, ms"]]
    for name, one in floors["networks"].items():
        for method, work in one["step_flops"].items():
            for chip, has in CHIPS.items():
                compute = 1e3 * floors["batch"] * work / has["flops"]
                memory = 1e3 * floors["batch"] * one["step_bytes"][method]["bfloat16"] / has["memory"]
                result = _step_on(measured, chip, name, method)
                real = NOT_MEASURED if result is None else f"{1e3 * result:.4g}"
                rows.append([name, method, chip, f"{compute:.4g}", f"{memory:.4g}", real])
    title = f"**Floors of a training step**, batch {floors['batch']} on one chip, bfloat16, at the chip's peak:\n\n"
    return title + summary.markdown(rows)


def _scaling(floors: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The weak-scaling model: bytes over link speeds, against the arithmetic floor and against a measured step."""
    rows = [
        [
            "network",
            "chip",
            "chips",
            "MB summed",
            "exchange, ms: all links",
            "one link",
            "efficiency at the arithmetic floor: all links",
            "one link",
            "with a measured step",
        ]
    ]
    for name in ("resnet18", "wrn_34_10"):
        one = floors["networks"][name]
        size = one["exchanged_bytes_a_step"]["at_bsl"]["synchronised"]
        for chip, has in CHIPS.items():
            compute = floors["batch"] * one["step_flops"]["at_bsl"] / has["flops"]
            for number in (8, 64, 256):
                times = [all_reduce_seconds(size, number, has["exchange"] / links) for links in (1, has["links"])]
                shares = [f"{compute / (compute + seconds):.3f}" for seconds in times]
                result = _step_on(measured, chip, name, "at_bsl")
                real = NOT_MEASURED if result is None else f"{result / (result + times[0]):.3f}"
                milliseconds = [f"{1e3 * seconds:.3g}" for seconds in times]
                rows.append([name, chip, str(number), f"{size / 1e6:.4g}", *milliseconds, *shares, real])
    title = (
        f"**Weak scaling, a model**: AT-BSL, batch {floors['batch']} on each chip, nothing hidden behind computing.\n\n"
    )
    return title + summary.markdown(rows)


def _step_on(measured: Mapping[str, Any], chip: str, network: str, method: str) -> float | None:
    """Median seconds of our bfloat16 step at batch 128 on such a chip, where somebody has measured it."""
    for name, one in measured.items():
        if name.startswith("train_step-") and one["machine"]["processor"] == chip:
            for row in one["rows"]:
                result = tuple(row[key] for key in ("network", "method", "form", "dtype", "batch"))
                if result == (network, method, "ours", "bfloat16", 128):
                    return row["seconds_a_step"]["median"]
    return None


def _measured(measured: Mapping[str, Any]) -> str:
    """One table for each file of measurements; a line that says so for each benchmark without one."""
    parts = []
    for benchmark, title in TITLES.items():
        files = [one for name, one in measured.items() if name.split("-")[0] == benchmark]
        for one in files:
            parts.append(f"**{title}**: {_where(one)}.\n\n{plain(one['rows'])}")
        if not files:
            parts.append(f"**{title}**: {NOT_MEASURED}.\n")
    return "\n".join(parts)


def plain(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of a benchmark's rows: numbers with four digits, spreads as `median [least, greatest]`."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    names.sort(key=lambda name: not any(isinstance(row.get(name), str) for row in rows))  # what, then how much
    # Committed files of benchmarks/input.py say `resident` of what is on the device.
    titles = [name.replace("_", " ").replace("resident", "on-device") for name in names]
    return summary.markdown([titles, *([_cell(row.get(name)) for name in names] for row in rows)])


def _cell(value: Any) -> str:
    """One cell's text."""
    if isinstance(value, Mapping):
        return "{median:.4g} [{least:.4g}, {greatest:.4g}]".format(**value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else f"{value:,}" if type(value) is int else str(value)


def main(root: Path) -> None:
    """Rewrites the tables of docs/results/speed.md under `root`."""
    page = root / PAGE
    for marker, block in ((SHORT, short), (ALL, tables)):
        summary.rewrite(page, block(root), marker)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
