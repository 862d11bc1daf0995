"""A short run of digits, compiled as users compile, against the card that is committed for it: bit for bit."""

import json
import os
import pathlib
import platform
import subprocess
import sys

import jaxlib
import pytest

from ltrobust.analysis import cards
from ltrobust.runtime.files import write_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
# One run for each processor. `python tests/training/test_committed_run.py` adds this one's, or writes it again; after
# a change that is meant to change bits the others' have to go.
COMMITTED = ROOT / "tests" / "training" / "committed_run.json"
SHORT = (
    "--config.teacher.epochs=1",
    "--config.student.epochs=1",
    "--config.eval.protocol=quick",
    "--config.eval.limit=10",
    "--config.eval.also=()",
)


def here() -> dict[str, str]:
    """What the bits of a run depend on besides the code: another version or device is another seed.

    A virtual machine's processor often has a name that many share, so its design and its vector instructions count.
    """
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    values = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    design = [f"{name} {values[name]}" for name in ("vendor_id", "cpu family", "model") if name in values]
    vectors = sorted(flag for flag in values.get("flags", "").split() if flag.startswith(("avx", "amx", "fma")))
    return {
        "processor": ", ".join(design) or platform.processor(),
        "vectors": " ".join(vectors),
        "jaxlib": jaxlib.__version__,
    }


def run(workdir: pathlib.Path) -> dict[str, object]:
    """Weights and counts of every network of the run."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")
    }
    command = [sys.executable, "main.py", "--config=configs/digits.py", f"--workdir={workdir}", *SHORT]
    subprocess.run(command, cwd=ROOT, env=environment | {"JAX_PLATFORMS": "cpu"}, check=True, capture_output=True)
    card = cards.read(workdir / "results" / "quick.json")
    return {
        name: {
            "params_sha256": network.params_sha256,
            "correct": {column: list(result.correct) for column, result in network.columns.items()},
        }
        for name, network in card.networks.items()
    }


@pytest.mark.slow
@pytest.mark.ci
def test_a_short_run_has_the_bits_of_its_committed_card(tmp_path):
    committed = [entry for entry in json.loads(COMMITTED.read_text()) if entry["platform"] == here()]
    if not committed:
        pytest.skip(f"no run is committed for {here()}: another version or device is another seed")
    assert run(tmp_path / "run") == committed[0]["networks"]


if __name__ == "__main__":
    import tempfile

    others = [entry for entry in json.loads(COMMITTED.read_text()) if entry["platform"] != here()]
    with tempfile.TemporaryDirectory() as folder:
        write_json(COMMITTED, [*others, {"platform": here(), "networks": run(pathlib.Path(folder) / "run")}])
