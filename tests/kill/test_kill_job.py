"""A sweep by jobs, one of which is asked to stop in the middle, ends as the same sweep one run after the other."""

import os
import re
import signal
import subprocess
import sys
import time

import harness
import pytest

from tools import run_digests

SWEEP = """
CONFIG = "configs/digits.py"
SMALL = {"model.width": 4, "student.epochs": 2, "student.attack.steps": 1, "eval.protocol": "validation"}
SMALL |= {"data.imbalance_ratio": 4.0, "eval.limit": 2, "checkpoint.minutes": 0.0, "student.initialize": "scratch"}
VARIANTS = {"pgd_at": SMALL | {"student.method": "pgd_at"}, "at_bsl": SMALL | {"student.method": "at_bsl"}}
AXES = {"seed": (0, 1)}
"""


@pytest.mark.slow
@pytest.mark.ci
def test_local_jobs_one_of_them_killed_give_the_sequential_table(tmp_path):
    (tmp_path / "sweep.py").write_text(SWEEP)
    settings = {
        "cwd": tmp_path,
        "env": os.environ | {"PYTHONPATH": str(harness.ROOT), "JAX_PLATFORMS": "cpu"},
        "stderr": subprocess.STDOUT,
    }
    command = [sys.executable, "-m", "ltrobust", "sweep", "sweep.py"]
    subprocess.run([*command, "--out=plain"], check=True, timeout=900, **settings)
    killed, log = tmp_path / "jobs" / "at_bsl-seed0", tmp_path / "printed"
    with log.open("w") as printed:
        process = subprocess.Popen([*command, "--out=jobs", "--launcher=local", "--jobs=2"], stdout=printed, **settings)
    while process.poll() is None and not (killed / "metrics.jsonl").exists():
        time.sleep(0.01)
    os.kill(int((killed / "lock").read_text().split()[1]), signal.SIGTERM)  # the run, after its first epoch
    assert process.wait(900) == 0, log.read_text()
    text = log.read_text()
    assert "4 cells: 4 finished, 0 failed, 0 running; table: jobs/table.md" in text
    assert re.search(r"at_bsl-seed0: requeued\n(.*\n)*\[2/4\] at_bsl-seed0: running on", text), text
    assert (tmp_path / "jobs" / "table.md").read_bytes() == (tmp_path / "plain" / "table.md").read_bytes()
    for cell in sorted(path.name for path in (tmp_path / "plain").iterdir() if path.is_dir()):
        plain, jobs = (run_digests.of_run(tmp_path / name / cell) for name in ("plain", "jobs"))
        assert run_digests.differences(plain, jobs) == [], cell
