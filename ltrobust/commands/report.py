"""Writes the page of a run, DIR/report.html, from its cards, verdicts and records; no network is evaluated.

    ltrobust report --workdir=DIR [--config.data.dir=DIR]

An earlier page is replaced, any other file is left as it is. Adversarial images need the test images.
"""

from collections.abc import Sequence

from ltrobust.commands.launch import launch


def main(arguments: Sequence[str], program: str) -> None:
    """Writes the page."""
    launch(arguments, program, __doc__, None, trains=False)
