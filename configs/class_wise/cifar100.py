"""Balanced CIFAR-100, ResNet-18, PGD-AT: where the robustness of classes is diagnosed.

python main.py --config=configs/class_wise/cifar100.py --workdir=runs/class_wise_cifar100 --config.data.dir=DIR
python main.py --mode=diagnose --workdir=runs/class_wise_cifar100
"""

from ml_collections import ConfigDict

from configs.class_wise.cifar10 import balanced


def get_config() -> ConfigDict:
    return balanced("cifar100")
