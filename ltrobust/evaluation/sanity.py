"""The sanity panel: what has to hold before a robust accuracy is believed, overall and per class."""

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltrobust.evaluation.protocols import Protocol
    from ltrobust.evaluation.session import Session


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of the panel; `status` is pass, warn, fail or skipped."""

    id: str
    status: str
    check: str
    evidence: str
    per_class: tuple[Any, ...] = ()


def panel(session: "Session", protocol: "Protocol") -> tuple[Item, ...]:
    """Every item."""
    del session, protocol
    return ()
