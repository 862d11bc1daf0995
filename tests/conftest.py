"""Test-wide settings: strict dtype promotion, eight CPU devices, one compile cache, and the optional real data.

Property-based tests say at the end how many inputs they tried; `--hypothesis-profile=thorough` tries many more.
"""

import functools
import os
import pathlib
import shutil
import sys
import tempfile

import hypothesis
import pytest

# Compiled programs are shared by all tests of a session, its workers and the processes that they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ltrobust-tests-")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests that divide work over devices ask for a mesh of all of them; everything else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)

# The same inputs in every run, however long the first one compiles.
hypothesis.settings.register_profile("ltrobust", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ltrobust")
# By hand: other inputs in every run, and 10 times as many.
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)

# Last, so that no module of a benchmark hides another one.
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "benchmarks"))

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the session's compile cache, once all workers are done."""
    cache = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if not hasattr(config, "workerinput") and cache.name.startswith("ltrobust-tests-"):
        shutil.rmtree(cache, ignore_errors=True)


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
    found = {}
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if getattr(report, "when", "") == "call":
            tried = dict(report.user_properties).get("inputs tried")
            found |= {report.nodeid: tried[0]} if tried else {}
    if found:
        terminalreporter.section(f"{sum(found.values())} inputs tried by {len(found)} properties")
        for name, number in sorted(found.items()):
            terminalreporter.write_line(f"{number:7d}  {name}")


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Folder with real CIFAR-10 (`tfds`) and Tiny-ImageNet (`data`). Absent: a skip with a reason, a failure in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("CI must have the real data sets; the folder is missing")
        pytest.skip("needs the real data sets: no folder `shared` beside the checkout")
    return SHARED
