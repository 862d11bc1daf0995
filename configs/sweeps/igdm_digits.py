"""The weight of gradient matching (IGDM) on digits, and a larger teacher; three seeds, protocol `standard`.

    ltrobust sweep configs/sweeps/igdm_digits.py --out=runs/igdm_digits

Published weights are 5 to 220. The weight is chosen on the validation part: by the balanced PGD-20 accuracy of the last
epoch in each run's `metrics.jsonl`, mean over seeds, and never by the test set. `wide_teacher` trains PGD-AT on the
balanced subset with twice the channels, and the rows that end in `_wide` learn from it. The primary comparison is
whether the published weight of the nearest recipe raises the tail under `standard`.
"""

from typing import Any

from configs.sweeps.controls_digits import STANDARD
from configs.sweeps.digits import TEACHER, method

CONFIG = "configs/digits.py"
AXES = {"seed": (0, 1, 2)}
PRIMARY = ("at_bsl+igdm_20", "at_bsl")

WIDE = {"teachers.teacher.path": "{out}/wide_teacher-seed{seed}/checkpoints/teacher"}
WEIGHTS = (1.0, 5.0, 20.0, 60.0, 220.0)


def weighted(weight: float, teacher: dict[str, Any]) -> dict[str, Any]:
    """AT-BSL with gradient matching of this weight."""
    return method("at_bsl", "igdm", igdm__alpha=weight) | teacher


CHANGES: dict[str, dict[str, Any]] = {
    "self_distillation": {},
    "wide_teacher": {"model.width": 32},
    "at_bsl": method("at_bsl"),
    **{f"at_bsl+igdm_{weight:g}": weighted(weight, TEACHER) for weight in WEIGHTS},
    **{f"at_bsl+igdm_{weight:g}_wide": weighted(weight, WIDE) for weight in WEIGHTS},
}
VARIANTS = {name: STANDARD | changes for name, changes in CHANGES.items()}
