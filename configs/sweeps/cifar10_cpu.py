"""Long-tailed methods and self-distillation on CIFAR-10-LT, imbalance ratio 50, at the scale of `cifar10_cpu.py`.

    python -m ltrobust.sweep configs/sweeps/cifar10_cpu.py --out=runs/sweep_cifar10_cpu

The data folder is given as `ltrobust.sweep` gives it to every run: set `TFDS_DATA_DIR`.
"""

CONFIG = "configs/cifar10_cpu.py"
AXES = {"seed": (0, 1, 2)}

VARIANTS = {
    "self_distillation": {"methods.self_distillation.beta": 0.0},
    "self_distillation+igdm": {"teachers.teacher.path": "{out}/self_distillation-seed{seed}/checkpoints/teacher"},
    "pgd_at": {"student.method": "pgd_at"},
    "trades": {"student.method": "trades"},
    "at_bsl": {"student.method": "at_bsl"},
    "at_bsl_ra": {"student.method": "at_bsl", "student.augmentation.policy": "randaugment"},
    "robal": {"student.method": "robal"},
    "reat": {"student.method": "reat", "methods.reat.variant": "as_released"},
    "taet": {"student.method": "taet"},
    "at_bsl+robust_lt": {"student.method": "at_bsl", "student.wrappers": ("robust_lt",)},
}
