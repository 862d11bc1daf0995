"""The tutorial's cells run from top to bottom where nothing else lies."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
CELLS = json.loads((ROOT / "examples" / "tutorial.ipynb").read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_cells_run_as_they_are(tmp_path):
    program = "\n\n".join("".join(cell["source"]) for cell in CODE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stderr[-4000:]
    for words in (
        "no weights (fewest validation images of a class: 1)",
        "digit 9:   8 training images",
        "report.html",
        "worst class",
        "protocol validation",
    ):
        assert words in ran.stdout, words
    written = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert written == {"tutorial"}
