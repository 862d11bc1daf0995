"""Training methods: one file per family, and one registry.

A method is a function `inner, **settings -> Method` (`methods.contract`); a wrapper is a function
`method, **settings -> Method`. Keyword arguments, their defaults and the `Args` of the docstring define the keys
`config.methods.NAME.SETTING`, their values and their descriptions. Methods of this package are listed in `REGISTRY` and
`WRAPPERS`. Other code calls `register`; an installed package offers functions in the entry point group
`ltrobust.methods` (docs/guides/methods.md).
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
    """Registers a `function` as a method or wrapper under its name; a decorator.

    A method's first parameter is called `inner` (an `InnerAttack`), a wrapper's `method` (a `Method`). All other
    parameters are settings, `config.methods.NAME.SETTING`. docs/guides/methods.md has a complete file.

    Returns:
      The function, unchanged.

    Raises:
      ValueError: another first parameter; a setting without a default that a configuration can hold; or a name that is
        built in or registered by another file.
    """
    _register(function, function.__name__)
    return function


def _register(function: Callable[..., Method], name: str) -> None:
    """Registers a method or wrapper under any name."""
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
    """Settings of all methods and wrappers with their defaults, `config.methods`."""
    registry.add_installed(GROUP, (*REGISTRY, *WRAPPERS), _register)
    result = {
        name: registry.defaults(function, "method", without=list(registry.parameters(function, "method"))[:1])
        for name, function in (REGISTRY | WRAPPERS).items()
    }
    return {name: settings for name, settings in result.items() if settings}


def create(name: str, inner: InnerAttack, **settings: Any) -> Method:
    """Creates a method by name.

    Args:
      name: a key of `REGISTRY`.
      inner: settings of the training attack.
      settings: the method's keyword arguments.

    Returns:
      The method.

    Raises:
      ValueError: unknown name (the message lists the known ones), a setting that the method does not have or accept, or
        a function that does not return a `Method`.

    Example:
      >>> import ltrobust as lt
      >>> inner = lt.methods.InnerAttack(lt.Threat("linf", 8), steps=10, step_size=2)
      >>> lt.methods.wrap(lt.methods.create("trades", inner, beta=6.0), "awp").name
      'trades+awp'
    """
    method = _find("method", REGISTRY, name, settings)(inner, **settings)
    return dataclasses.replace(_checked(method, name), name=name)


def wrap(method: Method, name: str, **settings: Any) -> Method:
    """Wraps a method; the result is named `<method>+<wrapper>`.

    Args:
      method: the method, wrapped or not.
      name: a key of `WRAPPERS`.
      settings: the wrapper's keyword arguments.

    Returns:
      The wrapped method.

    Raises:
      ValueError: unknown name (the message lists the known ones), a setting that the wrapper does not have or accept,
        or a method that it cannot wrap or that it wraps already.
    """
    if name in method.name.split("+")[1:]:
        raise ValueError(f"{method.name} is in the wrapper {name} already; name each wrapper once.")
    wrapper = _find("wrapper", WRAPPERS, name, settings)
    check_wrappable(method, name, WRAPPERS, lambda: _known_methods(method.inner))
    wrapped = _checked(wrapper(method, **settings), name)
    check_changes(method, wrapped, wrapper, name)
    return dataclasses.replace(wrapped, name=f"{method.name}+{name}")


def _known_methods(inner: InnerAttack) -> dict[str, Method]:
    """All methods with default settings, without those that refuse this attack."""
    result = {}
    for name in REGISTRY:
        with contextlib.suppress(Exception):
            result[name] = create(name, inner)
    return result


def _find(kind: str, known: dict[str, Callable[..., Method]], name: str, settings: dict[str, Any]):
    """Finds the function of that name and checks that it takes these settings."""
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
    """Refuses a result that is not a `Method`."""
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
