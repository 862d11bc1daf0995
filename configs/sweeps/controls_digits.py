"""Controls of self-distillation's gain in the tail, on digits, imbalance ratio 10: five seeds, protocol `standard`.

    ltrobust sweep configs/sweeps/controls_digits.py --out=runs/controls_digits

AutoAttack attacks the whole test set, and the last weights alone are evaluated. AT-BSL makes 500 updates, the balanced
teacher 253. Settings are published ones and were not tuned here; those of a control are in `VARIANTS`.
"""

from typing import Any

from configs.sweeps.digits import method

CONFIG = "configs/digits.py"
AXES = {"seed": (0, 1, 2, 3, 4)}

UPDATES, TEACHER_UPDATES = 500, 253
STANDARD = {
    "eval.protocol": "standard",
    "eval.networks": ("student/last",),
    # Nothing is selected.
    "student.validate_every": 100,
    "teacher.validate_every": 60,
}
WITH_TEACHER = {"eval.networks": ("student/last", "teacher/last")}
# A teacher that sees all images; `subset` is the data it sees, `steps` the balanced teacher's.
ALL_IMAGES = {"teacher.subset": "all", "teacher.remainder": "drop", "teacher.steps": TEACHER_UPDATES}
# The student's data and updates, of the teacher's method.
BALANCED = {"student.subset": "balanced", "student.remainder": "carry", "student.steps": UPDATES}
ORDERS = {"reversed": "reversed", "random0": "random:0", "random1": "random:1"}
FOLLOW = {"data.split_seed": "{seed}", "teacher.balanced.seed": "{seed}"}


def same_teacher(count: int, **settings: Any) -> dict[str, Any]:
    """A balanced teacher with another number of images of each class, in as many updates."""
    return {"teacher.balanced.count": count, "teacher.steps": TEACHER_UPDATES, **settings}


CHANGES: dict[str, dict[str, Any]] = {
    "at_bsl": method("at_bsl"),
    "self_distillation": WITH_TEACHER,
    # The teacher knows class counts and sees all images; or neither counts nor balance.
    "counts_teacher": ALL_IMAGES | {"teacher.method": "at_bsl"},
    "counts_teacher_500": ALL_IMAGES | {"teacher.method": "at_bsl", "teacher.steps": UPDATES},
    "plain_teacher": ALL_IMAGES,
    # As many forward passes as self-distillation: (500 x 29 + 253 x 23) / 23 = 883 updates (docs: performance).
    "at_bsl_matched": method("at_bsl") | {"student.epochs": 177},
    "at_bsl_tau1.5": method("at_bsl", at_bsl__tau=1.5),
    "at_bsl_tau2": method("at_bsl", at_bsl__tau=2.0),
    "pgd_at_balanced": method("pgd_at") | BALANCED,
    "pgd_at": method("pgd_at"),
    "natural": method("pgd_at") | {"student.attack.radius": 0.0},
    **{
        f"{name}_{label}": changes | {"data.class_order": order}
        for label, order in ORDERS.items()
        for name, changes in {"at_bsl": method("at_bsl"), "self_distillation": {}}.items()
    },
    # Images of each class: the rarest class's, without repeats; the most frequent class's; a new draw every epoch.
    "teacher_8": same_teacher(8),
    "teacher_89": same_teacher(89),
    "teacher_redrawn": {"teacher.balanced.redraw": True},
    # Other images for every seed.
    "at_bsl_resplit": method("at_bsl") | FOLLOW,
    "self_distillation_resplit": FOLLOW,
}
VARIANTS = {name: STANDARD | changes for name, changes in CHANGES.items()}
