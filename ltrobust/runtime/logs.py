"""Which lines of the log are for the user."""

import contextlib
import logging as standard_logging
from collections.abc import Iterator

from absl import logging


def matters(record: standard_logging.LogRecord) -> bool:
    """Whether a line of the log is for the user.

    Orbax warns of every read-only opening, and asyncio of what a failed save leaves; what matters is an exception.
    """
    return "orbax" not in record.pathname and record.name != "asyncio"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lines of absl's log that do not matter are left out meanwhile."""
    logger = logging.get_absl_logger()
    logger.addFilter(matters)
    try:
        yield
    finally:
        logger.removeFilter(matters)
