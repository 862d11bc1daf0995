"""Test-wide settings: strict dtype promotion, four CPU devices, one compile cache, and the optional real data.

Property-based tests say at the end how many inputs they tried; `--hypothesis-profile=thorough` tries many more.
"""

import contextlib
import functools
import gc
import itertools
import os
import pathlib
import sys
from collections.abc import Iterator

import hypothesis
import pytest

# Compiled programs are shared by all tests, workers and the processes that they start, and kept for the next session.
# A program's key holds its code and every option and version that it was compiled with.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "d" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compiling takes most of the time, and most programs run for milliseconds. Without optimisation and with XLA's older
# emitter compiling takes a quarter of the time. Tests marked `optimized` run long enough to pay for optimisation. The
# environment decides, so .ci/run repeats the tests marked `golden` with both settings as users have them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# One part to a program, because every worker has one core.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1")
# Where the TPU's compiler is installed (`tpu-compile`), JAX would look for a TPU in every process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

WITHOUT_OPTIMISATION = jax.config.read("jax_disable_most_optimizations")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests that divide work over devices ask for a mesh of them; everything else runs on the first.
jax.config.update("jax_num_cpu_devices", 4)

# The same inputs in every run, however long the first one compiles.
hypothesis.settings.register_profile("ltrobust", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ltrobust")
# By hand: other inputs in every run, and 10 times as many.
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPILED = ROOT / ".pytest_cache" / "d" / "compiled"
KEPT = 2_000_000_000  # bytes

# Last, so that no module of a benchmark hides another one.
sys.path.append(str(ROOT / "benchmarks"))

SHARED = ROOT.parent / "shared"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Deletes the oldest compiled programs, beyond `KEPT` bytes of them."""
    if hasattr(session.config, "workerinput") or not COMPILED.is_dir():
        return
    result = []
    for path in COMPILED.iterdir():
        # Another session of this checkout may delete files at the same time.
        with contextlib.suppress(FileNotFoundError):
            result.append((path.stat(), path))
    newest_first = sorted(result, key=lambda entry: -entry[0].st_mtime_ns)
    sizes = itertools.accumulate(stat.st_size for stat, _ in newest_first)
    for (_, path), size in zip(newest_first, sizes, strict=True):
        if size > KEPT:
            path.unlink(missing_ok=True)


# Fixtures that train or evaluate once for several tests.
WHOLE_RUNS = {"finished", "uninterrupted", "together", "whole", "sound", "mine", "earlier"}


def optimized(item: pytest.Item) -> bool:
    """Whether a test's programs are compiled with XLA's optimisation."""
    return any(item.get_closest_marker(name) for name in ("optimized", "golden"))


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that needs a whole run is slow, whichever of them comes first and waits for it; and so is one for `ci`.

    Optimised tests come first: clearing JAX's caches before them costs seconds, and later ones compile again.
    """
    for item in items:
        if WHOLE_RUNS & set(getattr(item, "fixturenames", ())) or item.get_closest_marker("ci"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not optimized(item))


def pytest_collection_finish() -> None:
    """Leaves what was imported and collected out of every later search for garbage, and searches seldom: a tenth less
    time, because tracing makes many small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Turns XLA's optimisation on for tests marked `optimized` or `golden` and their fixtures, and off for others."""
    disabled = WITHOUT_OPTIMISATION and not optimized(item)
    if disabled != jax.config.read("jax_disable_most_optimizations"):
        jax.config.update("jax_disable_most_optimizations", disabled)
        if not disabled:
            # JAX would continue using what an earlier test compiled without it.
            jax.clear_caches()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Counts the inputs that hypothesis gives to a test."""
    handle = getattr(getattr(item, "obj", None), "hypothesis", None)
    if handle is None:
        return
    inner, tried = handle.inner_test, [0]

    @functools.wraps(inner)
    def counted(*arguments, **named):
        tried[0] += 1
        return inner(*arguments, **named)

    handle.inner_test = counted
    item.user_properties.append(("inputs tried", tried))


def pytest_terminal_summary(terminalreporter) -> None:
    """How many inputs each property was tried on; the counts come with the reports, also from xdist's workers."""
    result = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", "") == "call":
            tried = dict(report.user_properties).get("inputs tried")
            result |= {report.nodeid: tried[0]} if tried else {}
    if result:
        terminalreporter.section(f"{sum(result.values())} inputs tried by {len(result)} properties")
        for name, number in sorted(result.items()):
            terminalreporter.write_line(f"{number:7d}  {name}")


@pytest.fixture(autouse=True, scope="session")
def one_device() -> Iterator[None]:
    """Whole runs take the first device; divided over four they last twice as long. Tests of meshes say which."""
    from ltrobust.training import devices

    real = devices.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "make_mesh", lambda given=None: real(jax.devices()[:1] if given is None else given))
        yield


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder with real CIFAR-10 (`tfds`) and Tiny-ImageNet (`data`). Absent: a skip with a reason, a failure in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("CI must have the real data sets; the folder is missing")
        pytest.skip("needs the real data sets: no folder `shared` beside the checkout")
    return SHARED
