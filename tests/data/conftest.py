"""One folder for the images that tests decode from real data."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """`cache_dir` for real CIFAR-10: 60,000 images are decoded once, for all workers of this session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "decoded"
    folder.mkdir(exist_ok=True)
    return folder
