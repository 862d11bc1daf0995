"""The examples run as the README says."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *flags: str, home: pathlib.Path) -> subprocess.CompletedProcess[str]:
    # Attacks run for seconds here, which pays for optimisation.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HOME": str(home), "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, str(EXAMPLES / name), *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.ci
def test_networks_and_a_method_of_ones_own_are_one_file(tmp_path):
    """The file is a program, and `--code` loads it for a later command on one of its runs."""
    result = run("own_network_and_method.py", str(tmp_path), home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("right under APGD: ") == 2
    for network in ("PlainNet", "NormNet"):
        card = json.loads((tmp_path / network / "results" / "quick.json").read_text())
        assert card["model"]["name"] == network
        assert card["config"]["methods"]["focal_at"] == {"gamma": 1.0}
        assert card["data"]["evaluated"] == 100
        assert list(card["training"]) == ["student"]
    script = EXAMPLES / "own_network_and_method.py"
    again = ["../main.py", "--mode=evaluate", f"--workdir={tmp_path / 'NormNet'}", "--config.eval.protocol=validation"]
    reported = run(*again, home=tmp_path)
    assert reported.returncode == 1
    assert "settings of the method focal_at, which is not registered; load the file" in reported.stderr
    assert "Traceback" not in reported.stderr
    result = run(*again, f"--code={script}", home=tmp_path)
    assert result.returncode == 0, result.stderr
    restored = json.loads((tmp_path / "NormNet" / "results" / "validation-student.json").read_text())
    trained = card["networks"]["student/last"]
    assert restored["networks"]["student/last"]["params_sha256"] == trained["params_sha256"]


def test_the_example_is_short():
    text = (EXAMPLES / "own_network_and_method.py").read_text()
    driver = text[text.index("def main(") :].strip().splitlines()
    assert len(driver) <= 25
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    assert all(node.end_lineno - node.lineno < 20 for node in classes)
