"""Long-tailed methods and self-distillation on CIFAR-10-LT, imbalance ratio 50, at the scale of `cifar10_cpu.py`.

    ltrobust sweep configs/sweeps/cifar10_cpu.py --out=runs/sweep_cifar10_cpu

Phases are shorter still (8 and 5 epochs, 824 and 255 updates) and 200 test images of each class are
attacked, so that a cell takes five minutes on one core. The data folder is given by `TFDS_DATA_DIR`.
"""

CONFIG = "configs/cifar10_cpu.py"
AXES = {"seed": (0, 1, 2)}

SHORT = {
    "teacher.epochs": 5,
    "teacher.validate_every": 5,
    "student.epochs": 8,
    "student.validate_every": 4,
    "eval.limit": 200,
}
CHANGES = {
    "self_distillation_logits": {"methods.self_distillation.beta": 0.0},
    "self_distillation": {"teachers.teacher.path": "{out}/self_distillation_logits-seed{seed}/checkpoints/teacher"},
    "pgd_at": {"student.method": "pgd_at"},
    "trades": {"student.method": "trades"},
    "at_bsl": {"student.method": "at_bsl"},
    "at_bsl_ra": {"student.method": "at_bsl", "student.augmentation.policy": "randaugment"},
    "robal": {"student.method": "robal"},
    "reat": {"student.method": "reat", "methods.reat.variant": "as_released"},
    "taet": {"student.method": "taet"},
    "at_bsl+robust_lt": {"student.method": "at_bsl", "student.wrappers": ("robust_lt",)},
}
VARIANTS = {name: SHORT | changes for name, changes in CHANGES.items()}
