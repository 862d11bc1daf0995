"""Ten classes of ImageNet at 64x64, balanced, ResNet-18, PGD-AT: where the robustness of classes is diagnosed.

    python main.py --config=configs/class_wise/imagenet_subset.py --workdir=runs/imagenet --config.data.dir=DIR
    python main.py --mode=diagnose --workdir=runs/imagenet

The classes are those of Imagenette: tench, English springer, cassette player, chain saw, church, French horn, garbage
truck, gas pump, golf ball and parachute. The test images are those of the official val, 50 of each class.
"""

from ml_collections import ConfigDict

from configs.class_wise.cifar10 import balanced


def get_config() -> ConfigDict:
    config = balanced("imagenet10")
    config.data.image_size = 64
    config.student.augmentation.crop_padding = 8
    config.eval.batch_size = 256
    return config
