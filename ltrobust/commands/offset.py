"""Raises logits of a finished network, fitted on its validation part, and evaluates the result.

    ltrobust offset --workdir=DIR --out=DIR [--prior] [--norm_equalise=TAU] [--protocol=NAME]

The workdir may also be a phase's folder of checkpoints. The offset is log s of the class that is weakest on the
validation part; with --prior it is tau log(n_max / n) of every class, n being its training images. s or tau is chosen
there, each candidate under an attack on the changed network. After that, and only then,
the test images are read: the card and the verdicts of the changed network lie in the new folder.
"""

from collections.abc import Sequence
from pathlib import Path

from ltrobust.analysis.class_logit_offset import Offset
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
    parser.add_argument("--prior", action="store_true", help="offsets of all classes by their training images")
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
    if isinstance(offset, Offset):
        print(f"weakest class on the validation part: {offset.weakest}; s = {offset.factor:g}")
    else:
        print(f"offsets of all classes: tau = {offset.tau:g}")
    letter = "s" if isinstance(offset, Offset) else "tau"
    for value, mean, worst in offset.tried:
        print(f"  {letter} = {value:<5g} validation PGD-20 over classes: mean {mean:6.1%}, worst {worst:6.1%}")
