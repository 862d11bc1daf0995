"""Class-wise methods on CIFAR-10-LT, imbalance ratio 50, at the scale and length of `cifar10_cpu.py`'s sweep.

    ltrobust sweep configs/sweeps/class_wise_cifar10_cpu.py --out=runs/sweep_class_wise_cifar10_cpu

Every method has its published settings, and none was tuned here. What is an epoch in a paper is at the same fraction of
the 8 epochs here (CFA: of 200; its averaging begins with the second). FRL and FAAL fine-tune a robust network at
their published rates, FRL for 3 epochs, about its 40 of 100, and FAAL for its 2; that network is trained before, on all
images, so that the student's epochs are 8 in all. CFA's result are the averaged weights. The data folder is given by
`TFDS_DATA_DIR`.
"""

from configs.sweeps.cifar10_cpu import SHORT
from configs.sweeps.class_wise_digits import TEACHER, fine_tuned

CONFIG = "configs/cifar10_cpu.py"
AXES = {"seed": (0, 1, 2)}

EPOCHS = SHORT["student.epochs"]
CFA = {
    "student.wrappers": ("cfa",),
    "methods.cfa.plain_epochs": EPOCHS * 10 // 200,
    "methods.cfa.average_after": EPOCHS * 49 // 200,
}
REWEIGHT = {"student.wrappers": ("weak_class_reweight",)}

CHANGES = {
    "self_distillation": {},
    "pgd_at": {"student.method": "pgd_at"},
    "trades": {"student.method": "trades"},
    "pgd_at+cfa": CFA | {"student.method": "pgd_at"},
    "trades+cfa": CFA | {"student.method": "trades", "methods.cfa.margin_base": 0.3},
    "chi2_class_dro": {"student.method": "chi2_class_dro"},
    "dafa": {"student.method": "dafa"},
    "wat": {"student.method": "wat"},
    "frl": {"student.method": "frl"} | fine_tuned("trades", 3, of=EPOCHS, learning_rate=1e-3, schedule="constant"),
    "faal": {"student.method": "faal"} | fine_tuned("pgd_at", 2, of=EPOCHS, learning_rate=0.01, drops=(0.5,)),
    "bat": {"student.method": "bat"},
    "pgd_at+weak_class_reweight": REWEIGHT | {"student.method": "pgd_at"},
    "self_distillation+cfa": CFA | TEACHER,
    "self_distillation+weak_class_reweight": REWEIGHT | TEACHER,
}
VARIANTS = {name: SHORT | changes for name, changes in CHANGES.items()}
