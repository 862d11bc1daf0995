"""Committed cards, each read once: tables, claims and the study need the same ones. No JAX."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from ltrobust.analysis import cards
from ltrobust.analysis.schema.card import Card
from ltrobust.analysis.schema.network import NetworkResult
from ltrobust.sanity.rules import Item

MARK = " †"  # behind the name of a row that rests on a network that is not trustworthy


def read_card(path: Path) -> Card:
    """`cards.read`, again only after the file changed."""
    real = path.resolve()
    return _read(real, real.stat().st_mtime_ns)


@functools.cache
def _read(path: Path, changed: int) -> Card:
    """The card in a file that was last changed at `changed`."""
    del changed
    return cards.read(path)


def failures(network: NetworkResult) -> list[Item]:
    """The sanity checks that make a network not trustworthy."""
    return [item for item in network.sanity if item.required and item.status == "fail"]


def remarks(name: str, networks: Mapping[int, NetworkResult]) -> Iterator[str]:
    """What to read under a table of a marked row: each check that failed, by the row's seeds."""
    for seed, network in sorted(networks.items()):
        for item in failures(network):
            yield f"† {name}, seed {seed}: {network.sanity_verdict}. {item.check} ({item.id}): {item.details}.\n"
