"""The work of `ltrobust agree`: compares the input gradients of two networks on test images."""

import dataclasses
from typing import Any

import jax
from jax.tree_util import Partial

from ltrobust.analysis import cards
from ltrobust.analysis.gradient_agreement import Agreement, agreement
from ltrobust.data import batches
from ltrobust.data.run_data import DataPlan, first_of_each_class
from ltrobust.methods import Teacher
from ltrobust.threat import Threat
from ltrobust.training import saved, teachers
from ltrobust.training.checkpoints import Checkpoints


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
        recorded = saved.read(checkpoints).metadata.config
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
    result = agreement(
        Partial(Teacher.logits, mine.teacher),
        Partial(Teacher.logits, theirs.teacher),
        batches.to_unit(test.images[ids]),
        test.labels[ids],
        epsilon=Threat(**recorded["threat"]).epsilon,
        seed=seed,
    )
    about = {"student": mine.about, "teacher": theirs.about, "data": data.name, "images": len(ids), "seed": seed}
    return result, about | {"software": cards.software(), "device": jax.devices()[0].device_kind}
