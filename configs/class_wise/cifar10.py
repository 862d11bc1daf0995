"""Balanced CIFAR-10, ResNet-18, PGD-AT: where the robustness of classes is diagnosed.

    python main.py --config=configs/class_wise/cifar10.py --workdir=runs/class_wise_cifar10 --config.data.dir=DIR
    python main.py --mode=diagnose --workdir=runs/class_wise_cifar10

The data sets of this folder are those of arXiv 2105.14240, every class with the same number of images. Ball and steps
are 8/255 and 2/255, but for MNIST; the length is AT-BSL's. That paper's own recipe is not known here, and no time has
been measured.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def balanced(name: str) -> Any:
    """The recipe that the configurations of this folder share, for a data set."""
    config: Any = default.get_config()
    config.data.name = name
    config.data.imbalance_ratio = 1.0
    config.data.validation_fraction = 0.06  # of CIFAR-10, 300 images of each class
    config.student.method = "pgd_at"
    config.student.attack.start = "uniform"
    return config


def get_config() -> ConfigDict:
    return balanced("cifar10")
