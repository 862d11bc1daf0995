"""Tiny-ImageNet-LT, imbalance ratio 10, PreActResNet-18 at 64x64: the long-tailed recipe at full scale.

    python main.py --config=configs/tiny_imagenet.py --workdir=runs/tiny [--config.data.dir=DIR]

DIR holds the official `tiny-imagenet-200.zip` (or the extracted folder), or TFDS's manual directory does. The official
`val` images are the test set. A training image costs four times CIFAR's; plan four times the accelerator hours.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config: Any = default.get_config()
    config.data.name = "tiny_imagenet"
    config.data.imbalance_ratio = 10.0
    config.model.name = "preact_resnet18"
    config.methods.self_distillation.beta = 10.0
    config.student.augmentation.crop_padding = 8
    config.teacher.augmentation.crop_padding = 8
    config.eval.batch_size = 128
    return config
