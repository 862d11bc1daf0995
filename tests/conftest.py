"""Test-wide settings: strict dtype promotion, eight CPU devices, and where the optional real data lie."""

import os
import pathlib

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tests that divide work over devices ask for a mesh of all of them; everything else runs on the first.
jax.config.update("jax_num_cpu_devices", 8)

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared_data() -> pathlib.Path:
    """Folder with real CIFAR-10 (`tfds`) and Tiny-ImageNet (`data`). Absent: a skip with a reason, a failure in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("CI must have the real data sets; the folder is missing")
        pytest.skip("needs the real data sets: no folder `shared` beside the checkout")
    return SHARED
