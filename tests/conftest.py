"""Test-wide settings: strict dtype promotion, and where the optional real data lie."""

import pathlib

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared_data() -> pathlib.Path:
    """Folder with real CIFAR-10 (`tfds`) and Tiny-ImageNet (`data`); skips with a reason where absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data sets in {SHARED}")
    return SHARED
