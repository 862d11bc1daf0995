"""A run small enough for tests: real digits, four channels, seconds per phase."""

from typing import Any

import pytest

from configs import digits


@pytest.fixture
def tiny() -> Any:
    """A locked configuration of both phases that trains 9 and 14 steps."""
    config = digits.get_config()
    config.data.imbalance_ratio = 4.0
    config.model.width = 4
    config.student.epochs = 2
    config.student.batch_size = 64
    config.teacher.epochs = 3
    config.teacher.batch_size = 128
    for phase in (config.teacher, config.student):
        phase.attack.steps = 2
    config.eval.protocol = "validation"
    config.eval.limit = 3
    config.eval.also = ()
    config.checkpoint.minutes = 0.0
    return config.lock()
