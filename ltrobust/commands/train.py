"""Trains what is not trained yet, evaluates every network, and writes the result card and the page of the run.

    ltrobust train --config=configs/digits.py [--workdir=DIR] [--config.KEY=VALUE ...]
    ltrobust train --config=configs/published.py:robal_n ...

The same command in the same workdir resumes where it stopped. A configuration that is not found from the current folder
is looked for among those that come with the package. Several processes, one per host: --coordinator=HOST:PORT
--num_processes=N --process_id=K; on a Cloud TPU none of them (docs/guides/accelerators.md).
"""

from collections.abc import Sequence
from typing import Any

from ltrobust.commands.launch import launch


def main(arguments: Sequence[str], program: str) -> None:
    """Trains, evaluates, and writes."""
    launch(arguments, program, __doc__, _work, trains=True)


def _work(*given: Any, **settings: Any) -> None:
    from ltrobust import run as runs  # with JAX, which help does not need

    runs.train(*given, **settings)
