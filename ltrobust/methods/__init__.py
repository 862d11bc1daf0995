"""What the learner minimises: one file per family, one registry.

To add a method: a function `inner, **settings -> Method` in its family's file, one line in `REGISTRY`, and its
settings under `methods.<name>` in `configs/default.py`.
"""

import inspect
from collections.abc import Callable
from typing import Any

from ltrobust.methods.adversarial import at_bsl, pgd_at, trades
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome, Teacher, with_radii
from ltrobust.methods.self_distillation import self_distillation

REGISTRY: dict[str, Callable[..., Method]] = {
    "pgd_at": pgd_at,
    "trades": trades,
    "at_bsl": at_bsl,
    "self_distillation": self_distillation,
}


def create(name: str, inner: InnerAttack, **settings: Any) -> Method:
    """The method of that name.

    Raises:
      ValueError: unknown name (lists the known ones), or a setting that the method does not have or accept.
    """
    if name not in REGISTRY:
        raise ValueError(f"method is {name!r}; known methods: {', '.join(REGISTRY)}.")
    known = list(inspect.signature(REGISTRY[name]).parameters)[1:]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(
            f"method {name} has no setting {', '.join(unknown)}; its settings: {', '.join(known) or 'none'}."
        )
    return REGISTRY[name](inner, **settings)


__all__ = [
    "REGISTRY",
    "Batch",
    "InnerAttack",
    "Learner",
    "Method",
    "Outcome",
    "Teacher",
    "create",
    "with_radii",
]
