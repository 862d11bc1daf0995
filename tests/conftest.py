"""Test-wide settings: strict dtype promotion, eight CPU devices, one compile cache, and the optional real data."""

import os
import pathlib
import shutil
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

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the session's compile cache, once all workers are done."""
    cache = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if not hasattr(config, "workerinput") and cache.name.startswith("ltrobust-tests-"):
        shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture
def shared_data() -> pathlib.Path:
    """Folder with real CIFAR-10 (`tfds`) and Tiny-ImageNet (`data`). Absent: a skip with a reason, a failure in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("CI must have the real data sets; the folder is missing")
        pytest.skip("needs the real data sets: no folder `shared` beside the checkout")
    return SHARED
