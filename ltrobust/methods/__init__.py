"""What the learner minimises: one file per family, one registry.

To add a method: a function `inner, **settings -> Method` in its family's file, one line in `REGISTRY`, and its
settings under `methods.<name>` in `configs/default.py`. A wrapper is a function `method, **settings -> Method`, with a
line in `WRAPPERS` and settings in the same place.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from ltrobust.methods.adversarial import mart, pgd_at, trades
from ltrobust.methods.balanced_teachers import b_mtard, mtard
from ltrobust.methods.bat import bat
from ltrobust.methods.cfa import cfa
from ltrobust.methods.class_wise import chi2_class_dro, faal
from ltrobust.methods.contract import (
    CLEAN_TEACHER,
    TEACHER,
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
from ltrobust.methods.distillation import adaad, ard, rslad
from ltrobust.methods.fair_ard import fair_ard
from ltrobust.methods.fat import fat
from ltrobust.methods.guided_distillation import adaiad, iad, iad2
from ltrobust.methods.igdm import igdm
from ltrobust.methods.label_augmentation import label_aug
from ltrobust.methods.long_tailed import at_bsl, robal, taet
from ltrobust.methods.reat import reat
from ltrobust.methods.self_distillation import self_distillation
from ltrobust.methods.trades_by_class import dafa, frl, wat
from ltrobust.methods.weak_class import weak_class_reweight
from ltrobust.methods.wrappers import awp, robust_lt
from ltrobust.names import nearest

REGISTRY: dict[str, Callable[..., Method]] = {
    "pgd_at": pgd_at,
    "trades": trades,
    "mart": mart,
    "fat": fat,
    "at_bsl": at_bsl,
    "robal": robal,
    "reat": reat,
    "taet": taet,
    "self_distillation": self_distillation,
    "ard": ard,
    "iad": iad,
    "iad2": iad2,
    "rslad": rslad,
    "adaad": adaad,
    "adaiad": adaiad,
    "mtard": mtard,
    "b_mtard": b_mtard,
    "chi2_class_dro": chi2_class_dro,
    "label_aug": label_aug,
    "dafa": dafa,
    "wat": wat,
    "frl": frl,
    "bat": bat,
    "faal": faal,
}
WRAPPERS: dict[str, Callable[..., Method]] = {
    "awp": awp,
    "robust_lt": robust_lt,
    "igdm": igdm,
    "fair_ard": fair_ard,
    "cfa": cfa,
    "weak_class_reweight": weak_class_reweight,
}


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
        that it cannot wrap or that is in that wrapper already.
    """
    if name in method.name.split("+")[1:]:
        raise ValueError(f"{method.name} is in the wrapper {name} already; name each wrapper once.")
    wrapped = _checked("wrapper", WRAPPERS, name, settings)(method, **settings)
    return dataclasses.replace(wrapped, name=f"{method.name}+{name}")


def _checked(kind: str, registry: dict[str, Callable[..., Method]], name: str, settings: dict[str, Any]):
    """The function of that name, once it is known to take these settings."""
    if not isinstance(name, str) or name not in registry:
        hint = nearest(name, registry)
        raise ValueError(f"{kind} is {name!r}; {hint}known {kind}s: {', '.join(registry) or 'none'}.")
    known = list(inspect.signature(registry[name]).parameters)[1:]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(
            f"{kind} {name} has no setting {', '.join(unknown)}; {nearest(unknown[0], known)}its settings: "
            f"{', '.join(known) or 'none'}."
        )
    return registry[name]


__all__ = [
    "CLEAN_TEACHER",
    "REGISTRY",
    "TEACHER",
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
