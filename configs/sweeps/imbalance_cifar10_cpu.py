"""What the balanced teacher does to the tail of CIFAR-10-LT at imbalance ratios 50, 100 and 10.

    ltrobust sweep configs/sweeps/imbalance_cifar10_cpu.py --out=runs/sweep_imbalance_cifar10_cpu

Adversarial training, the same with balanced softmax, and self-distillation without and with gradient matching, at the
scale and length of `cifar10_cpu.py`'s sweep, whose runs at ratio 50 these are too. The data folder is given by
`TFDS_DATA_DIR`.
"""

from configs.sweeps import cifar10_cpu

CONFIG = cifar10_cpu.CONFIG
AXES = {"data.imbalance_ratio": (50.0, 100.0, 10.0), "seed": (0, 1, 2)}

TEACHER = "{out}/self_distillation_logits-imbalance_ratio{imbalance_ratio}-seed{seed}/checkpoints/teacher"
VARIANTS = {name: cifar10_cpu.VARIANTS[name] for name in ("self_distillation_logits", "pgd_at", "at_bsl")}
VARIANTS["self_distillation"] = cifar10_cpu.SHORT | {"teachers.teacher.path": TEACHER}
