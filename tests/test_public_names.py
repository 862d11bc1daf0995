"""The names that `import ltrobust` offers: visible, existing, and imported when they are first used."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import ltrobust

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("module", [ltrobust, ltrobust.data], ids=["ltrobust", "ltrobust.data"])
def test_dir_shows_the_public_names_and_all_exist(module):
    assert dir(module) == sorted(module.__all__)
    for name in dir(module):
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("file", ["__init__.py", "data/__init__.py"])
def test_type_checkers_see_the_same_names(file):
    tree = ast.parse((ROOT / "ltrobust" / file).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    (block,) = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    names = set((ltrobust if file == "__init__.py" else ltrobust.data).__all__)
    assert seen == names - {"__version__"}


def run(code):
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    ).stdout.split()


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import ltrobust; dir(ltrobust)\n"
    code += "print(*sorted(name for name in set(sys.modules) - before if 'ltrobust' in name or name == 'numpy'))\n"
    code += "from ltrobust import Threat; import ltrobust.data; ltrobust.data.load; print('jax' in sys.modules)"
    assert run(code) == ["ltrobust", "False"]


def test_importing_the_package_takes_a_fraction_of_a_second():
    code = "import time; began = time.perf_counter(); import ltrobust; print(time.perf_counter() - began)"
    assert min(float(run(code)[0]) for _ in range(3)) < 0.2
