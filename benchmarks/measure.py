"""What the benchmarks share: interleaved timing, a measured peak, compile times, memory, one table and one JSON.

Machines drift: their clocks change, and others use them. So everything that is to be compared is timed in turn, round
after round, and a number is the median of its rounds. The peak that a share refers to is a matrix product, timed in
the same rounds on the same threads.
"""

import argparse
import contextlib
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

from ltrobust.analysis import cards  # noqa: E402
from ltrobust.runtime.files import write_json  # noqa: E402
from tools import speed  # noqa: E402

PEAK = "matrix product"
# How it is computed: the type of arrays, and what JAX makes of products of float32. Processors without TensorFloat-32
# compute `tf32` as `float32`.
PRECISIONS = {
    "float32": ("float32", "highest"),
    "tf32": ("float32", "tensorfloat32"),
    "bfloat16": ("bfloat16", "default"),
}


def parser(document: str | None) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    result = argparse.ArgumentParser(description=(document or "").split("\n")[0])
    result.add_argument("--machine", default="", help="label in the file's name; default: processor and threads")
    result.add_argument("--threads", type=int, default=0, help="cores that this process may use; 0: all that it has")
    result.add_argument("--repeats", type=int, default=5, help="rounds of the interleaved timing")
    result.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the JSON")
    result.add_argument("--overwrite", action="store_true", help="whether an older file of the same name is replaced")
    return result


def begin(given: argparse.Namespace, name: str) -> Path:
    """Holds this process to its threads and returns the file that `finish` will write. Call it before JAX is used.

    Raises:
      SystemExit: there is such a file already and nobody said that it may be replaced; more threads than cores.
    """
    hold(given)
    label = given.machine or f"{processor()}-{given.threads}-threads"
    path = given.results / f"{name}-{re.sub(r'[^a-z0-9]+', '-', label.lower()).strip('-')}.json"
    if path.exists() and not given.overwrite:
        sys.exit(f"{path} exists; give another --machine, or --overwrite if it may be replaced.")
    return path


def hold(given: argparse.Namespace) -> None:
    """Holds this process to its threads: XLA and PyTorch both size their pools by the cores that they may use."""
    cores = sorted(os.sched_getaffinity(0))
    given.threads = given.threads or len(cores)
    if given.threads > len(cores):
        sys.exit(f"--threads is {given.threads}, but this process may use {len(cores)} cores; give at most that.")
    os.sched_setaffinity(0, cores[: given.threads])


def processor() -> str:
    """What computes here: the accelerator's name, else the processor's."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    with contextlib.suppress(OSError):
        result = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if result:
            return result[1].strip()
    return platform.processor() or platform.machine()


def interleave(subjects: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, subjects in turn in every round, the first one another each time. One call warms up."""
    names, times = list(subjects), {name: [] for name in subjects}
    for name in names:
        jax.block_until_ready(subjects[name]())
    for number in range(repeats):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.perf_counter()
            jax.block_until_ready(subjects[name]())
            times[name].append(time.perf_counter() - began)
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def matrix_product(dtype: str = "float32", side: int = 0) -> tuple[Callable[[], jax.Array], float]:
    """A square matrix product in a type of `PRECISIONS`, and its FLOPs; by default large enough for the device's peak.

    Of drawn numbers, because processors that save energy on constant ones clock higher.
    """
    side = side or (1024 if jax.default_backend() == "cpu" else 8192)
    kept, precision = PRECISIONS[dtype]
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.float32).astype(kept)
    multiply = jax.jit(lambda one, other: jnp.matmul(one, other, precision=precision))
    return lambda: multiply(square, square), 2.0 * side**3


@contextlib.contextmanager
def compile_cache() -> Iterator[None]:
    """An empty persistent compile cache that takes everything, in place of the usual one."""
    wanted = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": -1}
    with tempfile.TemporaryDirectory() as folder:
        wanted["jax_compilation_cache_dir"] = folder
        before = {name: getattr(jax.config, name) for name in wanted}
        _use_cache(wanted)
        try:
            yield
        finally:
            _use_cache(before)


def _use_cache(settings: Mapping[str, Any]) -> None:
    """Sets JAX's cache, which remembers its folder from the first compilation on."""
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled(lower: Callable[[], Any], *, again: bool = True) -> tuple[Any, dict[str, float]]:
    """The program of `lower() -> Lowered`, and seconds of tracing and compiling: cold, then `again` from the cache.

    Needs `compile_cache`. Forgets all compiled programs, so that the second time asks the disk.
    """
    seconds = {}
    for name in ("compile_cold", "compile_cached")[: 1 + again]:
        jax.clear_caches()
        began = time.perf_counter()
        program = lower().compile()
        seconds[name] = time.perf_counter() - began
    return program, seconds


def program_memory(program: Any) -> int:
    """Bytes that a compiled program holds on one device: arguments, results that are no arguments, and scratch."""
    sizes = program.memory_analysis()
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + results + sizes.temp_size_in_bytes


def process_memory(arguments: Sequence[str]) -> int:
    """Most bytes that this script, started alone with these arguments, holds in memory at once (Linux, CPU).

    Not `getrusage`, whose maximum a started process inherits from the one that starts it.
    """
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "print(next(1024 * int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    path = os.pathsep.join(filter(None, (str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.split()[-1])


def finish(path: Path, given: argparse.Namespace, rows: list[dict[str, Any]], **more: Any) -> None:
    """Prints the rows as one table and writes them, with what they were measured on, to the file of `begin`."""
    print(speed.plain(rows), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result(path.name.split("-")[0], given, rows, **more))
    print(f"written: {path.name}")


def result(benchmark: str, given: argparse.Namespace, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """What `finish` writes: the rows, and what they were measured on, when, with which flags."""
    settings = {name: value for name, value in vars(given).items() if not isinstance(value, Path)}
    return {
        "benchmark": benchmark,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor(),
            "backend": jax.default_backend(),
            "devices": jax.device_count(),
            "threads": given.threads,
        },
        "settings": {name: value for name, value in settings.items() if name not in ("overwrite", "results")},
        "software": cards.software() | _torch_version(),
        "rows": rows,
        **more,
    }


def _torch_version() -> dict[str, str]:
    """PyTorch's version, where it took part."""
    torch = sys.modules.get("torch")
    return {"torch": str(torch.__version__)} if torch else {}
