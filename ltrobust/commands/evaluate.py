"""Evaluates all weights of a checkpoint, on the devices at hand, and writes a result card.

    ltrobust evaluate --workdir=DIR [--config.eval.protocol=standard] [--config.KEY=VALUE ...]

Without --config the configuration is the one that the workdir's config.json records. --config.eval.checkpoint is
student, teacher, another workdir, or a folder of checkpoints.
"""

from collections.abc import Sequence
from typing import Any

from ltrobust.commands.launch import launch


def main(arguments: Sequence[str], program: str) -> None:
    """Evaluates and writes."""
    launch(arguments, program, __doc__, _work, trains=False)


def _work(*given: Any, **settings: Any) -> None:
    from ltrobust import run as runs  # with JAX, which help does not need

    runs.evaluate(*given, **settings)
