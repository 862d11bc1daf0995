"""The notebooks' cells run from top to bottom in an empty folder, and their pictures and charts can be drawn."""

import ast
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Draws what a notebook shows under a cell, the value of its last expression.
SHOW = """
def _show(value):
    if hasattr(value, "to_dict"):
        value.to_dict()
        print("chart")
    elif hasattr(value, "resize"):
        print("picture", *value.size)
"""


def program(name: str) -> str:
    """The code cells as one program that shows each cell's last expression."""
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())["cells"]
    parts = [SHOW]
    for cell in cells:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            if isinstance(last := tree.body[-1], ast.Expr):
                shown = ast.Call(ast.Name("_show", ast.Load()), [last.value], [])
                tree.body[-1] = ast.copy_location(ast.Expr(shown), last)
            parts.append(ast.unparse(ast.fix_missing_locations(tree)))
    return "\n\n".join(parts)


def run(name: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": str(folder / "home")}
    command = [sys.executable, "-c", program(name)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)


@pytest.mark.parametrize("name", ["tutorial", "evaluate_pytorch"])
def test_notebooks_are_committed_without_outputs(name):
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
    compile(program(name), name, "exec")


@pytest.mark.slow
@pytest.mark.ci
def test_the_tutorial_runs(tmp_path):
    ran = run("tutorial", tmp_path)
    assert ran.returncode == 0, ran.stderr[-4000:]
    for words in (
        "no weights (fewest validation images of a class: 1)",
        "digit 9:   8 training images",
        "report.html",
        "worst class",
        "protocol validation",
        "exact McNemar test",
    ):
        assert words in ran.stdout, words
    assert ran.stdout.count("picture ") == 2
    assert ran.stdout.count("chart\n") == 2
    written = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert written == {"tutorial"}


@pytest.mark.slow
def test_a_pytorch_network_is_evaluated(tmp_path):
    ran = run("evaluate_pytorch", tmp_path)
    if any(importlib.util.find_spec(name) is None for name in ("torch", "torchax")):
        assert ran.returncode == 1
        assert ran.stderr.startswith("This notebook needs ")
        return
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert "protocol quick, linf 16/255, 397 images, 10 classes" in ran.stdout
    assert ran.stdout.count("picture 720 216") == 1
    assert ran.stdout.count("chart\n") == 1
