"""Balanced CIFAR-10, the class-wise paper's own setting, at the scale of `cifar10_cpu.py`; one seed.

    ltrobust sweep configs/sweeps/balanced_cifar10_cpu.py --out=runs/balanced_cifar10_cpu
    ltrobust diagnose runs/balanced_cifar10_cpu/{pgd_at,trades,mart}-seed0

The protocol `diagnose` has several attacks and Temperature-PGD. The second command says how alike the orders of the
classes are over attacks and defences, and what temperature changes. A run takes about half an hour on one core.
"""

from configs.sweeps.cifar10_cpu import SHORT

CONFIG = "configs/cifar10_cpu.py"
AXES = {"seed": (0,)}

BALANCED = SHORT | {
    "data.imbalance_ratio": 1.0,
    "student.validate_every": 8,
    "eval.protocol": "diagnose",
    "eval.networks": ("student/last",),
}
VARIANTS = {
    "pgd_at": BALANCED | {"student.method": "pgd_at"},
    "trades": BALANCED | {"student.method": "trades"},
    "mart": BALANCED | {"student.method": "mart"},
    "natural": BALANCED | {"student.method": "pgd_at", "student.attack.radius": 0.0},
}
