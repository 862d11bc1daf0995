"""What makes a dry run short: attacks of a few steps."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ltrobust.evaluation import protocols

_SETTINGS = {"steps": 2, "targets": 1, "queries": 5}


def shortened(attack: Any, settings: Mapping[str, int] = _SETTINGS) -> Any:
    """The attack with those of the settings that it has and uses."""
    return dataclasses.replace(attack, **{key: value for key, value in settings.items() if getattr(attack, key, 0)})


def protocol(name: str) -> str:
    """Registers a protocol with the attacks of another one, shortened, and returns its name, `dry_<name>`.

    The name is another one, so that no card of a dry run can be taken for one of the protocol.
    """
    whole = protocols.get(name)
    attacks = tuple(shortened(attack) for attack in whole.attacks)
    protocols.PROTOCOLS[f"dry_{name}"] = dataclasses.replace(whole, name=f"dry_{name}", attacks=attacks)
    return f"dry_{name}"
