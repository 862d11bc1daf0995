"""Declarations of wrappers, which attributes of `Method` they need and set, and the check of combinations.

An attribute counts as set if it differs from its default.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ltrobust import registry
from ltrobust.methods.contract import Method
from ltrobust.runtime.names import nearest

# Hooks that receive the method's state. (So do attack and loss, but a wrapper calls those itself.)
_READ_STATE = ("radii", "perturb_weights", "observe", "end_epoch")
# Hooks that hold one function: a wrapper that sets one replaces the method's.
_HOOKS = (*_READ_STATE, "averaging", "test_logits", "initial_state")

# Attribute of `Method` -> what a method with this attribute does, for messages.
_DOES = {
    "radii": "sets radii",
    "perturb_weights": "perturbs weights",
    "observe": "observes the validation part",
    "end_epoch": "learns from validation",
    "averaging": "averages weights",
    "test_logits": "has a rule for test logits",
    "matches_gradients": "matches gradients by itself (self_distillation: while beta is above 0)",
}
# Attribute of `Method` -> what a method without it lacks, and what a wrapper that needs it requires, for messages.
_LACKS = {
    "weighted": ("its loss is not a mean over examples that takes weights", "a loss that is a mean over examples"),
    "objective": ("its attack does not follow one objective", "an attack that follows one objective"),
    "passes": ("it does not say which train-mode passes it makes", "a list of train-mode passes"),
    "plain_outputs": ("its outputs are not the logits of test time", "outputs that are the logits of test time"),
}

# Methods that a message lists.
_EXAMPLES = 8

_DEFAULTS = {
    field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    for field in dataclasses.fields(Method)
}
# What a wrapper may declare. Attributes without a default are set in every method.
ATTRIBUTES = (*(name for name, default in _DEFAULTS.items() if default is not dataclasses.MISSING), "plain_outputs")


@dataclasses.dataclass(frozen=True)
class Declared:
    """Declaration of a wrapper; see `declares`."""

    needs: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()

    @property
    def refuses(self) -> tuple[str, ...]:
        """Attributes that the method must not have set."""
        # A wrapper with its own state stores the method's state inside it, so hooks of the method would read the wrong
        # state.
        readers = _READ_STATE if "initial_state" in self.sets else ()
        return tuple(name for name in ATTRIBUTES if name in (*self.sets, *readers) and name != "initial_state")


def declares(
    *, needs: tuple[str, ...] = (), sets: tuple[str, ...] = ()
) -> Callable[[registry.Registered], registry.Registered]:
    """Declares what a wrapper needs and sets; a decorator.

    Args:
      needs: attributes of `Method` that the method must have set, such as `weighted`.
      sets: attributes that the wrapper sets and the method must not have set, such as `radii`. With `initial_state` the
        wrapper stores the method's state inside its own (`learner.inside`), and the method must not set hooks that read
        its state: `radii`, `perturb_weights`, `observe`, `end_epoch`.

    Returns:
      A decorator that returns the wrapper, unchanged.

    Raises:
      ValueError: a name that is not an optional attribute of `Method`.
    """
    for name in (*needs, *sets):
        if name not in ATTRIBUTES:
            raise ValueError(f"a wrapper declares {name!r}; {nearest(name, ATTRIBUTES)}known: {', '.join(ATTRIBUTES)}.")

    def declaring(function: registry.Registered) -> registry.Registered:
        function.__dict__["declared"] = Declared(tuple(needs), tuple(sets))
        return function

    return declaring


def declared(wrapper: Callable[..., Any]) -> Declared:
    """Declaration of a wrapper; empty without `declares`."""
    return getattr(wrapper, "declared", Declared())


def check_wrappable(
    method: Method, name: str, wrappers: Mapping[str, Callable[..., Method]], known: Callable[[], dict[str, Method]]
) -> None:
    """Refuses a method that a wrapper cannot wrap.

    Args:
      method: the method, wrapped or not.
      name: the wrapper's name.
      wrappers: all wrappers by name.
      known: returns all methods by name, with the same attack and without wrappers; called for the message only.

    Raises:
      ValueError: names both, the attribute that is missing or set already, and what to do.
    """
    declaration = declared(wrappers[name])
    missing, taken = _missing(method, declaration), _taken(method, declaration)
    if not missing and not taken:
        return
    base, *inside = method.name.split("+")
    others = known()
    order = _other_order(others.get(base), name, inside, wrappers)
    if missing:
        lack = _LACKS.get(missing[0], (f"it does not set {missing[0]}", ""))[0]
        fitting = [each for each, other in others.items() if not _missing(other, declaration)]
        examples = ", ".join(fitting[:_EXAMPLES]) + (" and others" if len(fitting) > _EXAMPLES else "")
        needs = " and ".join(_LACKS.get(each, ("", f"Method.{each}"))[1] for each in declaration.needs)
        what = f": {lack} (Method.{missing[0]})"
        advice = f"it needs {needs}" + (f", as {examples} have" if fitting else "")
        if base in fitting and inside:
            advice = order or f"leave out {name} or {' and '.join(inside)}"
    else:
        setters = {attribute: _setter(attribute, inside, wrappers) for attribute in taken}
        # What the method itself sets comes first: another choice or order of wrappers would not help.
        attribute, setter = min(setters.items(), key=lambda item: item[1] is not None)
        does = _DOES.get(attribute, f"sets {attribute}")
        what = f", whose wrapper {setter} {does}" if setter else f", which {does}"
        advice = order or f"leave out {name} or {setter}"
        if setter is None:
            advice = f"leave out {name}, or choose another method or other settings of {base}"
    raise ValueError(f"{name} cannot wrap {method.name}{what}; {advice}.")


def check_changes(before: Method, after: Method, wrapper: Callable[..., Any], name: str) -> None:
    """Refuses a wrapper that sets a hook without declaring it, or changes the attack but not its objective.

    Raises:
      ValueError: names the wrapper, the hook and what to write.
    """
    declaration = declared(wrapper)
    for hook in _HOOKS:
        if getattr(before, hook) is not getattr(after, hook) and hook not in (*declaration.sets, *declaration.needs):
            raise ValueError(
                f"wrapper {name} sets {hook} without declaring it; put @ltrobust.methods.declares(sets=({hook!r},)) "
                "above the function."
            )
    # An outer wrapper may build a new attack from the objective, which would discard this wrapper's attack.
    if before.attack is not after.attack and after.objective is not None and before.objective is after.objective:
        raise ValueError(
            f"wrapper {name} changes attack, but leaves the objective of {before.name}, which its attack no longer "
            "follows; set objective=None, or the one that it follows."
        )


def _has(method: Method, attribute: str) -> bool:
    """Whether a method has set an attribute, or whether a property is true."""
    value = getattr(method, attribute)
    return value != _DEFAULTS[attribute] if attribute in _DEFAULTS else bool(value)


def _missing(method: Method, declaration: Declared) -> list[str]:
    """Attributes that a wrapper needs and the method has not set."""
    return [name for name in declaration.needs if not _has(method, name)]


def _taken(method: Method, declaration: Declared) -> list[str]:
    """Attributes that the method has set and a wrapper would replace."""
    return [name for name in declaration.refuses if _has(method, name)]


def _setter(attribute: str, inside: list[str], wrappers: Mapping[str, Callable[..., Method]]) -> str | None:
    """Name of the wrapper that has set an attribute; None: the method itself."""
    return next((each for each in inside if attribute in declared(wrappers[each]).sets), None)


def _other_order(
    base: Method | None, name: str, inside: list[str], wrappers: Mapping[str, Callable[..., Method]]
) -> str | None:
    """Advice `name X before Y` if the wrappers fit around the method in that order."""
    for each in (name, *inside):
        if base is None or _missing(base, declared(wrappers[each])) or _taken(base, declared(wrappers[each])):
            return None
        with contextlib.suppress(Exception):  # a user's code, called for a message alone
            base = wrappers[each](base)
            continue
        return None
    return f"name {name} before {' and '.join(inside)}"
