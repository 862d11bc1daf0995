"""The public API's docstrings: their examples run, and every public function says what it takes, returns and raises."""

import doctest
import importlib
import inspect
import re
import textwrap
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


def arguments(text: str, section: str) -> set[str]:
    """Names that a section of a docstring lists."""
    body = re.search(rf"^{section}:\n((?:  .*\n?|\n)*)", text, re.MULTILINE)
    lines = re.findall(r"^([\w*][\w*, ]*)(?: \([^)]*\))?:", textwrap.dedent(body[1]) if body else "", re.MULTILINE)
    return {name.strip(" *") for line in lines for name in line.split(",")}


def test_sections_are_read_by_name():
    text = "Adds.\n\nArgs:\n  one, two: numbers;\n    three: no name.\n  **more: others.\n\nReturns:\n  sum: of all."
    assert arguments(text, "Args") == {"one", "two", "more"}


@pytest.mark.parametrize("name", PUBLIC)
def test_args_lists_every_argument_or_the_text_has_one_or_two_in_code_marks(name):
    """Attacks share a list. The first line of a docstring, also of a class, ends as a sentence does."""
    function = PUBLIC[name]
    text = inspect.getdoc(function) or ""
    assert text.splitlines()[0].endswith((".", ":", ")")), text
    if inspect.isclass(function):
        return
    listed = arguments(text, "Args")
    if name.startswith("attacks."):
        listed |= arguments(inspect.getdoc(ltrobust.attacks) or "", "Arguments of every attack")
    parameters = {each for each in inspect.signature(function).parameters if each != "self"}
    if not parameters <= listed and "\nArgs:\n" not in text:
        before = re.split(r"^(?:Returns|Raises):$", text, flags=re.MULTILINE)[0]
        listed = {each for each in parameters if re.search(rf"`[^`]*\b{each}\b[^`]*`", before)}
        assert len(listed) <= 2, "list them under Args"
    assert parameters - listed == set()
