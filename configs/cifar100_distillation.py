"""Adversarial distillation on the whole of CIFAR-100, ResNet-18: as `cifar10_distillation.py`, with its weights.

    python main.py --config=configs/cifar100_distillation.py:NAME --workdir=runs/NAME \
        --config.teachers.teacher.path=FILE --config.teachers.teacher.architecture=wrn_34_10 [--config.data.dir=DIR]
"""

from ml_collections import ConfigDict

from configs import cifar10_distillation

# For BDM-AT and IKL-AT: pgd_at 220, 100; trades 5, 5; ard 100, 100; iad 50, 50; rslad 10, 10; adaad 70, 50.
BASES = {"pgd_at": 100.0, "trades": 5.0, "ard": 50.0, "iad": 20.0, "rslad": 3.0, "adaad": 15.0}


def get_config(name: str = "ard+igdm") -> ConfigDict:
    return cifar10_distillation.make("cifar100", 100, name, BASES)
