"""Compares the input gradients of a student and a teacher, and how linear they are around test images.

    ltrobust agree --student=WORKDIR --teacher=WORKDIR [--images=N] [--json=FILE]

Both may be a workdir (its student) or a phase's folder of checkpoints. Images are the first of each class of the test
set that the student's configuration names; the radius is that configuration's.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.tree_util import Partial

from ltrobust.analysis import cards
from ltrobust.analysis.gradient_agreement import Agreement, agreement
from ltrobust.commands.parser import Parser, load_code
from ltrobust.data import batches
from ltrobust.data.run_data import DataPlan, first_of_each_class
from ltrobust.methods import Teacher
from ltrobust.plan import WEIGHTS
from ltrobust.runtime.files import write_json
from ltrobust.threat import Threat
from ltrobust.training import saved, teachers
from ltrobust.training.checkpoints import Checkpoints

_TITLES = {
    "distance": "L2 distance of input gradients",
    "cosine": "cosine of input gradients",
    "student_remainder": "linearity remainder, student",
    "teacher_remainder": "linearity remainder, teacher",
}


def compare_networks(
    student: str,
    teacher: str,
    *,
    student_weights: str = "last",
    teacher_weights: str = "last",
    images: int = 1000,
    data_dir: str | None = None,
    seed: int = 0,
) -> tuple[Agreement, dict[str, Any]]:
    """The agreement of two of our networks on test images, and what was compared.

    Args:
      student, teacher: workdirs or folders of checkpoints.
      student_weights, teacher_weights: `last`, `selected` or `averaged`.
      images: how many at most; as many of each class.
      data_dir: of the data set; None for the one in the student's configuration.
      seed: of the changes for the linearity remainder.

    Raises:
      ValueError: a path that does not exist, weights that are not there, networks of other classes or images, or fewer
        images than classes.
    """
    folder = saved.find(student, "--student")
    with Checkpoints(folder, read_only=True) as checkpoints:
        recorded = saved.read(checkpoints, folder).about["config"]
    data = DataPlan(**recorded["data"])
    test = (data if data_dir is None else dataclasses.replace(data, dir=data_dir)).open("test")
    each = images // test.num_classes
    if each < 1:
        raise ValueError(f"--images is {images}; give at least one for each of the {test.num_classes} classes.")
    ids = first_of_each_class(test.labels, each)
    shape = test.images.shape[1:]
    mine, theirs = (
        teachers.from_checkpoints(
            path,
            weights,
            label=f"--{role}",
            weights_label=f"--{role}_weights",
            num_classes=test.num_classes,
            image_shape=shape,
            exact=True,
        )
        for role, path, weights in (("student", student, student_weights), ("teacher", teacher, teacher_weights))
    )
    found = agreement(
        Partial(Teacher.logits, mine.teacher),
        Partial(Teacher.logits, theirs.teacher),
        batches.to_unit(test.images[ids]),
        test.labels[ids],
        epsilon=Threat(**recorded["threat"]).epsilon,
        seed=seed,
    )
    about = {"student": mine.about, "teacher": theirs.about, "data": data.name, "images": len(ids), "seed": seed}
    return found, about | {"software": cards.software(), "device": jax.devices()[0].device_kind}


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
    # Orbax warns of every read-only opening; what matters of it comes as an exception.
    logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
    target = given.pop("json")
    if target is not None and target.exists():
        raise ValueError(f"{target} exists; nothing is overwritten.")
    load_code(given.pop("code"))
    found, about = compare_networks(given.pop("student"), given.pop("teacher"), **given)
    means = found.means()
    for role in ("student", "teacher"):
        print(
            f"{role}: {about[role]['path']}, {about[role]['phase']}/{about[role]['weights']}, {about[role]['method']}"
        )
    print(f"{about['images']} test images of {about['data']}")
    for name, estimate in means.items():
        print(f"{_TITLES[name]:32s} {estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    if target is not None:
        write_json(target, about | {name: estimate._asdict() for name, estimate in means.items()}, new=True)
