"""What the learner minimises: one file per family, one registry.

A method is a function `inner, **settings -> Method` (`methods.contract`), a wrapper a function
`method, **settings -> Method`. Its keyword arguments, their defaults and the `Args` of its docstring are the keys
`config.methods.NAME.SETTING`, their values and their meaning; nothing else lists them. A method of this package is
written in its family's file and entered in `REGISTRY` or `WRAPPERS`. Other code uses `register`; an installed package
may offer functions in the entry point group `ltrobust.methods` instead (docs/guides/methods.md).
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from ltrobust import registry
from ltrobust.methods.adversarial import attack_cross_entropy, fat, mart, pgd_at, trades
from ltrobust.methods.balanced_teachers import b_mtard, mtard
from ltrobust.methods.bat import bat
from ltrobust.methods.class_wise_dro import chi2_class_dro, faal
from ltrobust.methods.class_wise_trades import dafa, frl, wat
from ltrobust.methods.class_wise_wrappers import cfa, fair_ard, weak_class_reweight
from ltrobust.methods.contract import Batch, InnerAttack, Learner, Method, Outcome, attack_on, decision_rule, make_batch
from ltrobust.methods.declarations import check_changes, check_wrappable, declares
from ltrobust.methods.distillation import adaad, ard, rslad
from ltrobust.methods.guided_distillation import adaiad, iad, iad2
from ltrobust.methods.igdm import igdm
from ltrobust.methods.label_augmentation import label_aug
from ltrobust.methods.long_tailed import at_bsl, robal, taet
from ltrobust.methods.reat import reat
from ltrobust.methods.self_distillation import self_distillation
from ltrobust.methods.teacher import CLEAN_TEACHER, TEACHER, DecisionRule, Teacher
from ltrobust.methods.wrappers import awp, robust_lt
from ltrobust.runtime.names import nearest


def _by_name(*functions: Callable[..., Method]) -> dict[str, Callable[..., Method]]:
    return {function.__name__: function for function in functions}


REGISTRY = _by_name(pgd_at, trades, mart, fat, at_bsl, robal, reat, taet, self_distillation)
REGISTRY |= _by_name(ard, iad, iad2, rslad, adaad, adaiad, mtard, b_mtard)
REGISTRY |= _by_name(chi2_class_dro, label_aug, dafa, wat, frl, bat, faal)
WRAPPERS = _by_name(awp, robust_lt, igdm, fair_ard, cfa, weak_class_reweight)

GROUP = "ltrobust.methods"  # of entry points
_BUILT_IN = (*REGISTRY, *WRAPPERS)


def register(function: registry.Registered) -> registry.Registered:
    """Makes a method or a wrapper known under the function's name; a decorator.

    The name of the first parameter says which of both it is: `inner` (an `InnerAttack`) is a method's, `method` (a
    `Method`) is a wrapper's. All others are settings, `config.methods.NAME.SETTING`.

    Raises:
      ValueError: another first parameter; a setting without a default, or with one that a configuration cannot hold; a
        name of a built-in method or wrapper, or one that another file has registered.
    """
    _register(function, function.__name__)
    return function


def _register(function: Callable[..., Method], name: str) -> None:
    """The same, under any name."""
    first = next(iter(registry.parameters(function, "method")), "")
    kinds = {"inner": ("method", REGISTRY, WRAPPERS), "method": ("wrapper", WRAPPERS, REGISTRY)}
    if first not in kinds:
        raise ValueError(
            f"the first parameter of {name} is called {first!r}; call it inner for a method, or method for a wrapper."
        )
    kind, known, others = kinds[first]
    registry.defaults(function, kind, without=(first,))
    # Both kinds share `config.methods`, and one name there has one meaning.
    registry.add(known, kind, name, function, reserved=(*_BUILT_IN, *others))


def defaults() -> dict[str, dict[str, Any]]:
    """`config.methods`: the settings, with their defaults, of every method and wrapper that has any."""
    registry.add_installed(GROUP, (*REGISTRY, *WRAPPERS), _register)
    found = {
        name: registry.defaults(function, "method", without=list(registry.parameters(function, "method"))[:1])
        for name, function in (REGISTRY | WRAPPERS).items()
    }
    return {name: settings for name, settings in found.items() if settings}


def create(name: str, inner: InnerAttack, **settings: Any) -> Method:
    """The method of that name.

    Raises:
      ValueError: unknown name (lists the known ones), a setting that the method does not have or accept, or a function
        that returns something else.
    """
    method = _find("method", REGISTRY, name, settings)(inner, **settings)
    return dataclasses.replace(_checked(method, name), name=name)


def wrap(method: Method, name: str, **settings: Any) -> Method:
    """The method inside the wrapper of that name; it is called `<method>+<wrapper>`.

    Raises:
      ValueError: unknown name (lists the known ones), a setting that the wrapper does not have or accept, or a method
        that it cannot wrap or that is in that wrapper already.
    """
    if name in method.name.split("+")[1:]:
        raise ValueError(f"{method.name} is in the wrapper {name} already; name each wrapper once.")
    wrapper = _find("wrapper", WRAPPERS, name, settings)
    check_wrappable(method, name, WRAPPERS, lambda: _known_methods(method.inner))
    wrapped = _checked(wrapper(method, **settings), name)
    check_changes(method, wrapped, wrapper, name)
    return dataclasses.replace(wrapped, name=f"{method.name}+{name}")


def _known_methods(inner: InnerAttack) -> dict[str, Method]:
    """Every known method with its own settings; without those that cannot have this attack."""
    found = {}
    for name in REGISTRY:
        with contextlib.suppress(Exception):
            found[name] = create(name, inner)
    return found


def _find(kind: str, known: dict[str, Callable[..., Method]], name: str, settings: dict[str, Any]):
    """The function of that name, once it is known to take these settings."""
    registry.add_installed(GROUP, (*REGISTRY, *WRAPPERS), _register)
    if not isinstance(name, str) or name not in known:
        raise registry.unknown(kind, name, known, GROUP)
    names = list(registry.parameters(known[name], kind))[1:]
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise ValueError(
            f"{kind} {name} has no setting {', '.join(unknown)}; {nearest(unknown[0], names)}its settings: "
            f"{', '.join(names) or 'none'}."
        )
    return known[name]


def _checked(method: Any, name: str) -> Method:
    """Refuses what a registered function may return by mistake."""
    if not isinstance(method, Method):
        raise ValueError(f"{name} returned {type(method).__name__}; return an ltrobust.methods.Method.")
    return method


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
    "attack_cross_entropy",
    "attack_on",
    "create",
    "decision_rule",
    "declares",
    "defaults",
    "make_batch",
    "register",
    "wrap",
]
