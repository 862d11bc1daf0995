"""The panel's linear network, and its items after the attacks of a protocol."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from ltrobust.evaluation.drive import Driver, Subject
from ltrobust.evaluation.progress import AttackProgress
from ltrobust.evaluation.protocols import PGD20, Protocol
from ltrobust.evaluation.session import Session
from ltrobust.sanity import control, panel
from ltrobust.sanity.rules import CHECKS, Item
from ltrobust.threat import Threat

LINEAR = control.linear()
EVERYTHING = np.arange(1000)
SHORT = Protocol("short", (PGD20,))
THREAT = Threat()


class Network(NamedTuple):
    """Weights [K,192], a factor and a bias [K] of the logits."""

    weights: np.ndarray
    factor: np.float32
    bias: np.ndarray


def network(factor: float = 1.0, weights: np.ndarray = LINEAR.weights, bias: np.ndarray | None = None) -> Network:
    return Network(weights, np.float32(factor), np.zeros(10, np.float32) if bias is None else bias)


def plain(variables: Network, images: jax.Array) -> jax.Array:
    return variables.factor * control.apply(variables.weights, images) + variables.bias


@functools.cache
def driver(apply, batch_size: int = 64, seed: int = 0, threat: Threat = THREAT) -> Driver:
    """Programs are compiled once for all toys that differ in numbers only: every batch has 64 rows, the fewest."""
    return Driver(
        apply,
        apply,
        threat=threat,
        num_classes=10,
        batch_size=batch_size,
        seed=seed,
        place=jax.device_put,
        devices=1,
    )


def session(driver: Driver, variables, protocol: Protocol, rows: np.ndarray = EVERYTHING, store=None) -> Session:
    """After the protocol's attacks."""
    subject = Subject(variables, LINEAR.images[rows], LINEAR.labels[rows], rows)
    clean = driver.clean(subject)
    begun = Session(driver, subject, clean, store, AttackProgress("", len(rows)))
    for attack in protocol.attacks:
        begun.run(attack)
    return begun


def items_of(driver: Driver, variables, protocol: Protocol, rows: np.ndarray = EVERYTHING, **facts) -> dict[str, Item]:
    items = panel.panel(session(driver, variables, protocol, rows), protocol, **facts)
    assert [item.id for item in items] == list(CHECKS)
    return {item.id: item for item in items}
