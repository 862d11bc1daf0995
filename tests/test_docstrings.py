"""The public API's docstrings: their examples run, and every public function says what it takes, returns and raises."""

import doctest
import importlib
import inspect
import re
import types

import pytest

import ltrobust

# Modules whose docstrings hold examples.
EXAMPLES = (
    "ltrobust.api",
    "ltrobust.attacks.pgd_functions",
    "ltrobust.data.batches",
    "ltrobust.data.dataset",
    "ltrobust.evaluator",
    "ltrobust.methods",
    "ltrobust.models",
    "ltrobust.recipes",
    "ltrobust.threat",
)


def public() -> dict[str, object]:
    """Public functions and classes by dotted name, with the public methods of classes."""
    seen: dict[str, object] = {}
    for name in sorted(set(ltrobust.__all__) - {"__version__"}):
        value = getattr(ltrobust, name)
        parts = {name: value}
        if isinstance(value, types.ModuleType):
            own = [part for part, result in vars(value).items() if getattr(result, "__module__", "") == value.__name__]
            names = getattr(value, "__all__", [part for part in own if not part.startswith("_")])
            parts = {f"{name}.{part}": getattr(value, part) for part in names}
        for dotted, part in parts.items():
            if not inspect.isroutine(part) and not inspect.isclass(part):
                continue
            seen[dotted] = part
            if inspect.isclass(part) and part.__module__.startswith("ltrobust."):
                members = vars(part).items()
                seen |= {f"{dotted}.{each}": member for each, member in members if is_own_function(each, member)}
    return seen


def is_own_function(name: str, member: object) -> bool:
    """Whether a class's attribute is a public method, not one that dataclasses or Flax add."""
    return inspect.isfunction(member) and not name.startswith("_") and member.__doc__ is not None and name != "replace"


PUBLIC = public()


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_a_docstring_names_every_argument(name):
    """In `Args`, or in the sentence that describes a function of one or two arguments; attacks share a list."""
    function = PUBLIC[name]
    text = inspect.getdoc(function) or ""
    assert text.splitlines()[0].endswith((".", ":", ")")), text
    if inspect.isclass(function):
        return
    shared = inspect.getdoc(ltrobust.attacks) if name.startswith("attacks.") else ""
    parameters = [each for each in inspect.signature(function).parameters if each != "self"]
    missing = [each for each in parameters if not re.search(rf"\b{each}\b", f"{text}\n{shared}")]
    assert missing == []
