"""Two or more evaluated networks, image by image: `python -m ltrobust.compare REFERENCE MODEL [MODEL ...]`.

Each is a workdir (its student), `WORKDIR:NETWORK` with a network of its cards (`runs/a:teacher`,
`runs/a:student/selected`), or the folder of a verdict store. All must have been evaluated on the same images under the
same protocol and threat. Every model is compared with the reference: McNemar, paired bootstrap, which images flip and
which attack made the difference. `compare MODEL [MODEL ...] --against REFERENCE` is the same.

With several training seeds of two methods, `compare A0 A1 A2 --against B0 B1 B2` pairs them in this order and gives the
seeds' differences and their t-interval: what a claim that A beats B needs.

Every difference, here and in every table, is model minus reference: above 0 where the model is better. The reference
is what follows `--against`, or without it the first argument. Nothing is overwritten. No JAX.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltrobust.analysis import compare_runs
from ltrobust.report import comparison, comparison_page, flips, over_seeds
from ltrobust.runtime.files import write_json, write_text
from ltrobust.runtime.terminal import accept_all_characters


def render(found: Mapping[str, Any]) -> str:
    """The whole text for a terminal."""
    parts = [f"note: {note}" for note in found["notes"]]
    if found["seeds"]:
        parts.append(over_seeds.text(found["seeds"], found["sides"], found["class_names"]))
    for pair in found["comparisons"]:
        if found["seeds"]:
            overall = pair["result"]["overall"]
            line = f"{pair['model']} minus {pair['reference']}: {100 * overall['difference']:+.2f}"
            parts.append(f"{line}, won {overall['b']}, lost {overall['c']}, p {overall['p']:.4f}")
            continue
        parts.append(comparison.render(pair["result"], (pair["model"], pair["reference"]), found["class_names"]))
        parts.append(flips.text(pair, found["class_names"]))
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Prints the comparison, and writes it where asked."""
    accept_all_characters()
    parser = argparse.ArgumentParser(prog="python -m ltrobust.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "runs",
        nargs="+",
        help="WORKDIR, WORKDIR:NETWORK or verdict store; without --against, the first is the reference",
    )
    parser.add_argument(
        "--against", nargs="+", default=[], help="the reference; or runs of a second method, in the same order of seeds"
    )
    parser.add_argument("--column", help="clean, an attack, or a combination; default: the protocol's headline")
    parser.add_argument("--html", type=Path, help="where to write the page; must not exist")
    parser.add_argument("--json", type=Path, help="where to write the numbers; must not exist")
    parser.add_argument("--data_dir", default="", help="where prepared data lie, for pictures on the page")
    parser.add_argument("--cache_dir", default="~/.cache/ltrobust", help="where decoded images are kept")
    given = parser.parse_args(arguments)
    try:
        for path in filter(None, (given.html, given.json)):
            if path.exists() or path.is_symlink():
                raise ValueError(f"{path} exists; nothing is overwritten.")
            if not path.parent.is_dir():
                raise ValueError(f"{path.parent} is not a folder; make it first.")
        compare_runs.check_numbers(given.runs, given.against)
        models, second = compare_runs.read(given.runs, given.against)
        found = compare_runs.compare_models(models, second, given.column)
        print(render(found))
        if given.json is not None:
            write_json(given.json, found, new=True)
        if given.html is not None:
            drawn = flips.pictures(models, found, given.data_dir, given.cache_dir)
            write_text(given.html, comparison_page.render(found, *drawn), new=True)
    except (ValueError, OSError) as error:
        sys.exit(f"ltrobust: {error}")


if __name__ == "__main__":
    main()
