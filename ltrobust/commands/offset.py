"""Raises the logit of a finished network's weakest class, fitted on its validation part, and evaluates the result.

    ltrobust offset --workdir=DIR --out=DIR [--norm_equalise=TAU] [--protocol=NAME]

The workdir may also be a phase's folder of checkpoints. The offset is log s of the class that is weakest on the
validation part; s is chosen there, each candidate under an attack on the changed network. After that, and only then,
the test images are read: the card and the verdicts of the changed network lie in the new folder.
"""

from collections.abc import Sequence
from pathlib import Path

from ltrobust.commands.parser import Parser, load_code
from ltrobust.runtime import logs
from ltrobust.runtime.workdir import WEIGHTS


def main(arguments: Sequence[str], program: str) -> None:
    """Fits, evaluates, and prints what was tried.

    Raises:
      ValueError: as `offset_network.apply`.
    """
    parser = Parser(program, __doc__)
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="workdir (its student) or a phase's folder of checkpoints"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the card and the verdicts")
    parser.add_argument("--weights", default="last", choices=WEIGHTS, help="default: %(default)s")
    parser.add_argument(
        "--norm_equalise", type=float, default=0.0, metavar="TAU", help="0: not; 1: equal lengths; default: 0"
    )
    parser.add_argument("--protocol", help="of the evaluation; default: the run's")
    parser.add_argument("--data_dir", metavar="DIR", help="of the data set; default: the run's")
    parser.add_code()
    given = vars(parser.parse_args(arguments))
    load_code(given.pop("code"))
    from ltrobust.commands import offset_network  # with JAX, which help does not need

    with logs.quiet():
        offset, _ = offset_network.apply(
            given.pop("workdir"), given.pop("out"), tau=given.pop("norm_equalise"), **given
        )
    print(f"weakest class on the validation part: {offset.weakest}; s = {offset.factor:g}")
    for factor, mean, worst in offset.tried:
        print(f"  s = {factor:<5g} validation PGD-20 over classes: mean {mean:6.1%}, worst {worst:6.1%}")
