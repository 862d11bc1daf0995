"""Compares two or more evaluated networks, image by image.

    ltrobust compare REFERENCE MODEL [MODEL ...]
    ltrobust compare MODEL [MODEL ...] --against REFERENCE
    ltrobust compare A0 A1 A2 --against B0 B1 B2

Each is a workdir (its student), WORKDIR:NETWORK with a network of its cards (runs/a:teacher, runs/a:student/selected),
or the folder of a verdict store. All must have been evaluated on the same images under the same protocol and threat.
Every model is compared with the reference: McNemar, paired bootstrap, which images flip and which attack made the
difference. The second line is the same as the first.

With several training seeds of two methods, the third line pairs them in this order and gives the seeds' differences and
their t-interval: what a claim that A beats B needs.

Every difference, here and in every table, is model minus reference: above 0 where the model is better. Nothing is
overwritten.
"""

from collections.abc import Sequence
from pathlib import Path

from ltrobust.analysis import compare_runs
from ltrobust.analysis.schema.comparison import NetworkComparison
from ltrobust.commands.parser import Parser
from ltrobust.report import comparison
from ltrobust.runtime import typed_json
from ltrobust.runtime.files import write_json, write_text


def render(found: NetworkComparison) -> str:
    """The whole text for a terminal."""
    parts = [f"note: {note}" for note in found.notes]
    if found.seeds and found.sides:
        parts.append(comparison.over_seeds(found.seeds, found.sides, found.class_names))
    for pair in found.comparisons:
        if found.seeds:
            overall, test = pair.result.overall, pair.result.overall.test
            line = f"{pair.difference}: {100 * overall.difference:+.2f}"
            parts.append(f"{line}, won {test.b}, lost {test.c}, p {test.p:.4f}")
            continue
        parts.append(comparison.render(pair.result, (pair.model, pair.reference), found.class_names))
        parts.append(comparison.flips(pair, found.class_names))
    return "\n\n".join(parts)


def main(arguments: Sequence[str], program: str) -> None:
    """Prints the comparison, and writes it where asked.

    Raises:
      ValueError: networks that cannot be compared, or a file that exists.
    """
    parser = Parser(program, __doc__)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="workdir, WORKDIR:NETWORK or verdict store; without --against, the first is the reference",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="RUN",
        help="the reference; or runs of a second method, in the same order of seeds",
    )
    parser.add_argument("--column", help="clean, an attack, or a combination; default: the protocol's headline")
    parser.add_argument("--html", type=Path, metavar="FILE", help="where to write the page; must not exist")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the numbers; must not exist")
    parser.add_argument("--data_dir", default="", metavar="DIR", help="of the data set, for pictures on the page")
    parser.add_argument(
        "--cache_dir", default="~/.cache/ltrobust", metavar="DIR", help="of decoded images; default: %(default)s"
    )
    given = parser.parse_args(arguments)
    for path in filter(None, (given.html, given.json)):
        if path.exists() or path.is_symlink():
            raise ValueError(f"{path} exists; nothing is overwritten.")
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent} is not a folder; make it first.")
    compare_runs.check_numbers(given.runs, given.against)
    models, second = compare_runs.read(given.runs, given.against)
    result = compare_runs.compare_models(models, second, given.column)
    print(render(result))
    if given.json is not None:
        write_json(given.json, typed_json.plain(result), new=True)
    if given.html is not None:
        from ltrobust.report import comparison_page  # Altair takes a second to import

        drawn = comparison_page.pictures(models, result, given.data_dir, given.cache_dir)
        write_text(given.html, comparison_page.render(result, *drawn), new=True)
        print(f"comparison: {given.html}")
