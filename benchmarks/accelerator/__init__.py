"""A queue of jobs for minutes on an accelerator: docs/project/accelerator.md.

python -m benchmarks.accelerator pack|wheels|jobs|run|collect
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results" / "accelerator"

# The benchmarks are scripts that import each other by their bare names.
sys.path[:0] = [folder for folder in (str(ROOT), str(ROOT / "benchmarks")) if folder not in sys.path]
