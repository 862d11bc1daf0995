"""What tests may use: public names of the project, and helper modules instead of one another."""

import ast
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).resolve().parent
# Public methods of named tuples; the underscore keeps them apart from fields.
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}


def is_private(name: str) -> bool:
    """Whether the last part of a dotted name is private."""
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.startswith("__") and last not in NAMED_TUPLE


def private_names(source: str) -> set[str]:
    """Private names of other modules and objects in a file: read, imported, replaced by name, or in code in strings."""
    result = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            result.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            result |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            result |= {part for alias in node.names for part in alias.name.split(".")}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in BY_NAME:
            result |= {str(value.value) for value in node.args if isinstance(value, ast.Constant)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            result |= set(re.findall(r"\w\.(_[A-Za-z]\w*)", node.value))
    return set(filter(is_private, result))


def imported(source: str) -> set[str]:
    """First parts of the names of imported modules, also in code in strings."""
    result = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            result |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            result.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            result |= set(re.findall(r"^\s*(?:import|from)\s+(\w+)", node.value, re.MULTILINE))
    return result


def test_no_test_uses_a_private_name():
    """A test goes through the public function, through an argument, or the name is made public."""
    used = {file.relative_to(TESTS).as_posix(): private_names(file.read_text()) for file in TESTS.rglob("*.py")}
    assert {name: names for name, names in used.items() if names} == {}


def test_no_test_module_is_imported_by_another():
    """What two of them need is in a helper module beside them, whose name does not begin with `test_`."""
    modules = {file.stem for file in TESTS.rglob("test_*.py")}
    used = {file.relative_to(TESTS).as_posix(): imported(file.read_text()) & modules for file in TESTS.rglob("*.py")}
    assert {name: names for name, names in used.items() if names} == {}


def test_helpers_and_tests_have_a_name_of_their_own():
    """Folders of tests are no packages, so of two modules of one name only the first would be imported."""
    names = [file.stem for file in TESTS.rglob("*.py") if file.stem != "conftest"]
    assert {name for name in names if names.count(name) > 1} == set()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("loop._order(1)", {"_order"}),
        ("from ltrobust.training.loop import _order", {"_order"}),
        ("import ltrobust._hidden", {"_hidden"}),
        ("monkeypatch.setattr(loop, '_CAPACITY', 1)", {"_CAPACITY"}),
        ("monkeypatch.setattr('ltrobust.training.loop._CAPACITY', 1)", {"ltrobust.training.loop._CAPACITY"}),
        ('CODE = """\\nloop._order(1)\\n"""', {"_order"}),
        ("pair._replace(first=control.__file__)", set()),
        ("def _own(): return loop.order(_local)", set()),
    ],
)
def test_private_names_are_found(line, names):
    assert private_names(line) == names


@pytest.mark.parametrize("line", ["import test_a", "from test_a import b", 'CODE = """\\nimport test_a\\n"""'])
def test_imports_are_found(line):
    assert "test_a" in imported(line)
