"""Builds the documentation's site without a network. Warnings and dead links are errors.

    pip install -c constraints.txt -e '.[docs]'
    python -m tools.docs [--notebooks] [FOLDER]

FOLDER is `build/docs` unless it is given. `--notebooks` runs the notebooks, so that their pages have output (minutes).
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path, *, notebooks: bool = False) -> int:
    """Sphinx's exit status: 0 if the site was built without a warning."""
    options = ["-D", "nb_execution_mode=force"] if notebooks else []
    # Every warning is shown before the first one fails the build.
    strict = ["-q", "-W", "--keep-going"]
    command = [
        sys.executable,
        "-m",
        "sphinx",
        *strict,
        "-b",
        "html",
        "-c",
        "docs",
        *options,
        ".",
        str(folder.resolve()),
    ]
    return subprocess.run(command, cwd=ROOT).returncode


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", action="store_true", help="run the notebooks")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "docs")
    given = parser.parse_args()
    if status := build(given.folder, notebooks=given.notebooks):
        return status
    print(f"The site is in {given.folder}: open {given.folder / 'index.html'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
