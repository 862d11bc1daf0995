"""A tiny network, initialised once."""

import jax
import pytest

from ltrobust import models


@pytest.fixture(scope="session")
def network():
    module = models.create("small_resnet", num_classes=3, width=4)
    return module, *models.initialise(module, jax.random.key(0), (8, 8, 1))
