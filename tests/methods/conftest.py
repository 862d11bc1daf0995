"""A tiny network with a residual block, initialised once."""

import jax
import jax.numpy as jnp
import pytest

from ltrobust import models
from ltrobust.models.layers import Layers
from ltrobust.models.resnet import ResNet


@pytest.fixture(scope="session")
def network():
    module = ResNet(3, widths=(4,), strides=(1,), blocks=1, layers=Layers(jnp.float32))
    return module, *models.initialise(module, jax.random.key(0), (8, 8, 1))
