"""Committed cards, each read once: tables, claims and the study need the same ones. No JAX."""

import functools
from pathlib import Path

from ltrobust.analysis import cards
from ltrobust.analysis.schema.card import Card


def read_card(path: Path) -> Card:
    """`cards.read`, again only after the file changed."""
    real = path.resolve()
    return _read(real, real.stat().st_mtime_ns)


@functools.cache
def _read(path: Path, changed: int) -> Card:
    """The card in a file that was last changed at `changed`."""
    del changed
    return cards.read(path)
