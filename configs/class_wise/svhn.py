"""Balanced SVHN, ResNet-18, PGD-AT: where the robustness of classes is diagnosed.

    python main.py --config=configs/class_wise/svhn.py --workdir=runs/class_wise_svhn --config.data.dir=DIR
    python main.py --mode=diagnose --workdir=runs/class_wise_svhn

No flips, which would make other digits. Each class has as many images as the rarest, 4,659.
"""

from ml_collections import ConfigDict

from configs.class_wise.cifar10 import balanced


def get_config() -> ConfigDict:
    config = balanced("svhn_cropped")
    config.student.augmentation.flip = False
    config.student.optimizer.learning_rate = 0.01  # 0.1 often does not start on SVHN
    return config
