"""What travels with the working tree to a bare machine, all in one folder: packs, wheels, and the golden networks.

FOLDER/<any name>/pack.json   data sets (`ltrobust/data/pack.py`)
FOLDER/wheels/*.whl           pure Python packages that the machine lacks, imported from where they lie
FOLDER/golden/*.npz           small robust networks, and what the public AutoAttack decided
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accelerator import ROOT, jobs
from ltrobust.data import pack, pack_manifest

# Import name -> distribution. A run from a pack needs the first two; `speed` compares with the third.
NEEDED = {"ml_collections": "ml_collections", "tensorboardX": "tensorboardX"}
REFERENCE = {"pyautoattack": "pyautoattack==0.2.0"}


def find_packs(folder: Path, wanted: Sequence[str] = ()) -> dict[str, Path]:
    """The packs in the folder by data set, all of their files checked.

    Args:
      folder: of the inputs.
      wanted: data sets that have to be there.

    Raises:
      ValueError: a pack that is damaged or has another imbalance ratio than its jobs, two packs of one data set, or
        none of a wanted one.
    """
    result: dict[str, Path] = {}
    for path in sorted(folder.glob(f"*/{pack_manifest.NAME}")):
        place, manifest = path.parent, pack.check(path.parent)
        try:
            ratio = jobs.ratio_of(manifest.name)
        except ValueError as error:
            raise ValueError(f"{place}: {error} Move it away.") from error
        if (manifest.imbalance_ratio, manifest.profile, manifest.seed) != (ratio, "exp", 0):
            raise ValueError(
                f"{place} is a pack of imbalance ratio {manifest.imbalance_ratio:g}, profile {manifest.profile}, seed "
                f"{manifest.seed}; the jobs need {ratio:g}, exp, 0. Make that one, or move this one away."
            )
        if manifest.name in result:
            raise ValueError(
                f"{folder} has two packs of {manifest.name}: {result[manifest.name].name} and {place.name}; "
                "move one away."
            )
        result[manifest.name] = place
    if missing := [name for name in wanted if name not in result]:
        raise ValueError(
            f"{folder} has no pack of {missing[0]}. Make it: python -m benchmarks.accelerator pack "
            f"--data={missing[0]} --data_dir=DIR --out={folder / missing[0]}"
        )
    return result


def check_wheels(folder: Path) -> list[str]:
    """Paths of the wheels, for `PYTHONPATH`.

    Raises:
      ValueError: a package that a run needs is neither installed nor among them.
    """
    wheels = sorted((folder / "wheels").glob("*.whl"))
    names = {re.split(r"-\d", wheel.name)[0].lower() for wheel in wheels}
    missing = [name for name in NEEDED if name.lower() not in names and importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} is not installed, and {folder}/wheels has no wheel of it. "
            f"Where there is a network: python -m benchmarks.accelerator wheels --out={folder}/wheels"
        )
    return [str(wheel.resolve()) for wheel in wheels]


def golden_of(folder: Path) -> Path | None:
    """The folder that holds `golden/`: the inputs, or what lies beside the checkout; None where there is neither."""
    return next((place for place in (folder, ROOT.parent / "shared") if (place / "golden").is_dir()), None)


def lacking(job: jobs.Job, packs: dict[str, Path], golden: Path | None) -> str:
    """What a job needs and does not have, for a person; empty where it has everything."""
    missing = [f"a pack of {name}" for name in job.packs if name not in packs]
    return " and ".join(missing + ["the folder golden/"] * (job.golden and golden is None))


def collect_wheels(out: Path) -> list[Path]:
    """Downloads the wheels and keeps their Python files and metadata alone; a wheel that is there is left as it is.

    Versions are those of `constraints.txt`. Returns the paths.

    Raises:
      ValueError: pip cannot download one (gives its last line), or one has compiled code.
    """
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    wanted = [f"{name}=={pinned[name]}" for name in NEEDED.values()] + list(REFERENCE.values())
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder]
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise ValueError(f"pip could not download {', '.join(wanted)}: {lines[-1] if lines else 'no message'}")
        return [python_only(wheel, out) for wheel in sorted(Path(folder).glob("*.whl"))]


def python_only(wheel: Path, out: Path) -> Path:
    """Copies a pure wheel without its data files: examples may be many times the size of the code."""
    if not wheel.name.endswith("-none-any.whl"):
        raise ValueError(
            f"{wheel.name} has compiled code; only pure Python wheels can be imported from where they lie."
        )
    target = out / wheel.name
    if target.exists():
        return target
    partial = target.with_suffix(f".{os.getpid()}.partial")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as kept:
        for member in source.infolist():
            if member.filename.endswith(".py") or ".dist-info/" in member.filename:
                kept.writestr(member, source.read(member))
    partial.replace(target)
    return target
