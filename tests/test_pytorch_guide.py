"""docs/guides/pytorch.md and examples/evaluate_pytorch.py run as they are written. Needs torchax."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from ltrobust.analysis import cards

ROOT = pathlib.Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guides" / "pytorch.md"
needs_torchax = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "torchax")),
    reason="needs PyTorch and torchax: pip install -e '.[torch]'",
)


def run(folder, *words):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


@needs_torchax
@pytest.mark.slow
def test_the_guides_blocks_run(tmp_path):
    blocks = re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    network, *python = [text for language, text in blocks if language == "python"]
    install, command = [text for language, text in blocks if language == "sh"]
    assert install == "pip install -c constraints.txt -e '.[torch]'\n"
    (tmp_path / "my_network.py").write_text(network)
    printed = run(tmp_path, sys.executable, "-c", "\n".join(python))
    assert "protocol quick, linf 8/255, 20 images" in printed
    assert "(2, 10)" in printed
    (tmp_path / "command.sh").write_text(command.replace("ltrobust", f"{sys.executable} -m ltrobust", 1))
    digest = cards.digest_file(tmp_path / "net.pt")[:8]
    assert f"card: runs/theirs/results/quick-net-{digest}.json" in run(tmp_path, "sh", "command.sh")
    assert (tmp_path / "runs" / "theirs" / "report.html").is_file()


def test_the_guide_is_short():
    assert len(GUIDE.read_text().split()) <= 500


@needs_torchax
@pytest.mark.slow
def test_the_example_runs_and_is_short(tmp_path):
    example = ROOT / "examples" / "evaluate_pytorch.py"
    code = example.read_text().partition("import ltrobust as lt\n")[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    printed = run(tmp_path, sys.executable, str(example))
    assert "protocol quick, linf 16/255" in printed
