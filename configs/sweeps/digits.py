"""All long-tailed and distillation methods on digits, three seeds, one protocol.

    ltrobust sweep configs/sweeps/digits.py --out=runs/sweep_digits

Every method has its published settings where they are not epochs, and none was tuned here. The teacher of every
distillation is that of the self-distillation of the same seed: PGD-AT on the balanced subset. That of
`self_distillation_all` is PGD-AT on all images instead, in 300 updates where the balanced teacher has 253.
"""

CONFIG = "configs/digits.py"
AXES = {"seed": (0, 1, 2)}

TEACHER = {"teachers.teacher.path": "{out}/self_distillation-seed{seed}/checkpoints/teacher"}
CLEAN_TEACHER = {"teachers.clean_teacher.path": "{out}/natural-seed{seed}/checkpoints/student"}
# 60 of 200 epochs in the published recipe, 30 of 100 here.
LATE = 30


def method(name: str, *wrappers: str, **settings: object) -> dict[str, object]:
    """Changes that make a method the student's; settings by `group__key`."""
    own = {f"methods.{key.replace('__', '.')}": value for key, value in settings.items()}
    return {"student.method": name, "student.wrappers": wrappers, **own}


VARIANTS = {
    "self_distillation": {},
    "natural": method("pgd_at") | {"student.attack.radius": 0.0},
    "pgd_at": method("pgd_at"),
    "trades": method("trades"),
    "mart": method("mart"),
    "pgd_at+awp": method("pgd_at", "awp"),
    "at_bsl": method("at_bsl"),
    "robal": method("robal"),
    "reat": method("reat", reat__variant="as_released"),
    "taet": method("taet"),
    "at_bsl+robust_lt": method("at_bsl", "robust_lt"),
    "self_distillation_logits": method("self_distillation", self_distillation__beta=0.0) | TEACHER,
    "self_distillation_igdm": method("self_distillation", self_distillation__alpha=0.0) | TEACHER,
    "self_distillation_all": {"teacher.subset": "all", "teacher.remainder": "drop"},
    "ard": method("ard") | TEACHER,
    "iad": method("iad", iad__own_from=LATE) | TEACHER,
    "iad2": method("iad2", iad2__own_from=20) | TEACHER | CLEAN_TEACHER,
    "rslad": method("rslad") | TEACHER,
    "adaad": method("adaad", adaad__passes="adv_clean") | TEACHER,
    "adaiad": method("adaiad", adaiad__own_from=LATE) | TEACHER,
    "mtard": method("mtard") | TEACHER | CLEAN_TEACHER,
    "b_mtard": method("b_mtard") | TEACHER | CLEAN_TEACHER,
    "ard+fair_ard": method("ard", "fair_ard") | TEACHER,
    "pgd_at+igdm": method("pgd_at", "igdm") | TEACHER,
    "trades+igdm": method("trades", "igdm") | TEACHER,
    "at_bsl+igdm": method("at_bsl", "igdm") | TEACHER,
    "ard+igdm": method("ard", "igdm") | TEACHER,
    "rslad+igdm": method("rslad", "igdm", igdm__alpha=0.9) | TEACHER,
    "adaad+igdm": method("adaad", "igdm", adaad__passes="adv_clean") | TEACHER,
}
