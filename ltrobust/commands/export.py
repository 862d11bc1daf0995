"""Writes a network of a run for other programs, or its model card.

    ltrobust export RUN --to=torch|safetensors|stablehlo|model-card [--network=student/last] [--out=FILE]

torch and safetensors files hold the same arrays under the usual names of PyTorch code, and `ltrobust evaluate
--weights=FILE` reads them. A stablehlo file holds the logits function with its weights, for `jax.export.deserialize`. A
model card is Markdown with the accuracies and their provenance, as model hubs read it.

Nothing is overwritten.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from ltrobust.commands.parser import Parser, load_code

KINDS = ("torch", "safetensors", "stablehlo", "model-card")


def main(arguments: Sequence[str], program: str) -> None:
    """Writes the file and prints its path.

    Raises:
      ValueError, FileExistsError: as `Run.export`.
    """
    parser = Parser(program, __doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="workdir of the run")
    parser.add_argument("--to", required=True, choices=KINDS, help="what to write")
    parser.add_argument("--network", default="student/last", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="must not exist; default: RUN/exports/NETWORK/...")
    parser.add_code()
    given = parser.parse_args(arguments)
    load_code(given.code)
    from ltrobust import api  # with JAX, which help does not need

    with warnings.catch_warnings(record=True) as reported:
        path = api.open_run(given.run).export(given.to, given.network, out=given.out)
    for warning in reported:
        print(f"warning: {warning.message}")
    print(f"written: {path}")
