"""A short run of digits, compiled as users compile, against the card that is committed for it: bit for bit."""

import json
import os
import pathlib
import subprocess
import sys

import jaxlib
import pytest

from ltrobust.analysis import cards
from ltrobust.runtime.files import write_json

ROOT = pathlib.Path(__file__).resolve().parents[2]
# One run for each processor. `python tests/training/test_committed_run.py` adds this one's. Where it differs from this
# one's in the file, bits have changed, and it replaces all: those of other processors are of the code before.
COMMITTED = ROOT / "tests" / "training" / "committed_run.json"
CPUINFO = pathlib.Path("/proc/cpuinfo")
UNKNOWN = f"nothing is known about this processor: {CPUINFO} does not name its design and its vector instructions"
SHORT = (
    "--config.teacher.epochs=1",
    "--config.student.epochs=1",
    "--config.eval.protocol=quick",
    "--config.eval.limit=10",
    "--config.eval.also=()",
)
# Lines of /proc/cpuinfo on the design of a processor, x86 and ARM.
DESIGN = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU architecture", "CPU variant", "CPU part")
# The line of instructions, and how those of vectors begin.
VECTORS = {"flags": ("avx", "amx", "fma"), "Features": ("asimd", "sve", "sme", "bf16", "i8mm")}


def platform_of(cpuinfo: str) -> dict[str, str] | None:
    """What the bits of a run depend on besides the code: another version or device is another seed.

    A virtual machine's processor often has a name that many share, so its design and its vector instructions count.

    Args:
      cpuinfo: the text of /proc/cpuinfo; empty where there is none.

    Returns:
      None where nothing is known about the processor.
    """
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    values = {name.strip(): value.strip() for name, _, value in lines}
    design = ", ".join(f"{name} {values[name]}" for name in DESIGN if name in values)
    vectors = " ".join(
        sorted(
            name for line, begin in VECTORS.items() for name in values.get(line, "").split() if name.startswith(begin)
        )
    )
    return {"processor": design, "vectors": vectors, "jaxlib": jaxlib.__version__} if design and vectors else None


def here() -> dict[str, str] | None:
    """`platform_of` this machine."""
    return platform_of(CPUINFO.read_text() if CPUINFO.exists() else "")


def updated(committed: list[dict], entry: dict) -> list[dict]:
    """The committed runs with this platform's `entry`: added, or alone where it differs from the committed one."""
    known = [other for other in committed if other["platform"] == entry["platform"]]
    if not known:
        return [*committed, entry]
    return committed if known == [entry] else [entry]


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


X86 = """
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC
flags		: fpu avx2 smep fma avx
"""
ARM = """
Features	: fp sve asimd fphp
CPU implementer	: 0x41
CPU part	: 0xd40
CPU revision	: 1
"""


def test_a_platform_is_the_processor_s_design_and_its_vector_instructions():
    assert platform_of(X86) == {
        "processor": "vendor_id AuthenticAMD, cpu family 25, model 1",
        "vectors": "avx avx2 fma",
        "jaxlib": jaxlib.__version__,
    }
    assert platform_of(ARM) == {
        "processor": "CPU implementer 0x41, CPU part 0xd40",
        "vectors": "asimd sve",
        "jaxlib": jaxlib.__version__,
    }
    assert platform_of(ARM) != platform_of(ARM.replace("0xd40", "0xd0c"))
    assert platform_of(ARM) != platform_of(ARM.replace("sve ", ""))


@pytest.mark.parametrize(
    "cpuinfo", ["", "processor : 0\nhart : 1\n", X86.replace("flags", "flag"), "flags : avx fma\n"]
)
def test_a_processor_that_is_not_described_has_no_platform(cpuinfo):
    assert platform_of(cpuinfo) is None


def test_runs_of_other_processors_go_only_where_the_bits_have_changed():
    one, other = ({"platform": {"processor": name}, "networks": {"n": 1}} for name in "ab")
    assert updated([], one) == [one]
    assert updated([one], other) == [one, other]
    assert updated([one, other], other) == [one, other]
    changed = other | {"networks": {"n": 2}}
    assert updated([one, other], changed) == [changed]


@pytest.mark.slow
@pytest.mark.ci
def test_a_short_run_has_the_bits_of_its_committed_card(tmp_path):
    platform = here()
    if platform is None:
        pytest.skip(UNKNOWN)
    committed = [entry for entry in json.loads(COMMITTED.read_text()) if entry["platform"] == platform]
    if not committed:
        pytest.skip(f"no run is committed for {platform}: another version or device is another seed")
    assert run(tmp_path / "run") == committed[0]["networks"]


if __name__ == "__main__":
    import tempfile

    if (platform := here()) is None:
        sys.exit(UNKNOWN)
    with tempfile.TemporaryDirectory() as folder:
        entry = {"platform": platform, "networks": run(pathlib.Path(folder) / "run")}
    write_json(COMMITTED, updated(json.loads(COMMITTED.read_text()), entry))
