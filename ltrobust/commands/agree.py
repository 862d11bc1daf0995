"""Compares the input gradients of a student and a teacher, and how linear they are around test images.

    ltrobust agree --student=WORKDIR --teacher=WORKDIR [--images=N] [--json=FILE]

Both may be a workdir (its student) or a phase's folder of checkpoints. Images are the first of each class of the test
set that the student's configuration names; the radius is that configuration's.
"""

from collections.abc import Sequence
from pathlib import Path

from ltrobust.commands.parser import Parser, load_code
from ltrobust.runtime import logs
from ltrobust.runtime.files import write_json
from ltrobust.runtime.workdir import WEIGHTS

_TITLES = {
    "distance": "L2 distance of input gradients",
    "cosine": "cosine of input gradients",
    "student_remainder": "linearity remainder, student",
    "teacher_remainder": "linearity remainder, teacher",
}


def main(arguments: Sequence[str], program: str) -> None:
    """Prints means and their 95 % intervals over images.

    Raises:
      ValueError: networks that cannot be compared, or a file that exists.
    """
    parser = Parser(program, __doc__)
    for role in ("student", "teacher"):
        parser.add_argument(
            f"--{role}", required=True, metavar="DIR", help="workdir (its student) or a phase's folder of checkpoints"
        )
        parser.add_argument(
            f"--{role}_weights", default="last", choices=WEIGHTS, help=f"of the {role}; default: %(default)s"
        )
    parser.add_argument("--images", type=int, default=1000, help="number at most, as many of each class; default: 1000")
    parser.add_argument("--seed", type=int, default=0, help="of the changes for the linearity remainder; default: 0")
    parser.add_argument("--data_dir", metavar="DIR", help="of the data set; default: the student's configuration's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the numbers too; must not exist")
    parser.add_code()
    given = vars(parser.parse_args(arguments))
    target = given.pop("json")
    if target is not None and target.exists():
        raise ValueError(f"{target} exists; nothing is overwritten.")
    load_code(given.pop("code"))
    from ltrobust.commands.agreement import compare_networks  # with JAX, which help does not need

    with logs.quiet():
        result, about = compare_networks(given.pop("student"), given.pop("teacher"), **given)
    means = result.means()
    for role in ("student", "teacher"):
        print(
            f"{role}: {about[role]['path']}, {about[role]['phase']}/{about[role]['weights']}, {about[role]['method']}"
        )
    print(f"{about['images']} test images of {about['data']}")
    for name, estimate in means.items():
        print(f"{_TITLES[name]:32s} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    if target is not None:
        write_json(target, about | {name: estimate._asdict() for name, estimate in means.items()}, new=True)
