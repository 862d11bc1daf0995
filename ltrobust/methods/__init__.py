"""What the learner minimises: one file per family, one registry.

To add a method: a function `inner, **settings -> Method` in its family's file, one line in `REGISTRY`, and its
settings under `methods.<name>` in `configs/default.py`. A wrapper is a function `method, **settings -> Method`, with a
line in `WRAPPERS` and settings in the same place.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from ltrobust.methods.adversarial import at_bsl, pgd_at, trades
from ltrobust.methods.contract import (
    Batch,
    DecisionRule,
    InnerAttack,
    Learner,
    Method,
    Outcome,
    Teacher,
    decision_rule,
    with_radii,
)
from ltrobust.methods.self_distillation import self_distillation

REGISTRY: dict[str, Callable[..., Method]] = {
    "pgd_at": pgd_at,
    "trades": trades,
    "at_bsl": at_bsl,
    "self_distillation": self_distillation,
}
WRAPPERS: dict[str, Callable[..., Method]] = {}


def create(name: str, inner: InnerAttack, **settings: Any) -> Method:
    """The method of that name.

    Raises:
      ValueError: unknown name (lists the known ones), or a setting that the method does not have or accept.
    """
    return _checked("method", REGISTRY, name, settings)(inner, **settings)


def wrap(method: Method, name: str, **settings: Any) -> Method:
    """The method inside the wrapper of that name; it is called `<method>+<wrapper>`.

    Raises:
      ValueError: unknown name (lists the known ones), a setting that the wrapper does not have or accept, or a method
        that it cannot wrap.
    """
    wrapped = _checked("wrapper", WRAPPERS, name, settings)(method, **settings)
    return dataclasses.replace(wrapped, name=f"{method.name}+{name}")


def _checked(kind: str, registry: dict[str, Callable[..., Method]], name: str, settings: dict[str, Any]):
    """The function of that name, once it is known to take these settings."""
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"{kind} is {name!r}; known {kind}s: {', '.join(registry) or 'none'}.")
    known = list(inspect.signature(registry[name]).parameters)[1:]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(
            f"{kind} {name} has no setting {', '.join(unknown)}; its settings: {', '.join(known) or 'none'}."
        )
    return registry[name]


__all__ = [
    "REGISTRY",
    "WRAPPERS",
    "Batch",
    "DecisionRule",
    "InnerAttack",
    "Learner",
    "Method",
    "Outcome",
    "Teacher",
    "create",
    "decision_rule",
    "with_radii",
    "wrap",
]
