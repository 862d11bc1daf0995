"""Controls of self-distillation's gain in the tail of CIFAR-10-LT at 100, 50 and 10: five seeds, protocol `standard`.

    ltrobust sweep configs/sweeps/controls_cifar10_cpu.py --out=runs/controls_cifar10_cpu

Scale and length are those of `cifar10_cpu.py`'s sweep. AutoAttack attacks the first 200 test images of each class, and
the last weights alone are evaluated. The data folder is given by `TFDS_DATA_DIR`. Where time is short, the order of
value is the order of `VARIANTS`, at ratio 100 first: `--only=at_bsl,self_distillation` is the primary comparison.
"""

from collections.abc import Mapping
from typing import Any

from configs.sweeps.cifar10_cpu import SHORT
from configs.sweeps.controls_digits import ORDERS

CONFIG = "configs/cifar10_cpu.py"
AXES = {"data.imbalance_ratio": (100.0, 50.0, 10.0), "seed": (0, 1, 2, 3, 4)}

# By ratio: updates of student and balanced teacher, and the epochs of AT-BSL with as many forward passes as both, which
# have 29 and 23 an update (docs: performance).
UPDATES = {100.0: 728, 50.0: 824, 10.0: 1208}
TEACHER_UPDATES = {100.0: 170, 50.0: 255, 10.0: 586}
MATCHED_EPOCHS = {100.0: 12, 50.0: 13, 10.0: 14}
STANDARD = SHORT | {
    "eval.protocol": "standard",
    "eval.networks": ("student/last",),
    "student.validate_every": 8,  # nothing is selected
}
AT_BSL = {"student.method": "at_bsl"}


def counts_teacher(place: Mapping[str, Any]) -> dict[str, Any]:
    """A teacher that knows class counts and sees all images, in as many updates as the balanced one."""
    return _COUNTS | {"teacher.steps": TEACHER_UPDATES[place["data.imbalance_ratio"]]}


def at_bsl_matched(place: Mapping[str, Any]) -> dict[str, Any]:
    """AT-BSL with as many forward passes as self-distillation."""
    return STANDARD | AT_BSL | {"student.epochs": MATCHED_EPOCHS[place["data.imbalance_ratio"]]}


def pgd_at_balanced(place: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's method on the teacher's images, in as many updates as the student."""
    updates = UPDATES[place["data.imbalance_ratio"]]
    return STANDARD | {
        "student.method": "pgd_at",
        "student.subset": "balanced",
        "student.remainder": "carry",
        "student.steps": updates,
    }


_COUNTS = STANDARD | {"teacher.method": "at_bsl", "teacher.subset": "all", "teacher.remainder": "drop"}
VARIANTS = {
    "at_bsl": STANDARD | AT_BSL,
    "self_distillation": STANDARD,
    "counts_teacher": counts_teacher,
    "at_bsl_matched": at_bsl_matched,
    "at_bsl_tau1.5": STANDARD | AT_BSL | {"methods.at_bsl.tau": 1.5},
    "at_bsl_tau2": STANDARD | AT_BSL | {"methods.at_bsl.tau": 2.0},
    "pgd_at_balanced": pgd_at_balanced,
    # The teacher's 5 epochs, of all images.
    "counts_teacher_5_epochs": _COUNTS,
    **{
        f"{name}_{label}": STANDARD | changes | {"data.class_order": order}
        for label, order in ORDERS.items()
        for name, changes in {"at_bsl": AT_BSL, "self_distillation": {}}.items()
    },
}
