"""Balanced STL-10 at 96x96, ResNet-18, PGD-AT: where the robustness of classes is diagnosed.

    python main.py --config=configs/class_wise/stl10.py --workdir=runs/class_wise_stl10 --config.data.dir=DIR
    python main.py --mode=diagnose --workdir=runs/class_wise_stl10

The unlabelled images are not used.
"""

from ml_collections import ConfigDict

from configs.class_wise.cifar10 import balanced


def get_config() -> ConfigDict:
    config = balanced("stl10")
    config.student.augmentation.crop_padding = 12
    config.eval.batch_size = 128
    return config
